"""Quantiles of a base-2 exponential histogram: never further from the exact one than is promised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.durations import DurationRecorder
from gateway.telemetry.quantiles import quantile, relative_error
from runtime.shm.series import bounds_seconds
from runtime.shm.series_layout import SCALE, TIME_BUCKETS, TIME_OFFSET

LOW, HIGH = float(bounds_seconds()[0]), float(bounds_seconds()[-1])
LATENCIES = st.floats(LOW, HIGH, exclude_min=True)
QUANTILES = (0.0, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
ROUNDING = 1e-9


def recorded(values: list[float]) -> tuple[np.ndarray, int]:
    recorder = DurationRecorder()
    for value in values:
        recorder.record(value, "m")
    distribution = recorder.distributions()["m"]
    assert distribution.count == len(values)
    return distribution.counts, distribution.zero


def estimate(counts: np.ndarray, zero: int, q: float) -> float:
    found = quantile(counts, zero, SCALE, TIME_OFFSET, q)
    assert found is not None
    return found


def check(values: list[float]) -> None:
    counts, zero = recorded(values)
    assert zero == 0
    for q in QUANTILES:
        exact = float(np.sort(values)[int(q * (len(values) - 1))])
        assert abs(estimate(counts, zero, q) - exact) <= exact * (relative_error(SCALE) + ROUNDING)


@given(st.lists(LATENCIES, min_size=1, max_size=200))
def test_the_error_is_within_its_bound_for_any_values(values: list[float]) -> None:
    check(values)


@pytest.mark.parametrize("size", [1, 2, 3, 10, 1000, 20_000])
@pytest.mark.parametrize("kind", ["lognormal", "pareto", "two modes", "constant", "exponential"])
def test_the_error_is_within_its_bound_for_values_like_latencies(kind: str, size: int) -> None:
    random = np.random.default_rng(size)
    values = {
        "lognormal": lambda: random.lognormal(-6.5, 0.8, size),
        "pareto": lambda: 2e-4 * (1 + random.pareto(1.5, size)),
        "two modes": lambda: np.where(random.random(size) < 0.97, 3e-4, 0.2) * random.lognormal(0, 0.1, size),
        "constant": lambda: np.full(size, 0.001),
        "exponential": lambda: 1e-5 + random.exponential(0.01, size),
    }[kind]()
    check(np.clip(values, LOW * 1.001, HIGH).tolist())


def test_the_bound_of_the_error_is_the_stated_one() -> None:
    assert relative_error(SCALE) == pytest.approx(0.02166, abs=1e-5)
    assert relative_error(0) == pytest.approx(1 / 3)


def test_nothing_counted_has_no_quantile() -> None:
    assert quantile(np.zeros(TIME_BUCKETS, np.uint64), 0, SCALE, TIME_OFFSET, 0.5) is None
    assert quantile(np.zeros(0, np.uint64), 0, SCALE, 0, 0.5) is None


def test_values_at_or_below_the_first_bound_are_zero() -> None:
    counts, zero = recorded([0.0, LOW, 1.0])
    assert zero == 2
    assert [estimate(counts, zero, q) for q in (0, 0.5)] == [0.0, 0.0]
    assert estimate(counts, zero, 1.0) == pytest.approx(1.0, rel=0.022)
    assert quantile(np.zeros(0, np.uint64), 3, SCALE, 0, 1.0) == 0.0


@pytest.mark.parametrize("q", [-0.1, 1.1])
def test_a_quantile_outside_of_0_to_1_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        quantile(np.ones(1, np.uint64), 0, SCALE, 0, q)


def test_a_difference_of_two_histograms_has_the_quantiles_of_what_came_between() -> None:
    first, second = [0.001] * 90, [0.1] * 10
    both, _ = recorded(first + second)
    before, _ = recorded(first)
    assert quantile(both - before, 0, SCALE, TIME_OFFSET, 0.0) == pytest.approx(0.1, rel=0.022)
