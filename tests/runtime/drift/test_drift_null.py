"""Noise floors and p-values at the sizes at hand: scipy's where it has them, and simulated where it has not."""

from __future__ import annotations

import numpy as np
import pytest
from drift_samples import BinnedDistribution, replications
from scipy import stats

from runtime.drift import distance, null
from runtime.drift.binned import NumericBins, align, grid_bins
from runtime.drift.cells import numeric_cells

NORMAL = BinnedDistribution.of(stats.norm.cdf)


def test_contingency_p_values_are_the_golden_ones() -> None:
    p, q = [50, 30, 15, 5], [40, 30, 20, 10]
    chi, g = distance.chi_square(p, q), distance.g_statistic(p, q)
    assert null.chi_square_tail(chi.value, chi.degrees) == pytest.approx(0.3217929, abs=1e-7)
    assert null.chi_square_tail(g.value, g.degrees) == pytest.approx(0.3170031, abs=1e-7)
    assert null.counts_tail(p, q) == pytest.approx(0.3217929, abs=1e-7)


def test_small_samples_have_the_exact_p_value_of_ks() -> None:
    assert null.ks_tail(0.5, 10, 10) == pytest.approx(0.1678213, abs=1e-7)
    random = np.random.default_rng(0)
    for _ in range(50):
        x, y = random.normal(size=random.integers(2, 60)), random.normal(0.5, 1, random.integers(2, 60))
        expected = stats.ks_2samp(x, y, method="exact")
        assert null.ks_tail(expected.statistic, x.size, y.size) == pytest.approx(expected.pvalue, abs=1e-9)


def test_large_samples_have_at_least_the_p_value_of_ks_and_little_more_in_the_tail() -> None:
    for n, m in ((1000, 1000), (300, 5000), (100_000, 1000)):
        for p in (0.05, 1e-3, 1e-6, 1e-9):
            reach = stats.kstwobign.isf(p) * np.sqrt(null.noise(n, m))
            assert p <= null.ks_tail(reach, n, m) <= 1.09 * p


def test_rates_have_the_p_value_of_the_exact_conditional_test() -> None:
    for hits, rows, live_hits, live_rows in (
        (3, 1000, 12, 1000),
        (0, 10_000, 4, 1000),
        (40, 200, 90, 300),
        (5, 5, 1, 9),
    ):
        table = stats.hypergeom(rows + live_rows, hits + live_hits, live_rows)
        tail = min(table.cdf(live_hits), table.sf(live_hits - 1))
        assert null.rate_tail(hits, rows, live_hits, live_rows) == pytest.approx(min(1, 2 * tail), rel=1e-6)
    assert null.rate_tail(0, 10, 0, 10) == null.rate_tail(10, 10, 10, 10) == null.rate_tail(0, 0, 3, 10) == 1


def test_rates_of_many_hits_go_over_to_the_likelihood_without_a_jump() -> None:
    exact, likelihood = null.rate_tail(900, 10_000, 1090, 10_000), null.rate_tail(900, 10_000, 1110, 10_000)
    assert 1e-7 < likelihood < exact < 1e-4


def test_a_reference_is_a_sample_and_widens_the_floor_as_a_window_does() -> None:
    assert null.psi_floor(1000, 100, 20, 0.05) == null.psi_floor(100, 1000, 20, 0.05)
    assert null.psi_floor(1000, 1000, 20, 0.05).mean == pytest.approx(2 * null.psi_floor(1000, 1e12, 20, 0.05).mean)
    assert null.rate_tail(0, 50, 3, 1000) == 1.0  # a short reference without a hit says little


