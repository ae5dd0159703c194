"""Requests that are wrong: the code, what was expected and what came, details for machines, and no harm done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from dataplane_client import TIMEOUT_SECONDS, Client, channel_to, make_request, refused
from support.gateway import Gateway

from gateway.wire.pb.inference import grpc_service_pb2 as pb

INT64_MAX = 2**63 - 1
X = np.array([[1, 2, 3, 4]], dtype=np.float32)
WORDS = np.array(["a", "b"], dtype=object)


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    """Every test ends with a request that is well."""
    with channel_to(gateway.grpc) as channel:
        client = Client(channel)
        yield client
        np.testing.assert_array_equal(client.infer(make_request("add_const", {"x": X}))["y"], X + 1)


def plain() -> pb.ModelInferRequest:
    return make_request("add_const", {"x": X})


def words() -> pb.ModelInferRequest:
    return make_request("strings", {"a": WORDS, "b": WORDS})


def changed(make: Callable[[], pb.ModelInferRequest], change: Callable[[Any], object]) -> pb.ModelInferRequest:
    request = make()
    change(request)
    return request


def shaped(*shape: int, raw: bytes | None = None) -> Callable[[Any], object]:
    def change(request: Any) -> None:
        request.inputs[0].shape[:] = shape
        if raw is not None:
            request.raw_input_contents[0] = raw

    return change


def drop_contents(request: Any) -> None:
    del request.raw_input_contents[:]


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


WRONG: dict[str, tuple[Callable[[], Any], Callable[[Any], object], str, str]] = {
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
    "empty beside a huge axis": (lambda: make_request("reduce_t", {"x": X}), shaped(2**40, 0, raw=b""), "is empty", "x"),
    "empty with dims that overflow": (
        lambda: make_request("matmul", {"x": X, "y": X.T}),
        lambda r: (shaped(0, 2**62)(r), r.raw_input_contents.__setitem__(0, b"")),
        f"multiply to 1048576 at most, got [0,{2**62}]",
        "x",
    ),
    "rank of a thousand where any goes": (
        lambda: make_request("unknown_rank", {"x": X}), shaped(*[1] * 1000), "expected 32 axes of 0 or more at most", "x"
    ),
    "largest dim": (plain, shaped(INT64_MAX, 4), "bytes, got 16", "x"),
    "a row too many": (plain, shaped(2, 4), "FP32 [2,4] needs 32 bytes, got 16", "x"),
    "a byte too few": (plain, shaped(1, 4, raw=X.tobytes()[:-1]), "needs 16 bytes, got 15", "x"),
    "a byte too many": (plain, shaped(1, 4, raw=X.tobytes() + b"\0"), "needs 16 bytes, got 17", "x"),
    "datatype": (plain, lambda r: setattr(r.inputs[0], "datatype", "INT64"), "expected FP32, got 'INT64'", "x"),
    "datatype nonsense": (plain, lambda r: setattr(r.inputs[0], "datatype", "float32"), "no datatype: the protocol", "x"),
    "datatype empty": (plain, lambda r: setattr(r.inputs[0], "datatype", ""), "expected FP32, got ''", "x"),
    "datatype endless": (plain, lambda r: setattr(r.inputs[0], "datatype", "F" * 10**6), "expected FP32, got 'F", "x"),
    "unknown input": (plain, lambda r: setattr(r.inputs[0], "name", "z"), "unknown: 'z'; missing: 'x'", "inputs"),
    "no inputs": (plain, lambda r: (drop_contents(r), r.ClearField("inputs")), "expected 1 inputs ('x'), got 0", "inputs"),
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
    "string count": (words, shaped(3, raw=b"\4\0\0\0abcd\4\0\0\0abcd"), "end at byte 16, before the length of element 2", "a"),
    "string length": (words, shaped(1, raw=b"\xff\xff\xff\xffa"), "element 0 claims 4294967295 bytes, 1 are left", "a"),
    "string rest": (words, shaped(1, raw=b"\1\0\0\0ab"), "1 bytes are left after its 1 elements", "a"),
    "strings without lengths": (words, shaped(2, raw=b"abcdefg"), "need at least 8 bytes of lengths, got 7", "a"),
    "string dims that overflow": (words, shaped(INT64_MAX), "bytes of lengths, got 10 bytes", "a"),
    "unknown output": (plain, lambda r: r.outputs.add(name="z"), "no output 'z'; it has 'y'", "z"),
    "output twice": (plain, lambda r: (r.outputs.add(name="y"), r.outputs.add(name="y")), "'y' is asked for twice", "y"),
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
    "reserved parameter": (plain, parameter("triton_what", bool_param=True), "'triton_what' is reserved", "triton_what"),
    "timeout of text": (plain, parameter("timeout", string_param="1"), "'timeout' must be int64, got string", "timeout"),
    "timeout below 0": (plain, parameter("timeout", int64_param=-1), "microseconds, 0 or more", "timeout"),
    "timeout of nothing": (plain, parameter("timeout"), "'timeout' must be int64, got nothing", "timeout"),
    "priority of text": (plain, parameter("priority", string_param="high"), "'priority' must be", "priority"),
    "sequence_id of bool": (plain, parameter("sequence_id", bool_param=True), "'sequence_id' must be", "sequence_id"),
    "sequence_start of int": (plain, parameter("sequence_start", int64_param=1), "'sequence_start' must be", "sequence_start"),
    "final flag of text": (
        plain,
        parameter("triton_enable_empty_final_response", string_param="yes"),
        "'triton_enable_empty_final_response' must be",
        "triton_enable_empty_final_response",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_named_with_what_was_expected(client: Client, case: str) -> None:
    make, change, says, field = WRONG[case]
    refusal = client.refused(changed(make, change))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert says in refusal.message
    assert len(refusal.message) < 1100
    assert refusal.reason == "INVALID_REQUEST"
    assert refusal.details["ErrorInfo"].domain == "driftgate"
    assert refusal.fields == [field]
    assert refusal.details["BadRequest"].field_violations[0].description == refusal.message


def test_a_batch_above_the_configured_maximum_is_refused_and_one_at_it_is_not(client: Client) -> None:
    at = client.infer(make_request("narrow", {"x": np.zeros((4, 4), dtype=np.float32)}))["y"]
    assert at.shape == (4, 4)
    refusal = client.refused(make_request("narrow", {"x": np.zeros((5, 4), dtype=np.float32)}))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "at most 4 rows" in refusal.message
    assert "got 5" in refusal.message
    assert refusal.fields == ["x"]


def test_axes_of_one_name_that_differ_are_the_callers_fault(client: Client) -> None:
    """equal_axes is x[A,B] - y[A,B]; matmul is x[A,B] · y[B,C]."""
    for model, x, y, says in (
        ("equal_axes", (2, 3), (2, 4), "expected 3 at axis 1 ('B'), as in input 'x', got 4"),
        ("matmul", (2, 3), (4, 2), "expected 3 at axis 0 ('B'), as in input 'x', got 4"),
    ):
        feeds = {"x": np.zeros(x, dtype=np.float32), "y": np.zeros(y, dtype=np.float32)}
        refusal = client.refused(make_request(model, feeds))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert says in refusal.message
        assert refusal.fields == ["y"]


@pytest.mark.parametrize(
    ("model", "version", "says"),
    [
        ("nowhere", "", "no model 'nowhere'; known models: "),
        ("", "", "no model ''"),
        ("日本", "", "no model '日本'"),
        ("ADD_CONST", "", "no model 'ADD_CONST'"),
        ("../../etc/passwd", "", "no model"),
        ("x" * 100_000, "", "no model 'xxx"),
        ("🚀" * 10_000, "", "no model '🚀"),
        ("\U000e0001" * 10_000, "", "no model "),
        ("versions", "é" * 10_000, "no version or label 'é"),
        ("versions", "3", "no version or label '3'; versions: 1, 2, 10; labels: canary, stable"),
        ("versions", "01", "'01'"),
        ("versions", "-1", "'-1'"),
        ("versions", "9" * 400, "no version or label"),
        ("versions", "²", "no version or label '²'"),
        ("versions", "Stable", "labels: canary, stable"),
        ("versions", " 1", "' 1'"),
    ],
)
def test_an_unknown_model_or_version_is_not_found_and_what_exists_is_named(
    client: Client, model: str, version: str, says: str
) -> None:
    refusal = client.refused(make_request(model, {"x": X}, version=version))
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert says in refusal.message
    assert len(refusal.message) < 1100
    assert refusal.reason == "NOT_FOUND"
    metadata = refused(
        lambda: client.stub.ModelMetadata(pb.ModelMetadataRequest(name=model, version=version), timeout=TIMEOUT_SECONDS)
    )
    assert metadata.code is grpc.StatusCode.NOT_FOUND


def test_a_model_that_is_known_and_not_ready_is_unavailable_with_its_reason(client: Client) -> None:
    for version in ("", "1"):
        refusal = client.refused(make_request("broken", {"x": X}, version=version))
        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert "model 'broken' version 1 is not ready: " in refusal.message
        assert "truncated" in refusal.message
        assert refusal.reason == "NOT_READY"


def test_names_of_any_length_leave_the_message_short_enough_to_arrive(client: Client) -> None:
    """A client takes 8 KiB of trailing metadata, in which the message comes three times."""
    request = pb.ModelInferRequest(model_name="strings")
    for index in range(20):
        request.inputs.add(name=chr(0xE0001 + index) * 1000, datatype="BYTES", shape=[1])
        request.raw_input_contents.append(b"\0\0\0\0")
    refusal = client.refused(request)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected 2 inputs ('a', 'b'), got 20" in refusal.message


def test_a_model_that_fails_says_so_and_no_more(gateway: Gateway, client: Client) -> None:
    refusal = client.refused(make_request("gather", {"ids": np.array([99], dtype=np.int64)}))
    assert refusal.code is grpc.StatusCode.INTERNAL
    assert refusal.message.startswith("model failed: gather/1, reference ")
    for inner in ("Traceback", "/", ".py", ".cc", "onnxruntime", "indices"):
        assert inner not in refusal.message.replace("gather/1", "")
    assert refusal.reason == "MODEL_FAILED"
    reference = refusal.message.rsplit(" ", 1)[1]
    (line,) = [line for line in gateway.log.splitlines() if reference in line]
    assert "indices" in line, "what failed is in the log, under the reference that the client has"


def test_a_request_that_fails_leaves_those_beside_it_alone(client: Client) -> None:
    ids = [np.array([99 if seed % 5 == 0 else seed % 8, seed % 8], dtype=np.int64) for seed in range(60)]
    good = [client.infer(make_request("gather", {"ids": np.array([i], dtype=np.int64)}))["y"] for i in range(8)]
    futures = [
        client.stub.ModelInfer.future(make_request("gather", {"ids": one}, id=str(seed)), timeout=TIMEOUT_SECONDS)
        for seed, one in enumerate(ids)
    ]
    for seed, future in enumerate(futures):
        if seed % 5 == 0:
            assert refused(future.result).code is grpc.StatusCode.INTERNAL
            continue
        response = future.result()
        assert response.id == str(seed)
        got = np.frombuffer(response.raw_output_contents[0], dtype=np.float32).reshape(2, 4)
        np.testing.assert_array_equal(got, np.concatenate([good[seed % 8]] * 2))
