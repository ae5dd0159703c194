"""Rows are joined in the order of the requests, and answers that do not have one entry per row are noticed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.runtime import request_of
from zoo import draw

from runtime.batching.request import Request
from runtime.batching.rows import gather, unmergeable
from runtime.onnx.dtypes import BY_NAME, DATATYPES
from runtime.types import ANY, Signature, TensorSpec


def signature(*datatypes: str) -> Signature:
    specs = tuple(TensorSpec(f"x{i}", datatype, (ANY, 3)) for i, datatype in enumerate(datatypes))
    return Signature(specs, (TensorSpec("y", "FP32", (ANY,)),))


@given(
    st.lists(st.sampled_from([d.name for d in DATATYPES]), min_size=1, max_size=3),
    st.lists(st.integers(0, 4), min_size=1, max_size=5),
    st.integers(0, 2**32 - 1),
)
def test_a_run_holds_the_rows_of_its_requests_one_after_another(
    datatypes: list[str], row_counts: list[int], seed: int
) -> None:
    rng, made = np.random.default_rng(seed), signature(*datatypes)
    feeds = [
        {spec.name: draw(rng, BY_NAME[spec.datatype].numpy, (rows, 3)) for spec in made.inputs} for rows in row_counts
    ]
    joined = gather([request_of(made, feed) for feed in feeds], made)
    for spec in made.inputs:
        expected = np.concatenate([feed[spec.name] for feed in feeds])
        assert (joined[spec.name].dtype, joined[spec.name].shape) == (BY_NAME[spec.datatype].numpy, expected.shape)
        np.testing.assert_array_equal(joined[spec.name], expected)


def test_a_single_request_is_not_copied() -> None:
    made = signature("FP32")
    request = request_of(made, {"x0": np.ones((2, 3), np.float32)})
    array = gather([request], made)["x0"]
    assert not array.flags.owndata
    (sent,) = request.inputs
    assert isinstance(sent, bytes)
    assert np.shares_memory(array, np.frombuffer(sent, np.float32))


def test_scalars_and_shapes_without_rows_are_gathered_as_they_are() -> None:
    made = Signature((TensorSpec("x", "INT64", ()), TensorSpec("s", "BYTES", (1, 2))), ())
    feeds = {"x": np.array(7, np.int64), "s": np.array([["a", "b"]], object)}
    got = gather([request_of(made, feeds, merges=False)], made)
    assert (got["x"].shape, int(got["x"]), got["s"].tolist()) == ((), 7, [["a", "b"]])


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((3, 2), ""),
        ((3,), ""),
        ((2, 3), "3 rows went in and an output of shape [2, 3] came out"),
        ((), "3 rows went in and an output of shape [] came out"),
    ],
)
def test_an_answer_is_cut_by_rows_only_if_it_has_one_entry_for_each(shape: tuple[int, ...], says: str) -> None:
    requests = [Request([], [], (), rows, "k") for rows in (1, 2)]
    assert unmergeable(requests, [np.zeros((3, 1)), np.zeros(shape)]) == says
