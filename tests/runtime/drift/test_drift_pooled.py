"""Panes put together are what one pane would have been."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.drift.binned import Apart, BinsMismatch, CategoryBins, ExactMoments, NumericBins, RateCounts, grid_bins
from runtime.drift.pooled import Pooled, merged


def bins_of(values: np.ndarray, missing: int = 0) -> NumericBins:
    bins = grid_bins(values)
    exact = ExactMoments(values.size, values.mean(), values.var(ddof=1), values.min(), values.max())
    return NumericBins(bins.edges, bins.counts, apart=Apart(missing=missing), exact=exact)


def test_small_panes_are_kept_until_their_rows_are_enough() -> None:
    random = np.random.default_rng(0)
    rows = [random.normal(3, 1, 300) for _ in range(4)]
    pooled, given = Pooled(), []
    for values in rows:
        pooled, pane = pooled.after({"a": bins_of(values, 2), "r": RateCounts(1, 300)}, 300)
        given.append(pane)
    assert [pane is None for pane in given] == [True, True, True, False]
    assert (pooled.rows, dict(pooled.subjects)) == (0, {})
    whole, all_rows = given[-1]["a"], np.concatenate(rows)
    held = {float(edge): int(c) for edge, c in zip(whole.edges[1:], whole.counts, strict=True) if c}
    once = grid_bins(all_rows)
    assert held == {float(edge): int(c) for edge, c in zip(once.edges[1:], once.counts, strict=True) if c}
    assert whole.apart.missing == 8
    assert whole.exact.mean == pytest.approx(all_rows.mean(), rel=1e-12)
    assert whole.exact.variance == pytest.approx(all_rows.var(ddof=1), rel=1e-12)
    assert (whole.exact.least, whole.exact.greatest) == (all_rows.min(), all_rows.max())
    assert given[-1]["r"] == RateCounts(4, 1_200)


def test_a_subject_that_one_pane_lacks_is_pooled_from_the_others() -> None:
    pooled, _ = Pooled(100).after({"a": CategoryBins({"x": 1}, 2)}, 50)
    _, pane = pooled.after({"a": CategoryBins({"y": 3}, 1, Apart(nan=1)), "b": RateCounts(0, 50)}, 50)
    assert pane == {"a": CategoryBins({"x": 1, "y": 3}, 3, Apart(nan=1)), "b": RateCounts(0, 50)}


def test_moments_that_one_side_lacks_are_not_known_and_nothing_adds_nothing() -> None:
    values, nothing = np.arange(1.0, 9.0), grid_bins([])
    assert merged(bins_of(values), grid_bins(values)).exact is None
    assert merged(bins_of(values), nothing).exact == bins_of(values).exact
    assert merged(nothing, nothing).rows == 0
    with pytest.raises(BinsMismatch, match="one kind"):
        merged(nothing, RateCounts(0, 1))
