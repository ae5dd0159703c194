"""Bins that a reference fixes: counts in them are exact, at any scale, and nothing falls between them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sketch_samples import DISTRIBUTIONS, SEEDS, Array

from runtime.sketch.bins import BinCounts, ReferenceBins
from runtime.sketch.exponential import ExponentialHistogram

of = ExponentialHistogram.of


def by_hand(found: BinCounts, values: Array) -> list[int]:
    """Edges above 0 belong below, edges below 0 belong above, and zero between two edges of 0."""
    edges = found.edges
    counts = [0] * (len(edges) + 1)
    for value in np.asarray(values, np.float64).tolist():
        below = [edge < value or (edge == value and edge < 0) for edge in edges]
        at = sum(below)
        if value == 0:
            at = int(np.searchsorted(edges, 0, side="left"))
            at += int((edges == 0).sum() == 2)
        counts[at] += 1
    return counts


@pytest.mark.parametrize("name", [name for name in DISTRIBUTIONS if name not in ("subnormals", "any bits")])
def test_counts_are_those_of_the_values_between_the_edges(name: str) -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        reference, live = (DISTRIBUTIONS[name](rng, n) for n in (2000, 500))
        live = np.concatenate([live, live * 3.1, [0, 1e-3]])
        found = ReferenceBins(of(reference)).counts(of(live))
        assert (found.reference.sum(), found.live.sum()) == (2000, 1002)
        if (found.edges == 0).sum() != 1:  # one edge of 0: on which side of zero it lies is not told by the number
            assert found.reference.tolist() == by_hand(found, reference)
            assert found.live.tolist() == by_hand(found, live)


@pytest.mark.parametrize("bins", [2, 10, 20])
def test_bins_of_a_spread_out_reference_hold_about_equal_shares(bins: int) -> None:
    found = ReferenceBins(of(np.random.default_rng(1).normal(size=20_000)), bins).counts(of(np.ones(1)))
    assert len(found.reference) == bins
    assert np.abs(found.reference / 20_000 - 1 / bins).max() < 0.02


def test_a_live_histogram_that_is_coarser_is_compared_at_its_scale() -> None:
    rng = np.random.default_rng(2)
    reference, live = rng.lognormal(size=2000), np.append(rng.lognormal(size=999), 1e-200)
    found = ReferenceBins(of(reference)).counts(of(live))
    assert found.scale == of(live).scale < of(reference).scale
    assert found.reference.tolist() == by_hand(found, reference)
    assert found.live.tolist() == by_hand(found, live)


def test_a_constant_reference_tells_what_is_below_equal_and_above() -> None:
    found = ReferenceBins(of(np.full(10, 5.0))).counts(of(np.array([-1.0, 5.0, 5.0, 7.0])))
    assert (found.reference.tolist(), found.live.tolist()) == ([0, 10, 0], [1, 2, 1])
    zeros = ReferenceBins(of(np.zeros(10))).counts(of(np.array([-1.0, 0.0, -0.0, 1e-300])))
    assert (zeros.reference.tolist(), zeros.live.tolist(), zeros.edges.tolist()) == ([0, 10, 0], [1, 2, 1], [0, 0])


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40),
    st.lists(st.floats(), max_size=40),
    st.integers(2, 30),
)
def test_every_finite_value_is_in_one_bin_and_the_others_beside_them(
    reference: list[float], live: list[float], bins: int
) -> None:
    found = ReferenceBins(of(np.array(reference)), bins).counts(of(np.array(live, np.float64)))
    assert found.reference.sum() == len(reference)
    assert found.live.sum() + sum(found.live_aside.values()) == len(live)
    assert len(found.reference) == len(found.live) == len(found.edges) + 1 <= 3 * bins
    assert (np.diff(found.edges) >= 0).all()


def test_bins_do_not_change_with_the_reference_that_they_were_made_from() -> None:
    reference = of(np.arange(1.0, 100.0))
    bins = ReferenceBins(reference)
    before = bins.counts(of(np.ones(3)))
    reference.observe(np.full(1000, 1e9))
    assert bins.counts(of(np.ones(3))).edges.tolist() == before.edges.tolist()


def test_bins_without_a_reference_or_of_too_small_a_number_are_refused() -> None:
    with pytest.raises(ValueError, match="finite values"):
        ReferenceBins(of(np.array([np.nan])))
    with pytest.raises(ValueError, match="2 to 256 bins"):
        ReferenceBins(of(np.ones(1)), 1)
