"""Evidence against one reference, looked at after every window without an end."""

from __future__ import annotations

import math

import numpy as np
import pytest
from drift_samples import BinnedDistribution, replications
from scipy import optimize, stats

from runtime.drift.anytime import ReferenceDetector, ball_radius, log_likelihood_bound
from runtime.drift.binned import BinsMismatch
from runtime.drift.cells import numeric_cells
from runtime.drift.distance import kl


def test_the_ball_holds_the_true_shares_as_often_as_stated_even_for_few_rows() -> None:
    random = np.random.default_rng(0)
    count = replications(4_000)
    for bins, rows in ((3, 10), (10, 50), (20, 1_000)):
        shares = random.dirichlet(np.ones(bins))
        radius = ball_radius(bins, 0.05)
        missed = sum(rows * kl(random.multinomial(rows, shares), shares, smoothing=0) > radius for _ in range(count))
        assert missed <= stats.binom.isf(1e-4, count, 0.05)
    assert ball_radius(1, 0.05) == 0


def test_the_bound_is_the_largest_likelihood_in_the_ball() -> None:
    random = np.random.default_rng(1)
    for _ in range(10):
        reference, live = random.multinomial(200, [0.2, 0.3, 0.5]), random.multinomial(100, [0.4, 0.3, 0.3])
        radius = 3.0
        bound = log_likelihood_bound(live, reference, radius)

        def outside(at: np.ndarray, reference: np.ndarray = reference, radius: float = radius) -> float:
            return radius - 200 * kl(reference, np.exp(at) / np.exp(at).sum(), smoothing=0)

        def loss(at: np.ndarray, live: np.ndarray = live) -> float:
            return -float(live @ (at - np.log(np.exp(at).sum())))

        found = optimize.minimize(
            loss, np.log(reference), constraints={"type": "ineq", "fun": outside}, method="SLSQP", tol=1e-10
        )
        assert bound == pytest.approx(-found.fun, abs=1e-3)


def test_a_window_that_the_reference_explains_is_bounded_by_its_own_likelihood() -> None:
    counts = np.array([30, 70])
    assert log_likelihood_bound(counts, np.array([3, 7]), 5.0) == pytest.approx(30 * math.log(0.3) + 70 * math.log(0.7))


def test_the_mean_of_e_values_is_at_most_one_given_any_reference_in_the_ball() -> None:
    random = np.random.default_rng(2)
    shares = np.array([0.3, 0.3, 0.2, 0.1, 0.1])
    for rows, window in ((300, 50), (50, 500)):
        e = []
        for _ in range(replications(1_000)):
            detector = ReferenceDetector(random.multinomial(rows, shares), miss=0.01, tolerance_nats=0)
            for _ in range(3):
                detector = detector.after(random.multinomial(window, shares))
            e.append(math.exp(detector.last_log_e))
        assert np.mean(e) <= 1 + 4 * np.std(e) / math.sqrt(len(e))


NORMAL = BinnedDistribution.of(stats.norm.cdf)


@pytest.mark.parametrize(("rows", "window"), [(1_000, 100), (1_000, 10_000), (20_000, 2_000)])
def test_ten_features_alarm_less_often_than_the_average_run_length_says(rows: int, window: int) -> None:
    """One reference, cells cut at its quantiles, 1/α = 2,000 windows for all ten: within 100, one run in twenty."""
    random = np.random.default_rng(rows + window)
    alpha, windows, features = 1 / 2_000, 100, 10
    runs, lengths = replications(40) // 10, []
    for _ in range(runs):
        references = [NORMAL.draw(random, rows) for _ in range(features)]
        cells = [numeric_cells(reference) for reference in references]
        detectors = [ReferenceDetector(c.count(r), tolerance_nats=0) for c, r in zip(cells, references, strict=True)]
        length = windows
        for at in range(windows):
            detectors = [d.after(c.count(NORMAL.draw(random, window))) for d, c in zip(detectors, cells, strict=True)]
            if any(detector.alarm(alpha, features) for detector in detectors):
                length = at
                break
        lengths.append(length)
    ended = int((np.array(lengths) < windows).sum())
    print(f"N={rows} windows of {window}: {ended}/{runs} runs with an alarm in {windows} windows")
    assert ended <= stats.binom.isf(1e-4, runs, alpha * windows)


def test_products_of_two_sample_e_values_would_alarm_of_the_references_noise() -> None:
    """What the ball is for: without it (the reference taken as exact) evidence grows without any change."""
    random = np.random.default_rng(3)
    shares = np.full(10, 0.1)
    reference = random.multinomial(1_000, shares)
    careless, careful = (ReferenceDetector(rows, tolerance_nats=0) for rows in (reference * 10**9, reference))
    for _ in range(60):
        counts = random.multinomial(2_000, shares)
        careless, careful = careless.after(counts), careful.after(counts)
    assert careless.evidence.log_m > 10
    assert careful.evidence.log_m < 0


def test_a_change_is_found_in_a_few_windows_though_each_is_too_small() -> None:
    random = np.random.default_rng(4)
    reference = NORMAL.draw(random, 50_000)
    cells = numeric_cells(reference)
    detector = ReferenceDetector(cells.count(reference))
    moved = BinnedDistribution.of(stats.norm(0.25, 1).cdf)
    while not detector.alarm(1e-4, 30) and detector.windows < 20:
        detector = detector.after(cells.count(moved.draw(random, 500)))
    assert detector.alarm(1e-4, 30)


def test_a_change_within_the_tolerance_is_no_drift_in_any_number_of_rows() -> None:
    random = np.random.default_rng(5)
    reference = NORMAL.draw(random, 1_000_000)
    cells = numeric_cells(reference)
    strict, tolerant = (ReferenceDetector(cells.count(reference), tolerance_nats=t) for t in (0.0, 0.002))
    slightly = BinnedDistribution.of(stats.norm(0.05, 1).cdf)
    for _ in range(10):
        counts = cells.count(slightly.draw(random, 100_000))
        strict, tolerant = strict.after(counts), tolerant.after(counts)
    assert strict.alarm(1e-4)
    assert tolerant.evidence.log_m < 0


def test_an_empty_window_says_nothing_and_other_bins_are_refused() -> None:
    detector = ReferenceDetector(np.array([5, 5]))
    assert detector.after([0, 0]) is detector
    with pytest.raises(BinsMismatch):
        detector.after([1, 2, 3])
    one = ReferenceDetector(np.array([5]))
    assert one.after([9]) is one
