"""Intervals shown beside decisions hold what they are of at all looks at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rollout_samples import latencies, replications, sparse
from scipy import stats

from runtime.drift.sequential import MixtureSprt, counts_e_value, mean_radius
from runtime.rollout.counts import Mean
from runtime.rollout.intervals import RHO, mean_interval, quantile_band, share_interval

ALPHA = 0.05
LOOKS = np.unique(np.geomspace(20, 2_000, 15).astype(int))


def kept(count: int, runs: int) -> bool:
    return count <= stats.binom.isf(1e-4, runs, ALPHA)


def test_golden_values_of_the_tests_that_gates_rest_on() -> None:
    assert MixtureSprt(0.0025).likelihood_ratio(0.05, 0.0005) == pytest.approx(3.2787216, abs=1e-7)
    assert math.exp(counts_e_value([90, 40], [0.5, 0.5], [1, 1])) == pytest.approx(1947.672, abs=1e-3)
    assert math.exp(counts_e_value([60, 40], [0.5, 0.5], [1, 1])) == pytest.approx(0.913050, abs=1e-6)
    assert mean_radius(1000, 1.0, rho=0.1, alpha=0.05) == pytest.approx(0.0960640, abs=1e-7)


@pytest.mark.parametrize("share", [0.01, 0.4, 0.99])
def test_the_interval_of_a_share_holds_it_at_all_looks(share: float) -> None:
    runs = replications(150)
    random = np.random.default_rng(1)
    missed = 0
    for _ in range(runs):
        hits = np.cumsum(random.random(LOOKS[-1]) < share)
        found = [share_interval(int(hits[n - 1]), int(n), ALPHA) for n in LOOKS]
        missed += any(not low <= share <= high for low, high in found)
    assert kept(missed, runs)


def test_the_interval_of_a_share_is_where_the_mixture_crosses() -> None:
    low, high = share_interval(30, 100, ALPHA)
    for edge in (low, high):
        e = counts_e_value([30, 70], [edge, 1 - edge], [0.5, 0.5])
        assert e == pytest.approx(math.log(1 / ALPHA), rel=1e-6)
    assert share_interval(0, 0, ALPHA) == (0.0, 1.0)
    assert share_interval(0, 50, ALPHA)[0] == 0.0
    assert share_interval(50, 50, ALPHA)[1] == 1.0


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_the_band_of_a_quantile_holds_it_at_all_looks(q: float) -> None:
    runs = replications(60)
    random = np.random.default_rng(2)
    truth = 0.01 * math.exp(0.6 * float(stats.norm.ppf(q)))
    missed = 0
    for _ in range(runs):
        counts, seen, outside = np.zeros(512, np.int64), 0, False
        for n in LOOKS:
            counts += latencies(random, int(n) - seen, 1.0, 0.0, 1.0)
            seen = int(n)
            low, high = quantile_band(sparse(counts), q, ALPHA)
            outside |= not low <= truth <= (math.inf if high is None else high)
        missed += outside
    assert kept(missed, runs)


def test_the_band_of_a_quantile_narrows_and_has_no_end_before_there_are_rows_for_one() -> None:
    random = np.random.default_rng(3)
    few, many = (sparse(latencies(random, n, 1.0, 0.0, 1.0)) for n in (100, 100_000))
    assert quantile_band((), 0.99, ALPHA) == (0.0, None)
    assert quantile_band(few, 0.99, ALPHA)[1] is None
    low, high = quantile_band(many, 0.99, ALPHA)
    assert high is not None
    assert 1 < high / low < 1.3


def test_the_interval_of_a_mean_has_the_radius_of_the_confidence_sequence() -> None:
    low, high = mean_interval(Mean(1000, 3.0, 999.0), ALPHA) or (0, 0)
    assert high - 3.0 == 3.0 - low == pytest.approx(mean_radius(1000, 1.0, rho=RHO, alpha=ALPHA))
    assert mean_interval(Mean(1, 3.0, 0.0), ALPHA) is None
