"""Moments are numpy's up to rounding, in any order and any tree of merges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sketch_samples import DISTRIBUTIONS, SEEDS

from runtime.sketch.errors import BadValues, Malformed
from runtime.sketch.moments import MOMENTS_BYTES, Moments

NAMES = [name for name in DISTRIBUTIONS if name not in ("any bits", "subnormals", "wide lognormal")]


def of(values: object, prediction: object = None) -> Moments:
    moments = Moments()
    moments.observe(values, prediction)  # type: ignore[arg-type]
    return moments


def bound(values: np.ndarray) -> float:
    """Of the variance's relative error: Chan's condition number of the sample, times what rounding may add up to."""
    spread = np.std(values)
    return 1e-13 * math.hypot(1, np.mean(values) / spread) if spread else 0.0


@pytest.mark.parametrize("size", [2, 3, 257, 20_000])
@pytest.mark.parametrize("name", NAMES)
def test_mean_variance_and_correlation_are_those_of_numpy(name: str, size: int) -> None:
    for seed in SEEDS:
        rng = np.random.default_rng([seed, size])
        values = DISTRIBUTIONS[name](rng, size).astype(np.float64)
        prediction = values * rng.normal() / (np.std(values) or 1) + rng.normal(size=size)
        whole = of(values, prediction)
        parts = Moments()
        for part in np.array_split(rng.permutation(size), 7):
            parts.merge(of(values[part], prediction[part]))
        exact_mean = math.fsum(values) / size
        exact = math.fsum((values.astype(np.longdouble) - np.longdouble(exact_mean)) ** 2) / (size - 1)
        for summary in (whole.summary(), parts.summary()):
            assert (summary.count, summary.pairs) == (size, size)
            assert abs(summary.mean - exact_mean) <= 1e-13 * math.fsum(np.abs(values)) / size
            assert abs(summary.variance - exact) <= bound(values) * exact + 1e-30
            if size > 2 and 0 < bound(values) < 1e-6:  # else all are the same, up to rounding
                expected = np.corrcoef(values, prediction)[0, 1]
                assert summary.correlation == pytest.approx(expected, rel=1e-9, abs=1e-9 + 10 * bound(values))


def test_what_is_not_finite_is_passed_over_in_values_and_in_pairs() -> None:
    moments = of([1.0, math.nan, 2.0, math.inf, 3.0, 4.0], [2.0, 1.0, 4.0, 1.0, math.nan, 8.0])
    summary = moments.summary()
    assert (summary.count, summary.mean, summary.pairs) == (4, 2.5, 3)
    assert summary.correlation == pytest.approx(1.0)


def test_too_few_values_have_no_variance_and_constant_ones_no_correlation() -> None:
    nothing = Moments().summary()
    assert (nothing.count, nothing.pairs) == (0, 0)
    assert np.isnan([nothing.mean, nothing.variance, nothing.correlation]).all()
    assert math.isnan(of([3.0]).summary().variance)
    assert math.isnan(of([3.0, 3.0], [1.0, 2.0]).summary().correlation)
    assert of([3.0, 3.0]).summary().variance == 0.0


def test_merging_nothing_changes_nothing() -> None:
    moments = of([1.0, 5.0], [2.0, 3.0])
    before = moments.row.tobytes()
    moments.merge(Moments())
    assert moments.row.tobytes() == before
    empty = Moments()
    empty.merge(moments)
    assert empty.row.tobytes() == before
    assert moments.copy().row.tobytes() == before


def test_arrays_of_different_lengths_and_small_buffers_are_refused() -> None:
    with pytest.raises(BadValues, match="expected 2 predictions"):
        of([1.0, 2.0], [1.0])
    with pytest.raises(Malformed, match=f"expected {MOMENTS_BYTES} bytes"):
        Moments(bytearray(8))
