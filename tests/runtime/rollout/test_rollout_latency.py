"""Buckets of latency are those that workers count in, and ratios are taken to the safe side."""

from __future__ import annotations

import pytest

from runtime.rollout.latency import (
    BUCKETS,
    FIRST,
    PER_OCTAVE,
    above,
    bucket_of,
    place,
    quantile_bucket,
    shift_of,
    upper_bound_seconds,
)
from runtime.rollout.rates import Side
from runtime.shm import series_layout


def test_the_buckets_are_those_of_the_workers_histograms() -> None:
    assert (PER_OCTAVE, FIRST, BUCKETS) == (
        series_layout.PER_OCTAVE,
        series_layout.TIME_OFFSET,
        series_layout.TIME_BUCKETS,
    )


@pytest.mark.parametrize("seconds", [1e-9, 1e-6, 0.00123, 0.01, 1.0, 17.3, 1e5])
def test_a_latency_is_in_the_bucket_whose_bounds_it_is_between(seconds: float) -> None:
    bucket = bucket_of(seconds)
    assert seconds <= upper_bound_seconds(bucket) or bucket == BUCKETS - 1
    assert seconds > upper_bound_seconds(bucket - 1) or bucket == 0
    assert bucket_of(0.0) == 0


def test_quantiles_and_exceedances_count_whole_buckets() -> None:
    histogram = ((10, 50), (20, 49), (30, 1))
    assert [quantile_bucket(histogram, q) for q in (0.5, 0.51, 0.99, 0.995)] == [10, 20, 20, 30]
    assert quantile_bucket((), 0.5) is None
    assert [above(histogram, at) for at in (9, 10, 20, 30)] == [100, 50, 1, 0]


def test_a_ratio_is_rounded_away_from_what_is_to_be_shown() -> None:
    assert (shift_of(1.2, Side.HARM), shift_of(1.2, Side.SAFE)) == (5, 4)
    assert shift_of(2.0, Side.HARM) == shift_of(2.0, Side.SAFE) == 16
    assert shift_of(1.0, Side.HARM) == 0


def test_nothing_is_compared_where_the_buckets_do_not_reach() -> None:
    assert place(((BUCKETS - 10, 5),), 0.5, 16) is None
    assert place((), 0.5, 4) is None
    assert place(((100, 5),), 0.5, 4) == 100
