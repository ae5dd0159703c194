"""A remembered layout never reads a message in another way than the decoder does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire.decode import Decoder
from gateway.wire.layout import MAX_KEYS, MAX_LAYOUTS_PER_KEY, VIEWED_BYTES, Layouts
from gateway.wire.pb.inference import grpc_service_pb2 as pb
from runtime.batching.request import Request
from runtime.errors import InvalidRequest
from runtime.types import ANY, Signature, TensorSpec

SIGNATURE = Signature(
    (TensorSpec("a", "FP32", (ANY, 2)), TensorSpec("b", "FP32", (ANY, 2))),
    (TensorSpec("y", "FP32", (ANY,)), TensorSpec("z", "FP32", (ANY,))),
)
DECODER = Decoder(SIGNATURE, 8, 0)


def payload(values: list[list[float]], request_id: str = "", names: str = "ab", outputs: str = "") -> bytes:
    message = pb.ModelInferRequest(model_name="m", id=request_id)
    for name, value in zip(names, values, strict=True):
        array = np.asarray(value, "<f4").reshape(-1, 2)
        message.inputs.add(name=name, datatype="FP32", shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    for name in outputs:
        message.outputs.add(name=name)
    return message.SerializeToString()


def learned(*payloads: bytes) -> Layouts[str]:
    """As the pipeline does it."""
    layouts: Layouts[str] = Layouts()
    for data in payloads:
        message = pb.ModelInferRequest.FromString(data)
        request = DECODER.decode(message)
        request.id = message.id
        if DECODER.plain(message):
            layouts.learn(data, request, "target", math.inf)
    return layouts


def decoded(data: bytes) -> Request | None:
    """None where the decoder refuses."""
    try:
        message = pb.ModelInferRequest.FromString(data)
        request = DECODER.decode(message)
    except (DecodeError, InvalidRequest):
        return None
    request.id = message.id
    return request


def facts(request: Request | None) -> Any:
    if request is None:
        return None
    return request.inputs, request.shapes, request.outputs, request.rows, request.key, request.id


ROW_VALUES = {rows: st.lists(st.floats(width=32), min_size=2 * rows, max_size=2 * rows) for rows in (1, 2)}
PAYLOADS = st.builds(
    payload,
    st.integers(1, 2).flatmap(lambda rows: st.lists(ROW_VALUES[rows], min_size=2, max_size=2)),
    st.text(max_size=4),
    st.sampled_from(["ab", "ba"]),
    st.sampled_from(["", "y", "zy"]),
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(PAYLOADS, min_size=1, max_size=4), PAYLOADS)
def test_what_is_found_is_what_the_decoder_would_have_made(known: list[bytes], data: bytes) -> None:
    found = learned(*known).find(data)
    if found is not None:
        assert facts(found[1]) == facts(decoded(data))


@settings(max_examples=500)
@given(PAYLOADS, st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_bytes_changed_anywhere_are_read_as_the_decoder_reads_them_or_not_found(
    data: bytes, changes: list[tuple[int, int]]
) -> None:
    changed = bytearray(data)
    for position, value in changes:
        changed[position % len(data)] = value
    found = learned(data).find(bytes(changed))
    if found is not None:
        assert facts(found[1]) == facts(decoded(bytes(changed)))


def test_other_values_and_another_id_of_the_same_length_are_found() -> None:
    layouts = learned(payload([[1, 2], [3, 4]], "id-1"))
    other = payload([[5, 6], [7, 8]], "id-2")
    found = layouts.find(other)
    assert found is not None
    assert (found[0].target, found[1].id) == ("target", "id-2")
    assert facts(found[1]) == facts(decoded(other))


def test_inputs_in_another_order_are_not_learned_though_their_first_values_are_equal() -> None:
    """Else the second request would have its inputs exchanged."""
    assert learned(payload([[0, 0], [0, 0]], names="ba")).find(payload([[1, 1], [2, 2]], names="ba")) is None


@pytest.mark.parametrize(
    "other",
    [
        payload([[1, 2], [3, 4]], "id-12"),
        payload([[1, 2], [3, 4]], "id-1", outputs="y"),
        payload([[1, 2], [3, 4]], ""),
        payload([[1, 2, 3, 4], [3, 4, 5, 6]], "id-1"),
        payload([[1, 2], [3, 4]], "id-1", names="ba"),
        payload([[1, 2], [3, 4]], "id-1").replace(b"FP32", b"FP64", 1),
        payload([[1, 2], [3, 4]], "id-1").replace(b"id-1", b"id-\xff"),
        payload([[1, 2], [3, 4]], "id-1")[:-1],
        b"",
    ],
)
def test_anything_else_goes_to_the_decoder(other: bytes) -> None:
    assert learned(payload([[1, 2], [3, 4]], "id-1")).find(other) is None


def test_an_id_that_is_given_twice_is_not_learned() -> None:
    data = payload([[1, 2], [3, 4]], "id-1") + pb.ModelInferRequest(id="id-2").SerializeToString()
    assert learned(data).find(data) is None


def test_what_is_remembered_is_bounded() -> None:
    layouts: Layouts[str] = Layouts()
    request = Request([b"12345678", b"12345678"], [(1, 2), (1, 2)], (0, 1), 1, "k")
    for length in range(MAX_KEYS + 50):
        for outputs in ("y", "z", "yz", "zy", "yy", "zz"):
            message = pb.ModelInferRequest(model_name="m" * (1 + length), raw_input_contents=[b"12345678"] * 2)
            for name in outputs:
                message.outputs.add(name=name)
            layouts.learn(message.SerializeToString(), request, "t", math.inf)
    kept = layouts._layouts
    assert len(kept) <= MAX_KEYS
    assert max(map(len, kept.values())) <= MAX_LAYOUTS_PER_KEY


def test_great_values_are_read_where_they_were_received() -> None:
    rows = VIEWED_BYTES // 8  # half of it an input
    first, second = (np.full((2, rows, 2), value).tolist() for value in (1.0, 2.0))
    layouts = learned(payload(first))
    data = payload(second)
    found = layouts.find(data)
    assert found is not None
    assert facts(found[1]) == facts(decoded(data))
    assert [value.obj is data for value in found[1].inputs if isinstance(value, memoryview)] == [True, True]
