"""Projections of two samples' rows as subjects."""

from __future__ import annotations

import numpy as np

from runtime.drift.evaluate import Parameters, Sample, evaluate
from runtime.drift.projection import PROJECTIONS, projection_bins


def rows_of(random: np.random.Generator, count: int, correlation: float) -> np.ndarray:
    """Ten features in five pairs, far from zero and of very different size."""
    x = random.normal(size=(count, 10))
    x[:, 1::2] = correlation * x[:, ::2] + np.sqrt(1 - correlation**2) * x[:, 1::2]
    return x * 10.0 ** np.arange(-3, 7) + 1_000


def test_the_reference_fixes_them_and_a_broken_value_on_either_side_breaks_none() -> None:
    random = np.random.default_rng(0)
    reference, live = rows_of(random, 1_024, 0.5), rows_of(random, 300, 0.5)
    reference[0, 3], reference[1, 4], live[5, 5] = np.nan, np.inf, np.nan
    ours, theirs = projection_bins(reference, live, seed=3)
    assert list(ours) == list(theirs) == [f"projection {at}" for at in range(PROJECTIONS)]
    assert all(side.total == 1_024 for side in ours.values())
    assert all(abs(bins.deviation - 1) < 0.5 for bins in ours.values())
    again = projection_bins(reference, live[:10], seed=3)[0]["projection 0"]
    held = [side.points[side.held] for side in (ours["projection 0"], again)]
    assert np.array_equal(*held)


def test_pairs_that_turn_are_found_in_a_thousand_rows_and_none_without() -> None:
    random = np.random.default_rng(1)

    def drifted(correlation: float) -> tuple[str, ...]:
        ours, theirs = projection_bins(rows_of(random, 1_024, 0.9), rows_of(random, 1_024, correlation), seed=0)
        return evaluate(Sample("r", ours), Sample("w", theirs), Parameters(looks=1)).drifted

    assert drifted(0.9) == ()
    assert drifted(-0.9) != ()


def test_without_rows_or_features_there_are_none() -> None:
    for reference, live in (((0, 3), (5, 3)), ((5, 3), (0, 3)), ((5, 0), (5, 0))):
        assert projection_bins(np.zeros(reference), np.zeros(live), seed=0) == ({}, {})
