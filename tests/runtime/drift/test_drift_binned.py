"""Bins: the grid, what is counted apart, and bins in common."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from runtime.drift.binned import (
    Apart,
    BinsMismatch,
    CategoryBins,
    NumericBins,
    RateCounts,
    align,
    bins_of_cells,
    exact_pair,
    grid_bins,
    representatives,
)
from runtime.drift.distance import ks_bracket, wasserstein, wasserstein_error


def test_what_lies_in_no_bin_is_counted_apart() -> None:
    bins = grid_bins([0.0, 1.0, np.nan, np.inf, np.inf, -np.inf, -3.0], missing=4)
    assert bins.apart == Apart(missing=4, nan=1, positive_infinity=2, negative_infinity=1)
    assert (bins.total, bins.apart.infinite, bins.rows) == (3, 3, 11)


def test_zero_has_a_bin_and_a_power_of_two_closes_one() -> None:
    bins = grid_bins([0.0, 0.0, 1e-300, 1.0, 2.0, -2.0])
    held = {float(point): int(count) for point, count in zip(bins.points, bins.counts, strict=True) if count}
    assert held[0.0] == 2
    for value in (1.0, 2.0):
        assert value in bins.edges
        at = int(np.searchsorted(bins.edges, value)) - 1
        assert bins.counts[at] == 1
    assert -2.0 in bins.edges


def test_a_representative_is_as_near_as_the_grid_promises() -> None:
    values = np.random.default_rng(3).lognormal(0, 5, 1000)
    for value in np.concatenate([values, -values]):
        point = grid_bins([value]).points[0]
        assert abs(point - value) <= 0.01083 * abs(value)
    assert representatives(np.array([-1.0, 1.0])) == [0.0]


def test_bins_of_two_resolutions_meet_at_the_coarser_and_lose_no_row() -> None:
    values = np.random.default_rng(4).normal(size=500)
    fine, coarse = grid_bins(values, scale=5), grid_bins(values, scale=3)
    edges, a, b = align(fine, coarse)
    assert (a == b).all()
    assert a.sum() == 500
    assert np.isin(edges, np.union1d(fine.edges, coarse.edges)).all()


def test_bins_far_from_each_other_stay_apart() -> None:
    _, a, b = align(grid_bins([1.0, 1.5]), grid_bins([1000.0, 1500.0]))
    assert not (a * b).any()
    assert (a.sum(), b.sum()) == (2, 2)


def test_a_side_without_rows_has_the_others_bins() -> None:
    _, a, b = align(grid_bins([]), grid_bins([1.0]))
    assert (a.tolist(), b.tolist()) == ([0], [1])
    _, a, b = align(grid_bins([1.0]), grid_bins([]))
    assert (a.tolist(), b.tolist()) == ([1], [0])


def test_numbers_that_are_no_bins_are_refused() -> None:
    for edges, counts in (
        ([0.0, 1.0], [1, 2]),
        ([1.0, 0.0], [1]),
        ([0.0, np.inf], [1]),
        ([0.0, 1.0], [-1]),
        ([0.0], []),
    ):
        if (edges, counts) == ([0.0], []):
            assert NumericBins(np.array(edges), np.array(counts)).total == 0
            continue
        with pytest.raises(BinsMismatch):
            NumericBins(np.array(edges), np.array(counts))
    with pytest.raises(BinsMismatch):
        CategoryBins({"a": -1})
    with pytest.raises(BinsMismatch):
        RateCounts(3, 2)


def test_the_deviation_is_that_of_the_points() -> None:
    assert grid_bins([]).deviation == 0
    values = np.random.default_rng(5).normal(3, 2, 10_000)
    assert grid_bins(values).deviation == pytest.approx(values.std(), rel=0.02)


def test_cells_of_a_histogram_become_bins_with_empty_ones_between() -> None:
    bins = bins_of_cells(
        [-4.0, 0.0, 0.0, 1.0, 8.0], [-2.0, 0.0, 1e-320, 2.0, np.inf], [1, 2, 3, 4, 5], [-3, 0, 1e-320, 1.5, 9]
    )
    held = {float(point): int(count) for point, count in zip(bins.points, bins.counts, strict=True) if count}
    assert held == {-3.0: 1, 0.0: 5, 1.5: 4, 9.0: 5}
    assert np.isfinite(bins.edges).all()
    assert bins.total == 15
    assert bins_of_cells([], [], []).rows == 0


def test_bins_of_two_samples_rows_lose_nothing() -> None:
    random = np.random.default_rng(6)
    x, y = (
        np.round(random.normal(size=900), 2),
        np.append(random.normal(0.3, 1, 700), [np.nan, np.inf, -np.inf, -np.inf]),
    )
    pair = exact_pair(x, y)
    assert [side.total for side in pair] == [900, 700]
    assert pair[1].apart == Apart(nan=1, positive_infinity=1, negative_infinity=2)
    edges, p, q = align(*pair)
    assert edges.size == pair[0].edges.size
    bracket = ks_bracket(p, q)
    truth = stats.ks_2samp(x, y[:700]).statistic
    assert bracket.low == pytest.approx(truth, abs=1e-12)
    assert bracket.high - bracket.low <= 0.02
    assert wasserstein(*pair) == pytest.approx(stats.wasserstein_distance(x, y[:700]), rel=1e-9)
    assert wasserstein_error(*pair) < 1e-12
    assert pair[0].deviation == pytest.approx(x.std(), rel=1e-9)
    nothing = exact_pair([], [np.nan])
    assert [side.rows for side in nothing] == [0, 1]
    one = exact_pair([2.0], [3.0])
    assert (one[0].total, one[1].total) == (1, 1)
