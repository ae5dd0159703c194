"""Responses written by hand are, byte for meaning, those that the generated code would have written."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from google.protobuf.internal.encoder import _VarintBytes  # type: ignore[attr-defined]
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from zoo import draw

from gateway.wire import encode
from gateway.wire.encode import Encoder, encode_strings, stream_answer, stream_error, varint
from gateway.wire.pb.inference import grpc_service_pb2 as pb
from runtime.batching.request import Request
from runtime.onnx.dtypes import BY_NAME, DATATYPES
from runtime.types import ANY, Signature, TensorSpec

Array = NDArray[Any]
NAMES = [datatype.name for datatype in DATATYPES]
OUTPUTS = st.lists(st.tuples(st.sampled_from(NAMES), st.lists(st.integers(0, 3), max_size=3)), min_size=1, max_size=4)
IDS = st.text(max_size=200)


def signature(outputs: list[tuple[str, list[int]]]) -> Signature:
    specs = [TensorSpec(f"y{i}" * (i + 1), datatype, (ANY, *tail)) for i, (datatype, tail) in enumerate(outputs)]
    return Signature((), tuple(specs))


def request(rows: int, outputs: tuple[int, ...], request_id: str) -> Request:
    made = Request([], [], outputs, rows, "k")
    made.id = request_id
    return made


def raw(array: Array) -> bytes:
    """The protocol's raw contents, from its text."""
    if array.dtype == object:
        elements = [text.encode() for text in array.ravel()]
        return b"".join(struct.pack("<I", len(element)) + element for element in elements)
    return array.astype(array.dtype.newbyteorder("<")).tobytes("C")


def plain(model: str, version: int, request_id: str, made: Signature, chosen: list[tuple[int, Array]]) -> Any:
    """The response as a build from protobuf's classes."""
    response = pb.ModelInferResponse(model_name=model, model_version=str(version), id=request_id)
    for index, array in chosen:
        spec = made.outputs[index]
        response.outputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
        response.raw_output_contents.append(raw(array))
    return response


@settings(max_examples=150)
@given(OUTPUTS, st.lists(st.tuples(st.integers(0, 5), IDS), min_size=1, max_size=5), st.integers(0, 2**32), st.data())
def test_each_request_gets_its_rows_of_each_output_in_the_order_asked_for(
    outputs: list[tuple[str, list[int]]], splits: list[tuple[int, str]], seed: int, data: st.DataObject
) -> None:
    rng, made = np.random.default_rng(seed), signature(outputs)
    chosen = tuple(data.draw(st.permutations(range(len(outputs)))))[: data.draw(st.integers(1, len(outputs)))]
    total = sum(rows for rows, _ in splits)
    whole = [draw(rng, BY_NAME[outputs[i][0]].numpy, (total, *outputs[i][1])) for i in chosen]
    if data.draw(st.booleans(), label="in Fortran order"):
        whole = [np.asfortranarray(array) for array in whole]
    encoder = Encoder("a model", 12, made)
    requests = [request(rows, chosen, request_id) for rows, request_id in splits]
    start = 0
    for one, response in zip(requests, encoder.encode(requests, whole), strict=True):
        rows = [(i, array[start : start + one.rows]) for i, array in zip(chosen, whole, strict=True)]
        assert pb.ModelInferResponse.FromString(response) == plain("a model", 12, one.id, made, rows)
        start += one.rows


@given(st.sampled_from(NAMES), st.lists(st.integers(0, 3), max_size=4), IDS, st.integers(0, 2**32))
def test_a_request_alone_gets_the_whole_answer_of_any_shape(
    datatype: str, shape: list[int], request_id: str, seed: int
) -> None:
    made = Signature((), (TensorSpec("y", datatype, tuple(shape)),))
    array = draw(np.random.default_rng(seed), BY_NAME[datatype].numpy, tuple(shape))
    (response,) = Encoder("m", 1, made).encode([request(1, (0,), request_id)], [array])
    assert pb.ModelInferResponse.FromString(response) == plain("m", 1, request_id, made, [(0, array)])


def test_the_cache_of_headers_is_bounded_and_never_answers_with_another_shape() -> None:
    made = Signature((), (TensorSpec("y", "UINT8", (ANY, ANY)),))
    encoder = Encoder("m", 1, made)
    for width in [*range(encode.MAX_CACHED_HEADERS + 50), 3, 7]:
        array = np.zeros((1, width), np.uint8)
        (response,) = encoder.encode([request(1, (0,), "")], [array])
        parsed = pb.ModelInferResponse.FromString(response)
        assert (list(parsed.outputs[0].shape), parsed.raw_output_contents[0]) == ([1, width], bytes(width))
        assert len(encoder._headers) <= encode.MAX_CACHED_HEADERS


@given(st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1)))
def test_a_varint_is_protobufs_own(value: int) -> None:
    assert varint(value) == _VarintBytes(value)


@given(st.lists(st.one_of(st.text(max_size=300), st.binary(max_size=300)), max_size=20))
def test_strings_carry_their_length_in_bytes(elements: list[str | bytes]) -> None:
    data = encode_strings(elements)
    read: list[bytes] = []
    while data:
        (length,) = struct.unpack_from("<I", data)
        read.append(data[4 : 4 + length])
        data = data[4 + length :]
    assert read == [element.encode() if isinstance(element, str) else element for element in elements]


@given(st.booleans(), IDS)
def test_a_streams_answer_carries_the_response_and_the_final_flag_if_asked(final: bool, request_id: str) -> None:
    response = pb.ModelInferResponse(model_name="m", id=request_id, raw_output_contents=[b"1", b"", b"22"])
    parsed = pb.ModelStreamInferResponse.FromString(stream_answer(response.SerializeToString(), final=final))
    if final:
        response.parameters["triton_final_response"].bool_param = True
    assert parsed == pb.ModelStreamInferResponse(infer_response=response)


@given(st.text(max_size=300), IDS, st.text(max_size=20))
def test_a_streams_error_names_the_request(message: str, request_id: str, model: str) -> None:
    parsed = pb.ModelStreamInferResponse.FromString(stream_error(message, request_id, model))
    inside = pb.ModelInferResponse(model_name=model, id=request_id)
    assert parsed == pb.ModelStreamInferResponse(error_message=message, infer_response=inside)
