"""Requests are taken as the protocol has them, and refused with what was expected, what came, and where."""
# ruff: noqa: E501  (the table of wrong requests has one a line)

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from zoo import draw

from gateway.wire.decode import Decoder, check_parameters, decode_strings
from gateway.wire.pb.inference import grpc_service_pb2 as pb
from runtime.batching.rows import gather
from runtime.errors import InvalidRequest
from runtime.onnx.dtypes import BY_NAME, DATATYPES
from runtime.types import ANY, Signature, TensorSpec

Array = NDArray[Any]
NAMES = [datatype.name for datatype in DATATYPES]
SIGNATURE = Signature(
    (TensorSpec("x", "FP32", (ANY, 3)), TensorSpec("s", "BYTES", (ANY,)), TensorSpec("n", "INT8", (ANY, 1))),
    (TensorSpec("y", "FP32", (ANY,)), TensorSpec("z", "INT64", (ANY,))),
)


def raw(array: Array) -> bytes:
    if array.dtype == object:
        return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in array.ravel())
    return array.tobytes()


def message(arrays: dict[str, Array], datatypes: dict[str, str], *, typed: bool = False) -> Any:
    made = pb.ModelInferRequest(model_name="m")
    for name, array in arrays.items():
        tensor = made.inputs.add(name=name, datatype=datatypes[name], shape=array.shape)
        if typed:
            values = array.ravel().tolist()
            field = BY_NAME[datatypes[name]].contents
            getattr(tensor.contents, field).extend([v.encode() for v in values] if array.dtype == object else values)
        else:
            made.raw_input_contents.append(raw(array))
    return made


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.lists(st.integers(0, 3), max_size=2)), min_size=1, max_size=4),
    st.integers(0, 4),
    st.integers(0, 2**32),
    st.booleans(),
    st.data(),
)
def test_valid_requests_become_the_arrays_that_were_sent(
    inputs: list[tuple[str, list[int]]], rows: int, seed: int, typed: bool, data: st.DataObject
) -> None:
    """Raw or typed, the inputs in any order, batched or not."""
    if typed:
        inputs = [(datatype if BY_NAME[datatype].contents else "FP64", tail) for datatype, tail in inputs]
    rng = np.random.default_rng(seed)
    specs = tuple(TensorSpec(f"x{i}", datatype, (ANY, *tail)) for i, (datatype, tail) in enumerate(inputs))
    made = Signature(specs, (TensorSpec("y", "FP32", (ANY,)),))
    sent = {spec.name: draw(rng, BY_NAME[spec.datatype].numpy, (rows, *spec.shape[1:])) for spec in specs}
    order = data.draw(st.permutations(list(sent)))
    datatypes = {spec.name: spec.datatype for spec in specs}
    merges = data.draw(st.booleans(), label="merges")
    decoder = Decoder(made, 8 if merges else 0, 0)
    wire = message({name: sent[name] for name in order}, datatypes, typed=typed).SerializeToString()
    request = decoder.decode(pb.ModelInferRequest.FromString(wire))
    assert (request.rows, request.outputs) == (rows if merges else 1, (0,))
    assert request.key == (((0,), *(spec.shape[1:] for spec in specs)) if merges else None)
    got = gather([request], made)
    for name, array in sent.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(got[name], array)


def good() -> Any:
    arrays = {
        "x": np.ones((2, 3), np.float32), "s": np.array(["a", "bé"], object), "n": np.array([[1], [2]], np.int8)
    }  # fmt: skip
    return message(arrays, {spec.name: spec.datatype for spec in SIGNATURE.inputs})


def typed() -> Any:
    made = good()
    del made.raw_input_contents[:]
    made.inputs[0].contents.fp32_contents.extend([0.0] * 6)
    made.inputs[1].contents.bytes_contents.extend([b"a", b"b"])
    made.inputs[2].contents.int_contents.extend([1, 2])
    return made


def changed(make: Callable[[], Any], change: Callable[[Any], object]) -> Any:
    made = make()
    change(made)
    return made


def _shape(index: int, *shape: int) -> Callable[[Any], object]:
    return lambda m: (m.inputs[index].shape.__delitem__(slice(None)), m.inputs[index].shape.extend(shape))


def _set(index: int, **fields: Any) -> Callable[[Any], object]:
    return lambda m: m.inputs[index].MergeFrom(pb.ModelInferRequest.InferInputTensor(**fields))


def _raw(index: int, data: bytes) -> Callable[[Any], object]:
    return lambda m: m.raw_input_contents.__setitem__(index, data)


def _output(*names: str) -> Callable[[Any], object]:
    return lambda m: [m.outputs.add(name=name) for name in names]


