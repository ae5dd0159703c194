"""An admin API on a real socket whose answers a test chooses; it keeps what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.errors import status_of
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from gateway.wire.pb.driftgate.admin.v1.admin_pb2_grpc import AdminServicer, add_AdminServicer_to_server
from runtime.errors import ServingError

DIGEST = "sha256:" + "0123456789abcdef" * 4
OTHER_DIGEST = "sha256:" + "fedcba9876543210" * 4
CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass
class CannedGateway(AdminServicer):
    """`answers`: method → response message, a list of them (a stream), an error to refuse with, or (unary) what
    makes the answer from the call's context.

    A stream stays open after its messages until `end_streams` is set; `gone` is set when its client has left.
    """

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, Any, dict[str, Any]]] = field(default_factory=list)
    end_streams: Event = field(default_factory=Event)
    gone: Event = field(default_factory=Event)
    address: str = ""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("Watch"):
            return lambda request, context: self._stream(name, request, context)
        if name in pb.DESCRIPTOR.services_by_name["Admin"].methods_by_name:
            return lambda request, context: self._unary(name, request, context)
        return super().__getattribute__(name)

    @property
    def request(self) -> Any:
        """The only one there was."""
        [(_, request, _)] = self.asked
        return request

    @property
    def metadata(self) -> dict[str, Any]:
        [(_, _, metadata)] = self.asked
        return metadata

    def _unary(self, name: str, request: Any, context: Any) -> Any:
        self._keep(name, request, context)
        answer = self.answers[name]
        if isinstance(answer, ServingError):
            refuse(context, answer)
        return answer(context) if callable(answer) else answer

    def _stream(self, name: str, request: Any, context: Any) -> Iterator[Any]:
        self._keep(name, request, context)
        answer = self.answers[name]
        if isinstance(answer, ServingError):
            refuse(context, answer)
        context.add_callback(self.gone.set)
        context.add_callback(self.end_streams.set)
        yield from answer
        self.end_streams.wait()

    def _keep(self, name: str, request: Any, context: Any) -> None:
        self.asked.append((name, request, {item.key: item.value for item in context.invocation_metadata()}))


def refuse(context: Any, error: ServingError) -> None:
    """As the gateway does: the code with details in the trailers."""
    status = status_of(error, "test")
    context.set_trailing_metadata(status.trailers)
    context.abort(CODES[status.code], status.message)


def serve(gateway: CannedGateway, credentials: grpc.ServerCredentials | None = None) -> Callable[[], None]:
    """Listens on a free port of loopback; answers what ends it."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    add_AdminServicer_to_server(gateway, server)  # type: ignore[no-untyped-call]
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    gateway.address = f"127.0.0.1:{port}"

    def stop() -> None:
        gateway.end_streams.set()
        server.stop(0).wait()

    return stop


def timestamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(int(seconds * 1e9))
    return stamp


def duration(seconds: float) -> Duration:
    message = Duration()
    message.FromNanoseconds(int(seconds * 1e9))
    return message


def iris(**fields: Any) -> pb.Model:
    """Two versions with the same signature: 2 is served as default and `stable`, 1 has failed."""
    signature: dict[str, Any] = {
        "inputs": [pb.Tensor(name="X", datatype="FP32", shape=[-1, 30])],
        "outputs": [
            pb.Tensor(name="label", datatype="INT64", shape=[-1]),
            pb.Tensor(name="probabilities", datatype="FP32", shape=[-1, 2]),
        ],
    }
    versions = [
        pb.Version(
            version=1, digest=OTHER_DIGEST, state=pb.VERSION_STATE_FAILED, reason="LOAD_FAILED: not an ONNX graph",
            workers_total=2, **signature,
        ),
        pb.Version(
            version=2, digest=DIGEST, state=pb.VERSION_STATE_AVAILABLE, labels=["stable"], is_default=True,
            loaded_at=timestamp(1_750_000_000), load_duration=duration(0.82), memory_bytes=12_900_000,
            file_bytes=1536, execution_providers=["CPUExecutionProvider"], max_batch_size=32,
            workers_available=2, workers_total=2, warnings=["config.pbtxt: instance_group does not map"], **signature,
        ),
    ]  # fmt: skip
    values: dict[str, Any] = {
        "name": "iris", "versions": versions, "policy": "latest(1)", "labels": {"stable": 2}, "served": True
    }  # fmt: skip
    return pb.Model(**(values | fields))


def without_colours(text: str) -> str:
    head, *rest = text.split("\x1b[")
    return head + "".join(part.partition("m")[2] for part in rest)
