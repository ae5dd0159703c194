"""A block counts every value of every row once, whatever the dtype, and says what is no number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtime.sketch.block import Block, merged
from runtime.sketch.distinct import DistinctCount
from runtime.sketch.errors import BadValues, Malformed, NotMergeable
from runtime.sketch.exponential import ExponentialHistogram
from runtime.sketch.layout import HEADER, BlockShape
from runtime.sketch.moments import Moments

Array = npt.NDArray[Any]
DTYPES = ["e", "f", "d", "b", "h", "i", "l", "B", "H", "I", "L", "?"]


def block(values: Array, prediction: Array | None = None, missing: Array | None = None, lg_k: int = 6) -> Block:
    made = Block.create(BlockShape(values.shape[1], lg_k))
    made.observe(values, prediction, missing)
    return made


def canonical(of: Block) -> bytes:
    return of.heads.tobytes() + of.registers.tobytes() + of.buckets.tobytes()


def sample(dtype: str, rows: int, features: int) -> Array:
    rng = np.random.default_rng([ord(dtype), rows])
    if dtype in "efd":
        values = np.where(rng.random((rows, features)) < 0.2, rng.choice([0.0, -0.0, math.nan, math.inf, -math.inf]),
                          rng.normal(size=(rows, features)) * 10)  # fmt: skip
        return values.astype(dtype)
    if dtype == "?":
        return rng.random((rows, features)) < 0.3
    ends = np.iinfo(dtype)
    return rng.integers(ends.min, ends.max, (rows, features), dtype=dtype, endpoint=True)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (16, 30), (255, 2), (256, 1), (257, 3), (1000, 5)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_each_feature_is_as_if_it_had_been_counted_alone(dtype: str, shape: tuple[int, int]) -> None:
    values = sample(dtype, *shape)
    prediction = np.random.default_rng(1).normal(size=shape[0])
    made = block(values, prediction)
    assert made.rows == shape[0]
    for feature in range(shape[1]):
        column = np.ascontiguousarray(values[:, feature])
        alone = ExponentialHistogram.of(column)
        assert made.histogram(feature).heads.tobytes() == alone.heads.tobytes()
        assert made.histogram(feature).buckets.tobytes() == alone.buckets.tobytes()
        distinct = DistinctCount(6)
        distinct.observe(column)
        assert made.registers[feature].tobytes() == distinct.registers.tobytes()
        moments = Moments()
        moments.observe(column, prediction)
        found, expected = made.moments_of(feature).summary(), moments.summary()
        assert (found.count, found.pairs) == (expected.count, expected.pairs)
        assert [found.mean, found.variance, found.correlation] == pytest.approx(
            [expected.mean, expected.variance, expected.correlation], rel=1e-12, abs=1e-12, nan_ok=True
        )


@settings(max_examples=60)
@given(st.data())
def test_blocks_cut_anywhere_and_merged_in_any_order_have_the_bytes_of_the_whole(data: Any) -> None:
    values = data.draw(hnp.arrays(np.float64, (12, 3), elements=st.floats(width=64)))
    cuts = sorted(data.draw(st.lists(st.integers(0, 12), max_size=4)))
    parts = data.draw(st.permutations(np.split(values, cuts)))
    whole = merged([block(part) for part in parts])
    assert canonical(whole) == canonical(block(values))
    assert (whole.rows, whole.histogram(0).total) == (12, 12)


@pytest.mark.parametrize("dtype", ["f", "d"])
def test_a_column_of_specials_only_is_counted_and_has_no_moments(dtype: str) -> None:
    values = np.array([[math.nan], [math.inf], [-math.inf], [-math.nan]], dtype)
    made = block(values, np.array([math.nan, 1.0, math.inf, 2.0]))
    assert made.histogram(0).aside == {
        "nan": 2, "plus_infinity": 1, "minus_infinity": 1, "missing": 0, "below": 0, "above": 0,
    }  # fmt: skip
    assert made.moments_of(0).count == 0
    assert not made.registers.any()


def test_predictions_that_are_not_finite_cost_their_pairs_and_nothing_else() -> None:
    values = np.arange(600, dtype=np.float32).reshape(-1, 2)
    prediction = np.arange(300.0)
    prediction[7] = math.nan
    prediction[290] = -math.inf
    made = block(values, prediction)
    for feature in (0, 1):
        summary = made.moments_of(feature).summary()
        assert (summary.count, summary.pairs) == (300, 298)
        assert summary.correlation == pytest.approx(1.0)
        assert summary.mean == pytest.approx(values[:, feature].mean())


@pytest.mark.parametrize("mask_dtype", [np.bool_, np.uint8])
@pytest.mark.parametrize("dtype", ["f", "d", "l"])
def test_masked_values_are_missing_whatever_they_are(dtype: str, mask_dtype: Any) -> None:
    rng = np.random.default_rng(4)
    values = rng.integers(1, 100, (500, 3)).astype(dtype)
    if dtype != "l":
        values[::5] = math.nan
    hidden = rng.random(values.shape) < 0.3
    made = block(values, np.ones(500), hidden.astype(mask_dtype))
    for feature in range(3):
        histogram = made.histogram(feature)
        seen = values[~hidden[:, feature], feature]
        assert histogram.aside["missing"] == hidden[:, feature].sum()
        assert histogram.aside["nan"] == np.isnan(seen).sum()
        assert histogram.finite == made.moments_of(feature).count == np.isfinite(seen).sum()
        assert histogram.maximum == np.nanmax(seen)


@pytest.mark.parametrize("dtype", ["f", "d", "l"])
def test_sentinels_are_missing_and_what_is_out_of_range_is_counted_apart(dtype: str) -> None:
    made = Block.create(BlockShape(2, 0))
    made.set_sentinel(0, -999)
    made.set_range(0, -10, 10)
    made.observe(np.array([[-999, -999], [-10, 1], [11, 1], [10, 1], [-11, 1], [-12, 10**6]]).astype(dtype))
    histogram = made.histogram(0)
    assert histogram.aside == {
        "nan": 0, "plus_infinity": 0, "minus_infinity": 0, "missing": 1, "below": 2, "above": 1,
    }  # fmt: skip
    assert (histogram.minimum, histogram.maximum, histogram.total) == (-10, 10, 6)
    assert (made.histogram(1).minimum, made.histogram(1).maximum, made.histogram(1).aside["missing"]) == (
        -999,
        10**6,
        0,
    )
    assert made.distinct(0) is None


def test_a_float32_is_not_out_of_range_or_present_for_lack_of_digits() -> None:
    made = Block.create(BlockShape(1))
    made.set_range(0, 0.1, 0.3)
    made.set_sentinel(0, 0.2)
    made.observe(np.array([[0.1], [0.2], [0.3]], np.float32))
    assert (made.histogram(0).finite, made.histogram(0).aside["missing"]) == (2, 1)


def test_a_range_from_high_to_low_is_refused() -> None:
    with pytest.raises(ValueError, match="low <= high"):
        Block.create(BlockShape(1)).set_range(0, 2, 1)


@pytest.mark.parametrize(
    ("values", "prediction", "missing", "complaint"),
    [
        (np.zeros((2, 4)), None, None, r"shape \[rows, 3\], got \[2, 4\]"),
        (np.zeros(3), None, None, r"got \[3\]"),
        (np.zeros((3, 4)).T[:, :3], None, None, "C-contiguous"),
        (np.zeros((2, 3), ">f4"), None, None, "byte order, got >f4"),
        (np.zeros((2, 3), "U1"), None, None, "got <U1"),
        (np.zeros((2, 3)), np.zeros(3), None, "expected 2 numbers as prediction"),
        (np.zeros((2, 3)), np.array(["a", "b"]), None, "expected 2 numbers as prediction"),
        (np.zeros((2, 3)), None, np.zeros((2, 2), bool), "expected a mask of bool or uint8"),
        (np.zeros((2, 3)), None, np.zeros((2, 3)), "expected a mask of bool or uint8"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_counted(
    values: Array, prediction: Array | None, missing: Array | None, complaint: str
) -> None:
    made = Block.create(BlockShape(3))
    with pytest.raises(BadValues, match=complaint):
        made.observe(values, prediction, missing)
    assert made.rows == 0
    assert not made.heads.any()


def test_a_block_lies_in_the_memory_that_is_given_and_is_found_there() -> None:
    shape = BlockShape(2, 4)
    memory = bytearray(shape.size_bytes + 100)
    Block.create(shape, memory).observe(np.ones((3, 2)))
    found = Block.attach(memory)
    assert (found.shape, found.rows, found.histogram(1).finite) == (shape, 3, 3)
    copy = found.copy()
    found.clear()
    assert (found.rows, found.histogram(1).total, copy.rows, copy.histogram(1).total) == (0, 0, 3, 3)
    assert Block.attach(bytes(copy.memory)).histogram(0).finite == 3
    assert repr(copy) == "Block(features=2, lg_k=4, rows=3)"


def test_memory_that_holds_no_block_is_refused() -> None:
    memory = bytearray(Block.create(BlockShape(1, 4)).memory)
    for at, complaint in ((0, "got b'"), (8, "layout"), (12, "features"), (16, "lg_k"), (20, "buckets")):
        damaged = bytearray(memory)
        damaged[at] ^= 0xFF
        with pytest.raises(Malformed, match=complaint):
            Block.attach(damaged)
    for size in (0, HEADER.size - 1, HEADER.size, len(memory) - 1):
        with pytest.raises(Malformed, match="bytes"):
            Block.attach(memory[:size])
    with pytest.raises(Malformed, match="bytes or more"):
        Block.create(BlockShape(1, 4), bytearray(100))


def test_blocks_of_other_shape_or_settings_do_not_merge() -> None:
    made = Block.create(BlockShape(2, 4))
    with pytest.raises(NotMergeable, match="features=2"):
        made.merge(Block.create(BlockShape(3, 4)))
    other = Block.create(BlockShape(2, 4))
    other.set_sentinel(1, -1)
    with pytest.raises(NotMergeable, match="different ranges or sentinels"):
        made.merge(other)
    with pytest.raises(ValueError, match="one block or more"):
        merged([])


@pytest.mark.parametrize(("features", "lg_k"), [(0, 12), (-1, 12), (1 << 21, 12), (1, 3), (1, 17)])
def test_a_shape_beyond_its_bounds_is_refused(features: int, lg_k: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        BlockShape(features, lg_k)


@pytest.mark.parametrize(("features", "lg_k"), [(30, 12), (1000, 12), (10_000, 12), (10_000, 8), (10_000, 0)])
def test_a_block_takes_the_memory_that_is_stated(features: int, lg_k: int) -> None:
    of_one = 24 + 128 + 72 + 4096 + (1 << lg_k if lg_k else 0)
    size = BlockShape(features, lg_k).size_bytes
    assert features * of_one + 64 <= size <= features * of_one + 6 * 64