BAD: dict[str, tuple[Callable[[], Any], Callable[[Any], object], str, str]] = {
    "an input is missing": (good, lambda m: m.inputs.pop(), "inputs", "expected 3 inputs ('x', 's', 'n'), got 2; missing: 'n'"),
    "no inputs": (good, lambda m: m.ClearField("inputs"), "inputs", "expected 3 inputs ('x', 's', 'n'), got 0; missing: 'x', 's', 'n'"),
    "an unknown input": (good, _set(2, name="q"), "inputs", "expected 3 inputs ('x', 's', 'n'), got 3; unknown: 'q'; missing: 'n'"),
    "twice": (good, _set(2, name="x", datatype="FP32"), "inputs[2]", "input 'x' is given twice"),
    "raw count": (good, lambda m: m.raw_input_contents.pop(), "raw_input_contents", "expected 3 entries in raw_input_contents, one per input, got 2"),
    "datatype": (good, _set(0, datatype="FP64"), "x", "input 'x': expected FP32, got 'FP64'"),
    "no datatype": (good, _set(0, datatype="float"), "x", "input 'x': expected FP32, got 'float', which is no datatype: the protocol has BOOL, INT8,"),
    "shape": (good, _shape(0, 1, 4), "x", "input 'x': expected [-1,3], got [1,4]"),
    "rank": (good, _shape(0, 6), "x", "input 'x': expected [-1,3], got [6]"),
    "a negative axis": (good, _shape(0, -1, 3), "x", "input 'x': expected [-1,3], got [-1,3]"),
    "a million axes": (good, _shape(0, *[1] * 1_000_000), "x", "input 'x': expected [-1,3], got [1,1,1,"),
    "a huge claim": (good, _shape(0, 2**61, 3), "x", f"input 'x': FP32 [{2**61},3] needs {12 * 2**61} bytes, got 24"),
    "a huge claim of strings": (good, _shape(1, 2**31), "s", f"input 's': {2**31} elements need at least {2**33} bytes of lengths, got 12 bytes"),
    "byte size": (good, _raw(0, b"1234"), "x", "input 'x': FP32 [2,3] needs 24 bytes, got 4"),
    "both contents": (good, lambda m: m.inputs[0].contents.SetInParent(), "x", "input 'x' has contents although raw_input_contents is used: send one of the two"),
    "other rows": (good, lambda m: (_shape(2, 1, 1)(m), _raw(2, b"1")(m)), "n", "all inputs must hold the same number of rows: 'x' has 2, 'n' has 1"),
    "string length": (good, _raw(1, b"\1\0\0\0a\xff\xff\xff\x7f"), "s", "input 's': element 1 claims 2147483647 bytes, 0 are left"),
    "string end": (good, _raw(1, b"\5\0\0\0abcde"), "s", "input 's': the contents end at byte 9, before the length of element 1 of 2"),
    "string rest": (good, _raw(1, b"\0\0\0\0\0\0\0\0rest"), "s", "input 's': 4 bytes are left after its 2 elements"),
    "not UTF-8": (good, _raw(1, b"\2\0\0\0a\xff\0\0\0\0"), "s", "input 's': element 0 is not UTF-8 (byte 1), which ONNX strings are"),
    "tensor parameter": (good, lambda m: m.inputs[0].parameters["shared_memory_region"].SetInParent(), "x", "input 'x': parameter 'shared_memory_region' is not supported here"),
    "unknown output": (good, _output("y", "w"), "w", "the model has no output 'w'; it has 'y', 'z'"),
    "output twice": (good, _output("z", "z"), "z", "output 'z' is asked for twice"),
    "output parameter": (good, lambda m: m.outputs.add(name="y").parameters["classification"].SetInParent(), "y", "output 'y': parameter 'classification' is not supported here"),
    "typed count": (typed, lambda m: m.inputs[0].contents.fp32_contents.pop(), "x", "input 'x': shape [2,3] needs 6 values, got 5"),
    "typed field": (typed, lambda m: m.inputs[0].contents.int_contents.append(1), "x", "input 'x' is FP32: expected its values in fp32_contents, got int_contents"),
    "typed range": (typed, lambda m: m.inputs[2].contents.int_contents.__setitem__(1, 300), "n", "input 'n' is INT8: expected values in [-128, 127], got 300"),
    "typed range below": (typed, lambda m: m.inputs[2].contents.int_contents.__setitem__(0, -129), "n", "input 'n' is INT8: expected values in [-128, 127], got -129"),
    "typed not UTF-8": (typed, lambda m: m.inputs[1].contents.bytes_contents.__setitem__(0, b"\xfe"), "s", "input 's': element 0 is not UTF-8 (byte 0)"),
    "typed missing": (typed, lambda m: m.inputs[0].ClearField("contents"), "x", "input 'x': shape [2,3] needs 6 values, got 0"),
}  # fmt: skip  # a table


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_request_is_refused_with_the_field_and_the_reason(case: str) -> None:
    make, change, field, says = BAD[case]
    with pytest.raises(InvalidRequest) as caught:
        Decoder(SIGNATURE, 8, 0).decode(changed(make, change))
    assert caught.value.field == field
    assert caught.value.message.startswith(says)
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("make", [good, typed])
def test_the_request_that_the_table_breaks_is_good(make: Callable[[], Any]) -> None:
    request = Decoder(SIGNATURE, 8, 0).decode(make())
    assert (request.rows, request.shapes, request.outputs) == (2, [(2, 3), (2,), (2, 1)], (0, 1))


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_what_travels_raw_only_is_refused_typed(datatype: str) -> None:
    made = Signature((TensorSpec("x", datatype, (1,)),), ())
    request = pb.ModelInferRequest()
    request.inputs.add(name="x", datatype=datatype, shape=[1]).contents.fp32_contents.append(1.0)
    with pytest.raises(InvalidRequest, match="travels in raw_input_contents only"):
        Decoder(made, 0, 0).decode(request)


