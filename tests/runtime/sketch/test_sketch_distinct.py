"""Distinct counts are within their standard error, and the registers depend on the values only."""

from __future__ import annotations

import math

import datasketches
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch_samples import SEEDS

from runtime.sketch.distinct import DistinctCount, relative_standard_error
from runtime.sketch.errors import BadValues, Malformed, NotMergeable
from runtime.sketch.keys import Keys

MANY = range(4 * len(SEEDS))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def of(values: object, lg_k: int = 12) -> DistinctCount:
    count = DistinctCount(lg_k)
    count.observe(np.asarray(values))
    return count


@pytest.mark.parametrize("distinct", [1, 10, 100, 1000, 3000, 10_000, 30_000, 300_000])
@pytest.mark.parametrize("lg_k", [8, 12])
def test_estimates_are_unbiased_and_spread_as_stated_and_as_those_of_datasketches(lg_k: int, distinct: int) -> None:
    ours, theirs = [], []
    for seed in MANY if distinct < 300_000 else SEEDS:
        values = np.random.default_rng([seed, distinct]).integers(-(1 << 62), 1 << 62, distinct)
        ours.append(of(values, lg_k).estimate() / distinct - 1)
        if distinct <= 3000:
            peer = datasketches.hll_sketch(lg_k, datasketches.tgt_hll_type.HLL_8)
            for value in values.tolist():
                peer.update(value)
            theirs.append(peer.get_estimate() / distinct - 1)
    error = relative_standard_error(lg_k)
    assert abs(np.mean(ours)) < 4 * error / math.sqrt(len(ours))
    assert np.sqrt(np.mean(np.square(ours))) < 1.6 * error
    farthest = max(4.5 * error, 2.5 / distinct)  # of a few values, two may share a register
    assert np.max(np.abs(ours)) < farthest
    if theirs:
        assert np.max(np.abs(theirs)) < farthest  # the peer's own bound, and so ours differ by no more than both


@pytest.mark.parametrize("distinct", [0, 1, 2, 3])
def test_a_handful_is_counted_to_the_whole_number(distinct: int) -> None:
    assert round(of(np.arange(distinct) * 0.1).estimate()) == distinct


@settings(max_examples=60)
@given(st.lists(st.lists(FLOATS, max_size=20), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_any_order_and_tree_of_merges_gives_the_same_registers(parts: list[list[float]], random: object) -> None:
    everything = [value for part in parts for value in part]
    random.shuffle(everything)  # type: ignore[attr-defined]
    forest = [of(np.array(part, np.float64), 6) for part in parts]
    while len(forest) > 1:
        left = forest.pop(random.randrange(len(forest)))  # type: ignore[attr-defined]
        left.merge(forest.pop(random.randrange(len(forest))))  # type: ignore[attr-defined]
        forest.append(left)
    assert forest[0].registers.tobytes() == of(np.array(everything, np.float64), 6).registers.tobytes()


def test_equal_floats_and_equal_integers_of_any_width_are_one_value() -> None:
    whole = of(np.array([0.0, -0.0, 1.5], np.float64))
    for dtype in ("e", "f", "d"):
        assert (
            of(np.array([1.5, 0.0, -0.0, math.nan, math.inf], dtype)).registers.tobytes() == whole.registers.tobytes()
        )
    one = of(np.array([1], np.int64)).registers.tobytes()
    for dtype in "bhilqBHILQ?":
        assert of(np.array([1], dtype)).registers.tobytes() == one
    assert of(np.array([1.0])).registers.tobytes() != one


def test_texts_are_counted_by_their_hashes() -> None:
    count = DistinctCount()
    count.observe_hashes(Keys.of_texts([f"user {n % 5000}" for n in range(20_000)]).hashes)
    assert abs(count.estimate() / 5000 - 1) < 4 * relative_standard_error(12)


def test_other_sizes_dtypes_and_buffers_are_refused() -> None:
    with pytest.raises(NotMergeable, match="lg_k 12, got 8"):
        DistinctCount().merge(DistinctCount(8))
    with pytest.raises(ValueError, match="lg_k of 4 to 16"):
        DistinctCount(3)
    with pytest.raises(BadValues, match="got <U1"):
        of(["a"])
    with pytest.raises(Malformed, match="expected 4096 bytes"):
        DistinctCount(buffer=bytearray(10))
    assert repr(DistinctCount()) == "DistinctCount(lg_k=12, estimate=0.0)"
