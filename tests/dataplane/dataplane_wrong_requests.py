"""Requests each with one thing wrong, and what a good refusal of it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from dataplane_client import make_request

from gateway.wire.pb.inference import grpc_service_pb2 as pb

INT64_MAX = 2**63 - 1
X = np.array([[1, 2, 3, 4]], dtype=np.float32)
WORDS = np.array(["a", "b"], dtype=object)


def plain() -> pb.ModelInferRequest:
    return make_request("add_const", {"x": X})


def words() -> pb.ModelInferRequest:
    return make_request("strings", {"a": WORDS, "b": WORDS})


def tokens() -> pb.ModelInferRequest:
    return make_request("reduce_t", {"x": X})


def product() -> pb.ModelInferRequest:
    return make_request("matmul", {"x": X, "y": X.T})


def anything() -> pb.ModelInferRequest:
    return make_request("unknown_rank", {"x": X})


def shaped(*shape: int, raw: bytes | None = None) -> Callable[[Any], object]:
    def change(request: Any) -> None:
        request.inputs[0].shape[:] = shape
        if raw is not None:
            request.raw_input_contents[0] = raw

    return change


def drop_contents(request: Any) -> None:
    del request.raw_input_contents[:]


def drop_inputs(request: Any) -> None:
    drop_contents(request)
    del request.inputs[:]


def empty_and_huge(request: Any) -> None:
    shaped(0, 2**62)(request)
    request.raw_input_contents[0] = b""


def ask(*names: str) -> Callable[[Any], object]:
    def change(request: Any) -> None:
        for name in names:
            request.outputs.add(name=name)

    return change


def datatype(name: str) -> Callable[[Any], object]:
    def change(request: Any) -> None:
        request.inputs[0].datatype = name

    return change


def twice(request: Any) -> None:
    request.inputs.add().CopyFrom(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


def one_name_twice(request: Any) -> None:
    request.inputs[1].name = "a"


def parameter(name: str, **value: Any) -> Callable[[Any], object]:
    def change(request: Any) -> None:
        for kind, item in value.items():
            setattr(request.parameters[name], kind, item)
        if not value:
            request.parameters[name].SetInParent()

    return change


def typed(field: str, *values: Any) -> Callable[[Any], object]:
    def change(request: Any) -> None:
        drop_contents(request)
        getattr(request.inputs[0].contents, field).extend(values)

    return change


Wrong = tuple[Callable[[], pb.ModelInferRequest], Callable[[Any], object], str, str]
WRONG: dict[str, Wrong] = {
    "columns": (plain, shaped(1, 5), "'x': expected [-1,4], got [1,5]", "x"),
    "rank below": (plain, shaped(4), "expected [-1,4], got [4]", "x"),
    "rank above": (plain, shaped(1, 1, 4), "expected [-1,4], got [1,1,4]", "x"),
    "no shape": (plain, shaped(), "expected [-1,4], got []", "x"),
    "rank of a thousand": (plain, shaped(*[1] * 1000), "expected [-1,4], got [1,1,1", "x"),
    "shape -1": (plain, shaped(-1, 4), "expected [-1,4], got [-1,4]", "x"),
    "negative dims that multiply to a fit": (plain, shaped(-1, -4), "got [-1,-4]", "x"),
    "smallest dim": (plain, shaped(-(2**63), 4), f"got [{-(2**63)},4]", "x"),
    "overflow to zero bytes": (plain, shaped(2**62, 4, raw=b""), f"[{2**62},4] needs {2**66} bytes, got 0", "x"),
    "overflow to the bytes sent": (plain, shaped(2**62 + 1, 4), f"needs {2**66 + 16} bytes, got 16", "x"),
    "empty beside a huge axis": (tokens, shaped(2**40, 0, raw=b""), "is empty", "x"),
    "empty with dims that overflow": (
        product,
        empty_and_huge,
        f"multiply to 1048576 at most, got [0,{2**62}]",
        "x",
    ),
    "rank of a thousand where any goes": (anything, shaped(*[1] * 1000), "expected 32 axes of 0 or more at most", "x"),
    "largest dim": (plain, shaped(INT64_MAX, 4), "bytes, got 16", "x"),
    "a row too many": (plain, shaped(2, 4), "FP32 [2,4] needs 32 bytes, got 16", "x"),
    "a byte too few": (plain, shaped(1, 4, raw=X.tobytes()[:-1]), "needs 16 bytes, got 15", "x"),
    "a byte too many": (plain, shaped(1, 4, raw=X.tobytes() + b"\0"), "needs 16 bytes, got 17", "x"),
    "datatype": (plain, datatype("INT64"), "expected FP32, got 'INT64'", "x"),
    "datatype nonsense": (plain, datatype("float32"), "no datatype: the protocol", "x"),
    "datatype empty": (plain, datatype(""), "expected FP32, got ''", "x"),
    "datatype endless": (plain, datatype("F" * 10**6), "expected FP32, got 'F", "x"),
    "unknown input": (plain, lambda r: setattr(r.inputs[0], "name", "z"), "unknown: 'z'; missing: 'x'", "inputs"),
    "no inputs": (plain, drop_inputs, "expected 1 inputs ('x'), got 0", "inputs"),
    "duplicate input": (plain, twice, "expected 1 inputs ('x'), got 2", "inputs"),
    "one input twice": (words, one_name_twice, "input 'a' is given twice", "inputs[1]"),
    "missing input": (words, lambda r: (r.inputs.pop(), r.raw_input_contents.pop()), "missing: 'b'", "inputs"),
    "contents and raw": (plain, lambda r: r.inputs[0].contents.fp32_contents.extend([1.0]), "send one of the two", "x"),
    "empty contents and raw": (plain, lambda r: r.inputs[0].contents.SetInParent(), "send one of the two", "x"),
    "raw too few": (words, lambda r: r.raw_input_contents.pop(), "expected 2 entries", "raw_input_contents"),
    "raw too many": (plain, lambda r: r.raw_input_contents.append(b""), "expected 1 entries", "raw_input_contents"),
    "nothing sent": (plain, drop_contents, "[1,4] needs 4 values, got 0", "x"),
    "typed too few": (plain, typed("fp32_contents", 1, 2, 3), "[1,4] needs 4 values, got 3", "x"),
    "typed in the wrong field": (plain, typed("fp64_contents", 1, 2, 3, 4), "in fp32_contents, got fp64_contents", "x"),
    "rows that differ": (words, shaped(1, raw=b"\1\0\0\0a"), "same number of rows: 'a' has 1, 'b' has 2", "b"),
    "string count": (
        words,
        shaped(3, raw=b"\4\0\0\0abcd\4\0\0\0abcd"),
        "end at byte 16, before the length of element 2",
        "a",
    ),
    "string length": (words, shaped(1, raw=b"\xff\xff\xff\xffa"), "element 0 claims 4294967295 bytes, 1 are left", "a"),
    "string rest": (words, shaped(1, raw=b"\1\0\0\0ab"), "1 bytes are left after its 1 elements", "a"),
    "strings without lengths": (words, shaped(2, raw=b"abcdefg"), "need at least 8 bytes of lengths, got 7", "a"),
    "string dims that overflow": (words, shaped(INT64_MAX), "bytes of lengths, got 10 bytes", "a"),
    "unknown output": (plain, ask("z"), "no output 'z'; it has 'y'", "z"),
    "output twice": (plain, ask("y", "y"), "'y' is asked for twice", "y"),
    "input's parameter": (
        plain,
        lambda r: r.inputs[0].parameters["shared_memory_region"].__setattr__("string_param", "r"),
        "parameter 'shared_memory_region' is not supported",
        "x",
    ),
    "output's parameter": (
        plain,
        lambda r: r.outputs.add(name="y").parameters["classification"].__setattr__("int64_param", 3),
        "parameter 'classification' is not supported",
        "y",
    ),
    "reserved parameter": (
        plain,
        parameter("triton_what", bool_param=True),
        "'triton_what' is reserved",
        "triton_what",
    ),
    "timeout of text": (
        plain,
        parameter("timeout", string_param="1"),
        "'timeout' must be int64, got string",
        "timeout",
    ),
    "timeout below 0": (plain, parameter("timeout", int64_param=-1), "microseconds, 0 or more", "timeout"),
    "timeout of nothing": (plain, parameter("timeout"), "'timeout' must be int64, got nothing", "timeout"),
    "priority of text": (plain, parameter("priority", string_param="high"), "'priority' must be", "priority"),
    "sequence_id of bool": (plain, parameter("sequence_id", bool_param=True), "'sequence_id' must be", "sequence_id"),
    "sequence_start of int": (
        plain,
        parameter("sequence_start", int64_param=1),
        "'sequence_start' must be",
        "sequence_start",
    ),
    "final flag of text": (
        plain,
        parameter("triton_enable_empty_final_response", string_param="yes"),
        "'triton_enable_empty_final_response' must be",
        "triton_enable_empty_final_response",
    ),
}
"""A case → (a valid request, what makes it wrong, what the refusal says, the field that it names)."""
