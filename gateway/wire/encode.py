"""Answers → ModelInferResponse bytes, written without building messages.

A response is a few constant pieces, the request's id, and slices of the run's output; only the slices are copied. The
field numbers are those of protos/inference/grpc_service.proto; a test decodes every response with the generated code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.batching.request import Request
from runtime.onnx.dtypes import BY_NAME
from runtime.types import Signature

Array = npt.NDArray[Any]

# Tags of ModelInferResponse: field number << 3 | 2 (length-delimited)
MODEL_NAME, MODEL_VERSION, ID, PARAMETERS, OUTPUTS, RAW = (bytes([number << 3 | 2]) for number in range(1, 7))
# Tags of InferOutputTensor
NAME, DATATYPE, SHAPE = (bytes([number << 3 | 2]) for number in range(1, 4))
STREAM_ERROR, STREAM_RESPONSE = b"\x0a", b"\x12"
FINAL_RESPONSE = b"\x22\x1b\x0a\x15triton_final_response\x12\x02\x08\x01"
MAX_CACHED_HEADERS = 1024  # shapes a version has answered with; beyond it the cache starts anew

SMALL_VARINTS = [bytes((value,)) for value in range(0x80)]


def varint(value: int) -> bytes:
    """Protobuf's base-128 integer; `value` >= 0."""
    if value < 0x80:
        return SMALL_VARINTS[value]
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def field(tag: bytes, content: bytes) -> bytes:
    return tag + varint(len(content)) + content


def encode_strings(elements: Sequence[Any]) -> bytes:
    """BYTES raw contents: per element a little-endian uint32 length, then the bytes."""
    pieces = []
    for element in elements:
        data = element if isinstance(element, bytes) else str(element).encode()
        pieces.append(len(data).to_bytes(4, "little"))
        pieces.append(data)
    return b"".join(pieces)


class Encoder:
    """Encodes the responses of one version."""

    def __init__(self, model: str, version: int, signature: Signature) -> None:
        self._head = field(MODEL_NAME, model.encode()) + field(MODEL_VERSION, str(version).encode())
        self._outputs = signature.outputs
        self._numpy = [BY_NAME[spec.datatype].numpy for spec in signature.outputs]
        self._headers: dict[Any, bytes] = {}

    def encode(self, requests: Sequence[Request], answers: Sequence[Array]) -> list[bytes]:
        """One response per request, in order. `answers` hold the requests' rows one after another along axis 0."""
        outputs = requests[0].outputs
        if len(requests) == 1:
            return [self._whole(requests[0], outputs, answers)]
        tails = [answer.shape[1:] for answer in answers]
        raws: list[tuple[bytes | None, int, Array]] = []
        for index, answer in zip(outputs, answers, strict=True):
            data = None if self._numpy[index].kind == "O" else self._raw(index, answer)
            raws.append((data, len(data) // answer.shape[0] if data else 0, answer))
        headers: dict[int, bytes] = {}
        responses = []
        start = 0
        for request in requests:
            rows = request.rows
            stop = start + rows
            header = headers.get(rows)
            if header is None:
                headers[rows] = header = self._header(outputs, [(rows, *tail) for tail in tails])
            identity = request.id
            pieces = [self._head, field(ID, identity.encode()), header] if identity else [self._head, header]
            for data, stride, answer in raws:
                if data is None:
                    pieces.append(field(RAW, encode_strings(answer[start:stop].ravel().tolist())))
                else:
                    pieces.append(RAW)
                    pieces.append(varint(rows * stride))
                    pieces.append(data[start * stride : stop * stride])
            responses.append(b"".join(pieces))
            start = stop
        return responses

    def _whole(self, request: Request, outputs: tuple[int, ...], answers: Sequence[Array]) -> bytes:
        pieces = [self._head]
        if request.id:
            pieces.append(field(ID, request.id.encode()))
        pieces.append(self._header(outputs, [answer.shape for answer in answers]))
        for index, answer in zip(outputs, answers, strict=True):
            raw = self._raw(index, answer)
            pieces.append(RAW)
            pieces.append(varint(len(raw)))
            pieces.append(raw)
        return b"".join(pieces)

    def _raw(self, index: int, answer: Array) -> bytes:
        dtype = self._numpy[index]
        if dtype.kind == "O":
            return encode_strings(answer.ravel().tolist())
        return np.ascontiguousarray(answer, dtype).tobytes()

    def _header(self, outputs: tuple[int, ...], shapes: Sequence[tuple[int, ...]]) -> bytes:
        key = (outputs, *shapes)
        header = self._headers.get(key)
        if header is None:
            if len(self._headers) >= MAX_CACHED_HEADERS:
                self._headers.clear()
            header = b"".join(self._tensor(index, shape) for index, shape in zip(outputs, shapes, strict=True))
            self._headers[key] = header
        return header

    def _tensor(self, index: int, shape: tuple[int, ...]) -> bytes:
        spec = self._outputs[index]
        content = field(NAME, spec.name.encode()) + field(DATATYPE, spec.datatype.encode())
        if shape:
            content += field(SHAPE, b"".join(varint(axis) for axis in shape))
        return field(OUTPUTS, content)


def stream_answer(response: bytes, *, final: bool) -> bytes:
    """A ModelStreamInferResponse that carries `response`; `final` adds Triton's triton_final_response parameter."""
    return field(STREAM_RESPONSE, response + FINAL_RESPONSE if final else response)


def stream_error(message: str, request_id: str, model: str) -> bytes:
    """A ModelStreamInferResponse that carries an error; the response inside names the request."""
    inside = (field(MODEL_NAME, model.encode()) if model else b"") + (
        field(ID, request_id.encode()) if request_id else b""
    )
    return field(STREAM_ERROR, message.encode()) + field(STREAM_RESPONSE, inside)