def test_a_thousand_wrong_names_are_not_all_repeated() -> None:
    request = pb.ModelInferRequest()
    for index in range(1000):
        request.inputs.add(name=f"{index}" * 300)
    with pytest.raises(InvalidRequest) as caught:
        Decoder(SIGNATURE, 8, 0).decode(request)
    assert len(caught.value.message) < 3000
    assert "got 1000" in caught.value.message


def test_a_request_larger_than_the_largest_batch_is_refused_where_one_is_configured() -> None:
    with pytest.raises(InvalidRequest, match=r"expected at most 1 rows .* got 2: split the request"):
        Decoder(SIGNATURE, 1, 1).decode(good())
    assert Decoder(SIGNATURE, 1, 0).decode(good()).rows == 2


def test_outputs_are_chosen_in_the_order_asked_for() -> None:
    assert Decoder(SIGNATURE, 8, 0).decode(changed(good, _output("z", "y"))).outputs == (1, 0)


def test_hints_of_http_clients_mean_nothing() -> None:
    request = good()
    request.inputs[0].parameters["binary_data_size"].int64_param = 24
    assert Decoder(SIGNATURE, 8, 0).decode(request).rows == 2


def test_a_scalar_has_one_element() -> None:
    made = Signature((TensorSpec("x", "INT64", ()),), ())
    request = message({"x": np.array(-5, np.int64)}, {"x": "INT64"})
    assert int(gather([Decoder(made, 0, 0).decode(request)], made)["x"]) == -5


@given(st.binary(max_size=60), st.integers(0, 12))
def test_any_bytes_are_strings_or_refused(data: bytes, elements: int) -> None:
    try:
        strings = decode_strings("s", data, elements)
    except InvalidRequest:
        return
    assert b"".join(struct.pack("<I", len(s.encode())) + s.encode() for s in strings) == data
    assert len(strings) == elements


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("timeout", {"int64_param": 2_500_000}, 2.5),
        ("timeout", {"int64_param": 0}, math.inf),
        ("priority", {"uint64_param": 1}, math.inf),
        ("sequence_id", {"string_param": "s"}, math.inf),
        ("triton_enable_empty_final_response", {"bool_param": True}, math.inf),
        ("anything", {"double_param": 1.0}, math.inf),
    ],
)
def test_a_timeout_is_read_and_other_known_parameters_pass(name: str, value: dict[str, Any], expected: float) -> None:
    request = pb.ModelInferRequest()
    request.parameters[name].MergeFrom(pb.InferParameter(**value))
    assert check_parameters(request.parameters) == expected


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("timeout", {"int64_param": -1}, "parameter 'timeout' must be microseconds, 0 or more, got -1"),
        ("timeout", {"string_param": "1"}, "parameter 'timeout' must be int64, got string"),
        ("timeout", {}, "parameter 'timeout' must be int64, got nothing"),
        ("priority", {"string_param": "1"}, "parameter 'priority' must be int64 or uint64, got string"),
        ("triton_new_thing", {"bool_param": True}, "parameter 'triton_new_thing' is reserved and not known here"),
    ],
)
def test_parameters_that_would_be_misread_are_refused(name: str, value: dict[str, Any], says: str) -> None:
    request = pb.ModelInferRequest()
    request.parameters[name].SetInParent()
    request.parameters[name].MergeFrom(pb.InferParameter(**value))
    with pytest.raises(InvalidRequest, match=says) as caught:
        check_parameters(request.parameters)
    assert caught.value.field == name
