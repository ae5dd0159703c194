"""Distances: the published values, scipy's values, and brackets that hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from runtime.drift import distance, null
from runtime.drift.binned import BinsMismatch, NumericBins, align, grid_bins

P, Q = [50, 30, 15, 5], [40, 30, 20, 10]
X = np.arange(1.0, 11.0)
Y = np.array([2.0, 2, 3, 5, 8, 13, 21, 34, 55, 89])


def exact_bins(values: np.ndarray) -> NumericBins:
    """A bin for each distinct value, whose point is the value."""
    points, counts = np.unique(values, return_counts=True)
    return NumericBins(np.concatenate([[points[0] - 1], points]), counts, points)


def test_distances_of_the_four_bins_have_their_golden_values() -> None:
    assert distance.psi(P, Q, smoothing=0) == pytest.approx(0.0713558178, abs=1e-10)
    assert distance.kl(P, Q, smoothing=0) == pytest.approx(0.0337621058, abs=1e-10)
    assert distance.js_distance(P, Q) == pytest.approx(0.0939299525, abs=1e-10)
    assert distance.js_distance(P, Q, base=2) == pytest.approx(0.1128213708, abs=1e-10)
    assert distance.js_divergence(P, Q) == pytest.approx(0.0088228360, abs=1e-10)
    assert distance.hellinger(P, Q) == pytest.approx(0.0941841049, abs=1e-10)
    assert distance.total_variation(P, Q) == pytest.approx(0.1)
    assert distance.l_infinity(P, Q) == pytest.approx(0.1)


def test_contingency_statistics_have_their_golden_values_and_scipys() -> None:
    chi, g = distance.chi_square(P, Q), distance.g_statistic(P, Q)
    assert (chi.value, chi.degrees) == (pytest.approx(3.4920635, abs=1e-7), 3)
    assert (g.value, g.degrees) == (pytest.approx(3.5291344, abs=1e-7), 3)
    assert chi.value == pytest.approx(stats.chi2_contingency([P, Q]).statistic)
    assert g.value == pytest.approx(stats.chi2_contingency([P, Q], lambda_="log-likelihood").statistic)


def test_distances_of_the_ten_values_have_their_golden_values() -> None:
    x, y = exact_bins(X), exact_bins(Y)
    shared = np.unique(np.concatenate([X, Y]))
    p, q = ([int((values == value).sum()) for value in shared] for values in (X, Y))
    assert distance.ks_bracket(p, q).low == pytest.approx(0.5)
    assert distance.wasserstein(x, y) == pytest.approx(17.7)
    assert distance.cramer_von_mises(x, y) == pytest.approx(0.2675)
    assert null.cramer_von_mises_tail(x, y) == pytest.approx(0.1760268, abs=1e-7)
    assert distance.energy(x, y) == pytest.approx(3.0951575, abs=1e-7)


def test_distances_agree_with_scipy_on_random_samples() -> None:
    random = np.random.default_rng(1)
    for _ in range(50):
        x = random.integers(0, 30, random.integers(2, 200)).astype(float)
        y = random.integers(0, 40, random.integers(2, 200)).astype(float)
        a, b = exact_bins(x), exact_bins(y)
        assert distance.wasserstein(a, b) == pytest.approx(stats.wasserstein_distance(x, y))
        assert distance.energy(a, b) == pytest.approx(stats.energy_distance(x, y))
        expected = stats.cramervonmises_2samp(x, y, method="asymptotic").statistic
        assert distance.cramer_von_mises(a, b) == pytest.approx(expected, abs=1e-9)


def test_smoothing_adds_rows_to_every_bin() -> None:
    assert distance.shares([3, 1, 0, 0], smoothing=0.5) == pytest.approx([3.5 / 6, 1.5 / 6, 0.5 / 6, 0.5 / 6])
    assert distance.psi([10, 0], [0, 10]) == pytest.approx(2 * (10 / 11) * np.log(21))
    assert distance.psi([10, 0], [0, 10], smoothing=0) == np.inf
    assert distance.kl([1, 0], [1, 1], smoothing=0) == pytest.approx(np.log(2))


def test_the_same_shares_have_no_distance() -> None:
    for function in (distance.psi, distance.kl):
        assert function([2, 4, 6], [1, 2, 3], smoothing=0) == pytest.approx(0, abs=1e-12)
    for function in (distance.js_distance, distance.hellinger, distance.total_variation, distance.l_infinity):
        assert function([2, 4, 6], [1, 2, 3]) == pytest.approx(0, abs=1e-7)
    assert distance.ks_bracket([2, 4], [1, 2]).low == pytest.approx(0, abs=1e-12)


def test_what_cannot_be_compared_is_refused() -> None:
    for p, q in (([1, 2], [1, 2, 3]), ([0, 0], [1, 2]), ([-1, 2], [1, 2]), ([], [])):
        for function in (distance.psi, distance.kl, distance.js_distance, distance.ks_bracket, distance.hellinger):
            with pytest.raises(BinsMismatch):
                function(p, q)
    with pytest.raises(BinsMismatch):
        distance.chi_square([1, 2], [1, 2, 3])
    with pytest.raises(BinsMismatch):
        distance.wasserstein(grid_bins([]), grid_bins([1.0]))


def random_values(random: np.random.Generator) -> np.ndarray:
    rows = int(random.integers(1, 300))
    kind = random.integers(6)
    location, width = random.normal(0, 3), np.exp(random.normal())
    if kind == 0:
        return random.normal(location, width, rows)
    if kind == 1:
        return random.lognormal(location / 3, width / 3, rows)
    if kind == 2:
        return random.standard_t(1.5, rows) * width
    if kind == 3:
        return np.round(random.normal(location, width, rows))
    if kind == 4:
        return random.choice([0.0, 1.0, -2.5, 7.0], rows)
    return random.uniform(-width, width, rows) * (random.random(rows) < 0.5)


def test_the_bracket_holds_scipys_ks_in_ten_thousand_random_cases() -> None:
    random = np.random.default_rng(7)
    for case in range(10_000):
        x, y = random_values(random), random_values(random)
        points = np.sort(np.concatenate([x, y]))
        f = np.searchsorted(np.sort(x), points, side="right") / x.size
        g = np.searchsorted(np.sort(y), points, side="right") / y.size
        truth = np.abs(f - g).max()
        _, p, q = align(grid_bins(x), grid_bins(y))
        bracket = distance.ks_bracket(p, q)
        assert bracket.low - 1e-12 <= truth <= bracket.high + 1e-12
        if case % 50 == 0:  # what is taken for the truth is scipy's; its own p-value would take the time here
            assert truth == pytest.approx(stats.ks_2samp(x, y, method="asymp").statistic)


def test_wasserstein_of_bins_is_as_near_to_that_of_values_as_stated() -> None:
    random = np.random.default_rng(8)
    gamma = 2 ** (1 / 32)
    alpha = (gamma - 1) / (gamma + 1)
    for _ in range(500):
        x, y = random_values(random), random_values(random)
        a, b = grid_bins(x), grid_bins(y)
        off = abs(distance.wasserstein(a, b) - stats.wasserstein_distance(x, y))
        assert off <= alpha * (np.abs(x).mean() + np.abs(y).mean()) * (1 + 1e-9) + 1e-12
        stated = distance.wasserstein_error(a, b)
        assert off <= stated + 1e-12
        assert stated <= alpha * gamma * (np.abs(x).mean() + np.abs(y).mean()) * (1 + 1e-9) + 1e-12


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=30))
def test_pooling_keeps_rows_and_order_and_leaves_enough_expected(pairs: list[tuple[int, int]]) -> None:
    p, q = np.array(pairs).T
    if p.sum() == 0 or q.sum() == 0:
        return
    a, b = distance.pooled(p, q)
    assert (a.sum(), b.sum()) == (p.sum(), q.sum())
    assert set(np.cumsum(a)) <= set(np.cumsum(p))
    if a.size > 1:
        share = (a + b) / (a + b).sum()
        assert min(p.sum(), q.sum()) * share.min() >= 5 - 1e-9
