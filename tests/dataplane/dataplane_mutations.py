"""Requests that are nearly well: valid ones with bytes or fields changed, from a seeded source."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from dataplane_client import DATATYPES, make_request
from zoo import by_name

from gateway.wire.pb.inference import grpc_service_pb2 as pb

MODELS = (
    "mlp", "float64", "float16", "bfloat16", "integers", "boolean", "strings", "label_encoder", "mixed", "fixed",
    "scalar", "images", "reduce_t", "equal_axes", "matmul", "center_rows", "unique", "three_outputs", "rows_or_none",
    "forest", "string_labels", "constant_output", "unknown_rank", "no_inputs",
)  # fmt: skip
"""Those of the zoo on which no well-formed input fails at run time, so that any INTERNAL is the gateway's fault."""
CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 64, 255, 2**20, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, -1, -2, -(2**31), -(2**63))
NAMES = ("", "x", "y", "a", "b", "X", "x\0", "nowhere", "日本", "\U000e0001" * 30, "n" * 500, "1", "stable", "../..")
PARAMETERS = (
    "timeout", "priority", "sequence_id", "sequence_start", "sequence_end", "triton_enable_empty_final_response",
    "triton_unknown", "binary_data", "mine", "",
)  # fmt: skip
RAWS = (b"", b"\0", b"\1\0\0\0a", b"\xff\xff\xff\xff", b"\2\0\0\0\xc3\x28", b"\0" * 64, b"\x80" * 7, bytes(range(48)))
BYTES_OF_INTEREST = (0x00, 0x01, 0x0A, 0x12, 0x1A, 0x22, 0x2A, 0x32, 0x3A, 0x7F, 0x80, 0xFF)


def seeds() -> list[bytes]:
    """A valid message of each kind for each model: raw and typed contents, 0 to 3 rows, ids, outputs, parameters."""
    made: list[bytes] = []
    for name in MODELS:
        for rows in (0, 1, 3):
            request = make_request(name, by_name[name].feeds(np.random.default_rng(rows), rows), id=f"id {rows}")
            made.append(request.SerializeToString())
            typed = typed_of(request)
            if typed is not None:
                made.append(typed.SerializeToString())
            request.model_version = "stable"
            request.parameters["sequence_id"].int64_param = 7
            request.parameters["mine"].string_param = "a"
            made.append(request.SerializeToString())
    return made


def typed_of(request: pb.ModelInferRequest) -> pb.ModelInferRequest | None:
    """The same request with typed contents; None where a datatype has none."""
    typed = pb.ModelInferRequest()
    typed.CopyFrom(request)
    del typed.raw_input_contents[:]
    for tensor, raw in zip(typed.inputs, request.raw_input_contents, strict=True):
        if tensor.datatype not in CONTENTS or tensor.datatype == "BYTES":
            return None
        values = np.frombuffer(raw, dtype=DATATYPES[tensor.datatype]).tolist()
        getattr(tensor.contents, CONTENTS[tensor.datatype]).extend(values)
    return typed


def mutated(source: random.Random, corpus: list[bytes]) -> bytes:
    """A message of `corpus` after one to four changes, of its bytes or of its fields."""
    payload = source.choice(corpus)
    for _ in range(source.choice((1, 1, 1, 2, 3, 4))):
        raw = source.random() < 0.3
        payload = _change_bytes(source, payload, corpus) if raw else _change_field(source, payload)
    return payload


def _change_bytes(source: random.Random, payload: bytes, corpus: list[bytes]) -> bytes:
    data = bytearray(payload)
    at = source.randrange(len(data) + 1)
    to = min(len(data), at + source.choice((1, 1, 2, 4, 16)))
    match source.randrange(8):
        case 0 if at < len(data):
            data[at] ^= 1 << source.randrange(8)
        case 1 if at < len(data):
            data[at] = source.choice(BYTES_OF_INTEREST)
        case 2:
            data[at:at] = bytes([source.choice(BYTES_OF_INTEREST)])
        case 3:
            del data[at:to]
        case 4:
            del data[at:]
        case 5:
            data[at:at] = data[at:to]
        case 6:
            other = source.choice(corpus)
            cut = source.randrange(len(other) + 1)
            data[at:] = other[cut:]
        case _:
            data[at:at] = source.randbytes(source.choice((1, 3, 10)))
    return bytes(data)