@pytest.mark.parametrize(("n", "m"), [(2_000, 500), (2_000, 20_000), (300, 300)])
def test_floors_are_the_means_of_identical_distributions(n: int, m: int) -> None:
    random = np.random.default_rng(n + m)
    seen: dict[str, list[float]] = {"psi": [], "js": [], "ks": [], "w1": []}
    passed = dict.fromkeys(seen, 0)
    count, cells = replications(400), 0
    for _ in range(count):
        a, b = NORMAL.draw(random, n), NORMAL.draw(random, m)
        few = numeric_cells(a)
        p, q = few.count(a), few.count(b)
        ends = [0, *range(2, p.size - 2), p.size - 2]  # cells beyond the reference's range are nearly empty
        p, q = np.add.reduceat(p, ends), np.add.reduceat(q, ends)
        cells = p.size
        _, fine_p, fine_q = align(a, b)
        for name, value, floor in (
            ("psi", distance.psi(p, q), null.psi_floor(n, m, cells, 0.05)),
            ("js", distance.js_divergence(p, q), null.js_floor(n, m, cells, 0.05)),
            ("ks", distance.ks_bracket(fine_p, fine_q).low, null.ks_floor(n, m, 0.05)),
            ("w1", distance.wasserstein(a, b), null.wasserstein_floor(a, b, 0.05)),
        ):
            seen[name].append(value)
            passed[name] += value > floor.critical
    last = NORMAL.draw(random, n), NORMAL.draw(random, m)
    assert np.mean(seen["psi"]) == pytest.approx(null.psi_floor(n, m, cells, 0.05).mean, rel=0.15)
    assert np.mean(seen["js"]) == pytest.approx(null.js_floor(n, m, cells, 0.05).mean, rel=0.15)
    assert np.mean(seen["ks"]) == pytest.approx(null.ks_floor(n, m, 0.05).mean, rel=0.08)
    assert np.mean(seen["w1"]) == pytest.approx(null.wasserstein_floor(*last, 0.05).mean, rel=0.08)
    allowed = stats.binom.isf(1e-4, count, 0.05)
    assert max(passed.values()) <= allowed, passed


@pytest.mark.parametrize(
    ("n", "m", "bins"), [(100, 100, 20), (10_000, 100, 20), (10_000, 1000, 50), (300, 100_000, 10)]
)
def test_p_values_of_counts_keep_their_level_far_out(n: int, m: int, bins: int) -> None:
    """Skewed shares, so that pooling has work; pooling decides which cells are compared."""
    random = np.random.default_rng(bins + n)
    shares = 1.3 ** -np.arange(bins)
    shares /= shares.sum()
    count = replications(4_000)
    p_values = np.array(
        [null.counts_tail(random.multinomial(n, shares), random.multinomial(m, shares)) for _ in range(count)]
    )
    for level in (0.05, 0.01, 0.001):
        assert (p_values <= level).sum() <= stats.binom.isf(1e-4, count, level), level


def test_pearson_alone_would_make_too_much_of_small_cells() -> None:
    reference, live = [995_000, 5_000], [980, 20]  # 20 where 5 were expected
    truth = null.rate_tail(5_000, 1_000_000, 20, 1_000)
    truth = stats.binom.sf(19, 1_000, 0.005) if truth else truth
    pearson = distance.chi_square(reference, live)
    assert null.chi_square_tail(pearson.value, 1) < truth / 1000
    assert null.counts_tail(reference, live) > truth / 2


def test_the_traps_of_fixed_thresholds_are_seen_and_not_fallen_into() -> None:
    """100 live rows against 1,001, identical normals: PSI ≥ 0.1 in most windows, significant in few."""
    random = np.random.default_rng(12)
    large, significant, count = 0, 0, 300
    for _ in range(count):
        a, b = grid_bins(random.normal(size=1_001)), grid_bins(random.normal(size=100))
        few = numeric_cells(a)
        p, q = few.count(a), few.count(b)
        large += distance.psi(p, q) >= 0.1
        significant += null.counts_tail(p, q) <= 0.05
    assert large > 0.75 * count
    assert significant <= stats.binom.isf(1e-4, count, 0.05)


def test_a_constant_has_a_floor_of_zero_distance() -> None:
    constant = NumericBins(np.array([1.0, 2.0]), np.array([50]))
    assert null.wasserstein_floor(constant, constant, 0.05) == null.Floor(0.0, 0.0)
    assert null.chi_square_tail(0.0, 0) == 1.0


@pytest.mark.parametrize(
    ("hits", "rows", "live_rows"), [(0, 10_000, 1_000), (200, 10_000, 1_000), (5_000, 10_000, 5_000)]
)
def test_a_rise_that_is_called_detectable_is_mostly_found(hits: int, rows: int, live_rows: int) -> None:
    random = np.random.default_rng(rows)
    level = 1e-5
    rise = null.rate_detectable(hits, rows, live_rows, level)
    found = [
        null.rate_tail(hits, rows, int(random.binomial(live_rows, hits / rows + rise)), live_rows) <= level
        for _ in range(300)
    ]
    assert np.mean(found) > 0.5
