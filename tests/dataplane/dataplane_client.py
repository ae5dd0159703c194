"""A plain gRPC client of the data plane: numpy arrays ↔ messages of the generated stubs, refusals taken apart."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import ml_dtypes
import numpy as np
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from numpy.typing import NDArray

from gateway.wire.pb.inference import grpc_service_pb2 as pb
from gateway.wire.pb.inference import grpc_service_pb2_grpc as rpc

Array = NDArray[Any]
Metadata = tuple[tuple[str, str | bytes], ...]

TIMEOUT_SECONDS = 20.0  # a hung server fails the test in so long
INFER_PATH = "/inference.GRPCInferenceService/ModelInfer"
DATATYPES: Mapping[str, Any] = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": object,
}
NAMES = {np.dtype(dtype): name for name, dtype in DATATYPES.items()}
LENGTH = struct.Struct("<I")


def raw_of(array: Array) -> bytes:
    """Little-endian row-major bytes; for object arrays of str or bytes, each element behind its uint32 length."""
    if array.dtype.kind != "O":
        return np.ascontiguousarray(array).tobytes()
    elements = [e if isinstance(e, bytes) else str(e).encode() for e in array.ravel().tolist()]
    return b"".join(LENGTH.pack(len(element)) + element for element in elements)


def array_of(datatype: str, shape: Iterable[int], raw: bytes) -> Array:
    """The array that raw contents mean; BYTES become an object array of str. Fails on a byte too many or too few."""
    shape = tuple(shape)
    if datatype != "BYTES":
        return np.frombuffer(raw, dtype=DATATYPES[datatype]).reshape(shape)
    elements, offset = [], 0
    while offset < len(raw):
        (length,) = LENGTH.unpack_from(raw, offset)
        offset += 4 + length
        assert offset <= len(raw), "an element reaches past the end of the contents"
        elements.append(raw[offset - length : offset].decode())
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(shape)


def make_request(
    model: str,
    feeds: Mapping[str, Array],
    *,
    version: str = "",
    outputs: Iterable[str] = (),
    id: str = "",  # noqa: A002  (the protocol's own name)
) -> pb.ModelInferRequest:
    """A request with raw contents."""
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=id)
    for name, array in feeds.items():
        request.inputs.add(name=name, datatype=NAMES[array.dtype], shape=array.shape)
        request.raw_input_contents.append(raw_of(array))
    for name in outputs:
        request.outputs.add(name=name)
    return request


def answers(response: pb.ModelInferResponse) -> dict[str, Array]:
    """The outputs by name, in the order of the response."""
    assert len(response.outputs) == len(response.raw_output_contents)
    return {
        tensor.name: array_of(tensor.datatype, tensor.shape, raw)
        for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


@dataclass(frozen=True)
class Refusal:
    """What a client learns when it gets no answer. `details` are the google.rpc messages by their short name."""

    code: grpc.StatusCode
    message: str
    details: dict[str, Any]

    @property
    def reason(self) -> str:
        return str(self.details["ErrorInfo"].reason)

    @property
    def fields(self) -> list[str]:
        return [violation.field for violation in self.details["BadRequest"].field_violations]


DETAIL_TYPES: tuple[type[Message], ...] = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.RetryInfo,
)


def refusal_of(error: Any) -> Refusal:
    """Takes an RpcError apart; what grpc-status-details-bin holds must agree with the status itself."""
    packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    details: dict[str, Any] = {}
    if packed is not None:
        status = status_pb2.Status.FromString(packed)
        assert status.code == error.code().value[0]
        assert status.message == error.details()
        for item in status.details:
            for kind in DETAIL_TYPES:
                if item.Is(kind.DESCRIPTOR):
                    message = kind()
                    item.Unpack(message)
                    details[kind.DESCRIPTOR.name] = message
        assert len(details) == len(status.details), "a detail of an unknown type"
    return Refusal(error.code(), error.details() or "", details)


class Client:
    """One channel. `payload` sends bytes as they are, for what no generated code would write."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.stub = rpc.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
        self.infer_bytes: Any = channel.unary_unary(INFER_PATH)

    def infer(self, request: pb.ModelInferRequest, **options: Any) -> dict[str, Array]:
        return answers(self.response(request, **options))

    def response(self, request: pb.ModelInferRequest, **options: Any) -> pb.ModelInferResponse:
        response: pb.ModelInferResponse = self.stub.ModelInfer(request, **{"timeout": TIMEOUT_SECONDS, **options})
        return response

    def refused(self, request: pb.ModelInferRequest, **options: Any) -> Refusal:
        return refused(lambda: self.response(request, **options))

    def payload(self, payload: bytes) -> Refusal | pb.ModelInferResponse:
        """The answer to the bytes of a ModelInfer call, or why there is none."""
        try:
            answer = self.infer_bytes(payload, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            return refusal_of(error)
        return pb.ModelInferResponse.FromString(answer)


def refused(call: Callable[[], Any]) -> Refusal:
    """What `call` is refused with; fails if it is not."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return refusal_of(error)
    raise AssertionError(f"expected a refusal, got {str(answer)[:500]}")


def channel_to(address: str, **options: int) -> grpc.Channel:
    """A plain channel of its own connection, without limits on messages."""
    return grpc.insecure_channel(address, channel_arguments(**options))


def channel_arguments(**options: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
        *((f"grpc.{name}", value) for name, value in options.items()),
    ]