def _change_field(source: random.Random, payload: bytes) -> bytes:
    request = pb.ModelInferRequest()
    try:
        request.ParseFromString(payload)
    except Exception:
        return payload
    source.choice(CHANGES)(source, request)
    return request.SerializeToString()


def _tensor(source: random.Random, request: Any) -> Any:
    return source.choice(request.inputs) if request.inputs else request.inputs.add()


def _change_shape(source: random.Random, request: Any) -> None:
    shape = list(_tensor(source, request).shape)
    match source.randrange(4):
        case 0 if shape:
            shape[source.randrange(len(shape))] = source.choice(SIZES)
        case 1:
            shape.insert(source.randrange(len(shape) + 1), source.choice(SIZES))
        case 2 if shape:
            del shape[source.randrange(len(shape))]
        case _:
            shape = [source.choice(SIZES) for _ in range(source.choice((0, 1, 2, 3, 40, 100)))]
    tensor = _tensor(source, request)
    tensor.shape[:] = shape


def _change_name(source: random.Random, request: Any) -> None:
    setattr(_tensor(source, request), source.choice(("name", "datatype")), source.choice((*NAMES, *DATATYPES)))


def _change_route(source: random.Random, request: Any) -> None:
    setattr(request, source.choice(("model_name", "model_version", "id")), source.choice((*NAMES, *MODELS)))


def _change_raw(source: random.Random, request: Any) -> None:
    raws = request.raw_input_contents
    match source.randrange(4):
        case 0 if raws:
            raws[source.randrange(len(raws))] = source.choice(RAWS)
        case 1 if raws:
            del raws[source.randrange(len(raws))]
        case 2 if raws:
            index = source.randrange(len(raws))
            raws[index] = source.randbytes(len(raws[index]))
        case _:
            raws.append(source.choice(RAWS))


def _change_values(source: random.Random, request: Any) -> None:
    """Other values of the same length: what a remembered layout takes for the same request."""
    for index, raw in enumerate(request.raw_input_contents):
        if source.random() < 0.7:
            request.raw_input_contents[index] = source.randbytes(len(raw))
    if request.id:
        request.id = "".join(source.choices("abcé\0", k=len(request.id)))


def _change_contents(source: random.Random, request: Any) -> None:
    contents = _tensor(source, request).contents
    field = source.choice(sorted(set(CONTENTS.values())))
    if field == "bytes_contents":
        contents.bytes_contents.append(source.choice(RAWS))
    elif field in ("fp32_contents", "fp64_contents"):
        getattr(contents, field).append(source.choice((0.0, -0.0, float("nan"), float("inf"), 1e300, 1e-40)))
    else:
        getattr(contents, field).append(source.choice((0, 1, 127, 1)))
    if source.random() < 0.5:
        del request.raw_input_contents[:]


def _change_parameters(source: random.Random, request: Any) -> None:
    holder = source.choice((request, _tensor(source, request)))
    value = holder.parameters[source.choice(PARAMETERS)]
    match source.randrange(6):
        case 0:
            value.bool_param = True
        case 1:
            value.int64_param = source.choice(SIZES)
        case 2:
            value.string_param = source.choice(NAMES)
        case 3:
            value.double_param = float("nan")
        case 4:
            value.uint64_param = 2**64 - 1
        case _:
            value.SetInParent()


def _change_outputs(source: random.Random, request: Any) -> None:
    if request.outputs and source.random() < 0.3:
        request.outputs.add().CopyFrom(request.outputs[0])
    else:
        request.outputs.add(name=source.choice((*NAMES, "same", "total", "label", "z")))


def _change_inputs(source: random.Random, request: Any) -> None:
    match source.randrange(3):
        case 0 if request.inputs:
            del request.inputs[source.randrange(len(request.inputs))]
        case 1 if len(request.inputs) > 1:
            first = pb.ModelInferRequest.InferInputTensor()
            first.CopyFrom(request.inputs[0])
            request.inputs[0].CopyFrom(request.inputs[1])
            request.inputs[1].CopyFrom(first)
        case _:
            request.inputs.add().CopyFrom(_tensor(source, request))


CHANGES: tuple[Callable[[random.Random, Any], None], ...] = (
    _change_shape,
    _change_shape,
    _change_name,
    _change_route,
    *[_change_values] * 4,
    _change_raw,
    _change_contents,
    _change_parameters,
    _change_outputs,
    _change_inputs,
)
