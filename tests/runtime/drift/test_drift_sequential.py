"""Sequential tests: golden values, and simulations of the null at every look, since formulas alone prove nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from drift_samples import replications
from scipy import stats

from runtime.drift.sequential import (
    BernoulliProcess,
    Cusum,
    MixtureSprt,
    ShiryaevRoberts,
    counts_e_value,
    log_dirichlet_multinomial,
    log_mean_exp,
    mean_radius,
)

ALPHA = 0.05


def test_golden_values() -> None:
    assert MixtureSprt(0.0025).likelihood_ratio(0.05, 0.0005) == pytest.approx(3.2787216, abs=1e-7)
    assert math.exp(counts_e_value([90, 40], [0.5, 0.5], [1, 1])) == pytest.approx(1947.672, abs=1e-3)
    assert math.exp(counts_e_value([60, 40], [0.5, 0.5], [1, 1])) == pytest.approx(0.913050, abs=1e-6)
    assert mean_radius(1000, 1.0, rho=0.1, alpha=0.05) == pytest.approx(0.0960640, abs=1e-7)


def test_the_mixture_test_keeps_its_smallest_p_and_bears_extremes() -> None:
    test = MixtureSprt(0.01).after(0.3, 0.001)
    assert test.p < 0.01
    assert test.after(0.0, 0.001).p == test.p
    assert MixtureSprt(0.01).after(1e6, 1e-9).p >= 0
    assert MixtureSprt(0.01).after(1.0, 0.0).p == 1.0


def crossings(log_e: np.ndarray) -> int:
    """log_e: [runs, looks]. Runs that ever reach 1/ALPHA."""
    return int((log_e.max(1) >= -math.log(ALPHA)).sum())


def kept(count: int, runs: int) -> bool:
    return count <= stats.binom.isf(1e-4, runs, ALPHA)


def test_the_mixture_test_keeps_its_level_when_looked_at_after_every_row() -> None:
    runs, rows = replications(2_000), 2_000
    random = np.random.default_rng(0)
    n = np.arange(1, rows + 1)
    crossed = 0
    for _ in range(runs):
        difference = (random.normal(size=rows).cumsum() - random.normal(size=rows).cumsum()) / n
        variance, tau2 = 2 / n, 0.01
        log_ratio = 0.5 * np.log(variance / (variance + tau2))
        log_ratio += tau2 * difference**2 / (2 * variance * (variance + tau2))
        crossed += log_ratio.max() >= -math.log(ALPHA)
        at = int(random.integers(rows))
        one = MixtureSprt(tau2).likelihood_ratio(float(difference[at]), float(variance[at]))
        assert math.log(one) == pytest.approx(log_ratio[at])
    assert kept(crossed, runs)


@pytest.mark.parametrize(("rate", "a_rows", "b_rows"), [(0.02, 20, 20), (0.3, 5, 45), (0.5, 1, 1)])
def test_the_process_of_two_rates_keeps_its_level_at_every_look(rate: float, a_rows: int, b_rows: int) -> None:
    runs, blocks = replications(800), 100
    random = np.random.default_rng(a_rows)
    crossed, last = 0, []
    for _ in range(runs):
        state, highest = BernoulliProcess(), -math.inf
        hits = zip(random.binomial(a_rows, rate, blocks), random.binomial(b_rows, rate, blocks), strict=True)
        for a, b in hits:
            state = state.after(int(a), a_rows, int(b), b_rows)
            highest = max(highest, state.log_e)
        crossed += highest >= -math.log(ALPHA)
        last.append(math.exp(state.log_e))
    assert kept(crossed, runs)
    assert np.mean(last) <= 1 + 4 * np.std(last) / math.sqrt(runs)


def test_the_process_of_two_rates_finds_a_worse_canary() -> None:
    random = np.random.default_rng(5)
    state = BernoulliProcess()
    for _ in range(200):
        state = state.after(int(random.binomial(50, 0.02)), 50, int(random.binomial(50, 0.06)), 50)
    assert state.log_e >= -math.log(0.001)
    assert BernoulliProcess().after(0, 0, 1, 1).log_e == 0
    with pytest.raises(ValueError, match="hits"):
        state.after(2, 1, 0, 1)


def test_counts_keep_their_level_at_every_look() -> None:
    runs, rows = replications(2_000), 1_000
    random = np.random.default_rng(6)
    shares = np.array([0.6, 0.3, 0.1])
    crossed = 0
    for _ in range(runs):
        seen = np.cumsum(random.multinomial(10, shares, rows // 10), axis=0)
        crossed += max(counts_e_value(counts, shares, [2, 1, 1]) for counts in seen[::5]) >= -math.log(ALPHA)
    assert kept(crossed, runs)


def test_a_mixture_is_a_distribution_over_sequences() -> None:
    total = sum(math.comb(6, a) * math.exp(log_dirichlet_multinomial([a, 6 - a], [0.7, 2.0])) for a in range(7))
    assert total == pytest.approx(1)
    assert log_mean_exp([0.0, math.log(3)]) == pytest.approx(math.log(2))


def test_the_confidence_sequence_holds_the_mean_at_all_rows_at_once() -> None:
    """Asymptotic: from 100 rows on, and for rows that are not normal."""
    runs, rows = replications(1_000), 3_000
    random = np.random.default_rng(7)
    n = np.arange(1, rows + 1)
    radius = np.array([mean_radius(int(k), 1.0, rho=0.1, alpha=ALPHA) for k in n])
    missed = 0
    for _ in range(runs):
        x = random.exponential(size=rows)
        mean = x.cumsum() / n
        deviation = np.sqrt(np.maximum((x**2).cumsum() / n - mean**2, 0))
        missed += (np.abs(mean - 1) > deviation * radius)[100:].any()
    assert kept(missed, runs)
    assert mean_radius(0, 1.0, rho=0.1, alpha=ALPHA) == math.inf


@pytest.mark.parametrize("detector", [ShiryaevRoberts(), Cusum()], ids=["SR", "CUSUM"])
def test_a_detector_runs_on_average_as_long_as_stated(detector: ShiryaevRoberts | Cusum) -> None:
    runs, alpha = replications(300), 1 / 50
    random = np.random.default_rng(8)
    lengths = []
    for _ in range(runs):
        state, looks = detector, 0
        while not state.alarm(alpha):
            state = state.after(float(random.normal() - 0.5))  # ln of N(1,1) to N(0,1), at N(0,1)
            looks += 1
        lengths.append(looks)
    assert np.mean(lengths) + 3 * np.std(lengths) / math.sqrt(runs) >= 1 / alpha


def test_detectors_sum_and_choose_over_starts_of_a_change() -> None:
    sr, cusum, values = ShiryaevRoberts(), Cusum(), [2.0, 0.5, 3.0]
    for value in values:
        sr, cusum = sr.after(math.log(value)), cusum.after(math.log(value))
    assert math.exp(sr.log_m) == pytest.approx(3 * (0.5 * (2 + 1) + 1))
    assert math.exp(cusum.log_m) == pytest.approx(3)
