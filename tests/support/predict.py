"""One prediction of a `y = x + k` model: which version answered, and its k."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np

from gateway.wire.pb.inference import grpc_service_pb2 as pb
from gateway.wire.pb.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from support.admin import Refused
from support.load import infer_request

CALL_SECONDS = 30.0


class Client:
    """A connection of its own; raises Refused."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self._stub: Any = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]  # generated

    def predict(self, model: str, version: str = "") -> tuple[int, float]:
        """(version that answered, its k)."""
        x = np.zeros((1, 4), np.float32)
        response: pb.ModelInferResponse = self.ask("ModelInfer", infer_request(model, x, version))
        return int(response.model_version), float(np.frombuffer(response.raw_output_contents[0], np.float32)[0])

    def ask(self, method: str, request: Any) -> Any:
        try:
            return getattr(self._stub, method)(request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            raise Refused(error) from None

    def begin(self, method: str, request: Any) -> Any:
        """The call, under way: its `result()` and `code()` tell how it ended."""
        return getattr(self._stub, method).future(request, timeout=CALL_SECONDS)


@contextmanager
def client_of(address: str) -> Iterator[Client]:
    options = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
    with grpc.insecure_channel(address, options=options) as channel:
        yield Client(channel)
