"""The classifier two-sample test and the random projections: calibrated, and seeing what no single feature shows."""

from __future__ import annotations

import numpy as np
import pytest
from drift_samples import replications
from scipy import stats
from sklearn.metrics import roc_auc_score

from runtime.drift.binned import BinsMismatch, grid_bins
from runtime.drift.classifier import MIN_ROWS, auc_noise, auc_of, separation
from runtime.drift.correlation import Correlation, correlation_of, moved, moved_tail
from runtime.drift.null import ks_tail
from runtime.drift.projection import projections


def rotated(random: np.random.Generator, rows: int, features: int, correlation: float) -> np.ndarray:
    """Standard normal features, of which only the first two go together: no marginal depends on `correlation`."""
    x = random.normal(size=(rows, features))
    x[:, 1] = correlation * x[:, 0] + np.sqrt(1 - correlation**2) * x[:, 1]
    return x


def test_the_auc_is_scikit_learns_with_ties() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        a, b = random.integers(0, 9, 40), random.integers(1, 10, 60)
        expected = roc_auc_score(np.repeat([0, 1], [40, 60]), np.concatenate([a, b]))
        assert auc_of(a, b) == pytest.approx(expected)


def test_p_values_of_identical_samples_are_uniform_in_the_tail() -> None:
    random = np.random.default_rng(1)
    count = replications(600)
    p = np.array(
        [separation(rotated(random, 150, 4, 0.8), rotated(random, 250, 4, 0.8), seed=i).p for i in range(count)]
    )
    for level in (0.5, 0.1, 0.01):
        assert (p <= level).sum() <= stats.binom.isf(1e-4, count, level)


@pytest.mark.parametrize("features", [2, 10, 30])
def test_the_classifier_tells_a_rotated_correlation_and_names_it(features: int) -> None:
    random = np.random.default_rng(features)
    names = tuple(f"x{i}" for i in range(features))
    told = separation(rotated(random, 2000, features, 0.6), rotated(random, 2000, features, -0.6), seed=1, names=names)
    assert told.p < 1e-8
    assert told.drift > 0.2
    assert told.weights[0][0] == "x0 × x1"
    assert told.weights[0][1] < 0


def test_no_single_feature_shows_a_rotated_correlation_but_a_projection_does() -> None:
    random = np.random.default_rng(3)
    reference, live = rotated(random, 20_000, 10, 0.8), rotated(random, 5_000, 10, -0.8)
    singles = [stats.ks_2samp(reference[:, i], live[:, i], method="asymp").pvalue for i in range(10)]
    assert min(singles) > 1e-3
    project = projections(reference.mean(0), reference.std(0), seed=0)
    a, b = project(reference), project(live)
    found = [
        ks_tail(stats.ks_2samp(a[:, i], b[:, i], method="asymp").statistic, 20_000, 5_000) for i in range(a.shape[1])
    ]
    assert min(found) < 1e-8


def test_a_broken_value_does_not_hide_the_others_nor_stop_the_test() -> None:
    random = np.random.default_rng(4)
    a, b = random.normal(size=(400, 3)), random.normal(size=(400, 3))
    b[:, 0] += 1.0
    a[0, 1], b[0, 1], b[1, 2], b[2, 2] = 1e30, -1e300, np.nan, np.inf
    assert separation(a, b, seed=0).p < 1e-6
    a[:, 2], b[:, 2] = np.nan, np.nan
    assert separation(a, b, seed=0).p < 1e-6


def test_too_few_rows_tell_nothing() -> None:
    random = np.random.default_rng(5)
    few = separation(random.normal(size=(MIN_ROWS - 1, 2)), random.normal(3, 1, (500, 2)), seed=0)
    assert (few.auc, few.p, few.drift) == (0.5, 1.0, 0.0)
    assert auc_noise(0, 5) == np.inf
    with pytest.raises(BinsMismatch):
        separation(np.zeros((50, 2)), np.zeros((50, 3)), seed=0)


def test_constant_rows_are_not_told_apart() -> None:
    same = separation(np.ones((100, 2)), np.ones((100, 2)), seed=0)
    assert (same.auc, same.p) == (0.5, 1.0)


def test_the_same_seed_gives_the_same_answer_and_wide_rows_are_bounded() -> None:
    random = np.random.default_rng(6)
    a, b = random.normal(size=(200, 300)), random.normal(size=(200, 300))
    assert separation(a, b, seed=3) == separation(a, b, seed=3)


def test_projections_are_seeded_deal_features_evenly_and_have_unit_variance() -> None:
    project = projections(np.zeros(30), np.ones(30), seed=7)
    assert (project.weights == projections(np.zeros(30), np.ones(30), seed=7).weights).all()
    used = (project.weights != 0).sum(1)
    assert used.max() - used.min() <= 2
    assert (project.weights**2).sum(0) == pytest.approx(1)
    assert project(np.full((1, 30), np.nan)).tolist() == [[0.0] * 16]
    with pytest.raises(BinsMismatch):
        project(np.zeros((3, 29)))
    with pytest.raises(BinsMismatch):
        projections(np.zeros(0), np.zeros(0), seed=0)
    assert projections([0.0], [0.0], seed=0, count=2)(np.array([[3.0]])).shape == (1, 2)


def test_a_moved_correlation_has_fishers_p_value() -> None:
    a, b = Correlation(103, 0.5), Correlation(203, 0.2)
    z = (np.arctanh(0.5) - np.arctanh(0.2)) / np.sqrt(1 / 100 + 1 / 200)
    assert moved(a, b) == pytest.approx(np.arctanh(0.5) - np.arctanh(0.2))
    assert moved_tail(a, b) == pytest.approx(2 * stats.norm.sf(z))
    assert moved_tail(Correlation(3, 1.0), b) == 1.0
    with pytest.raises(BinsMismatch):
        Correlation(3, 1.5)


def test_correlations_of_heavy_tails_keep_their_level_only_with_their_spread() -> None:
    random = np.random.default_rng(8)
    count = replications(500)
    careful = careless = 0
    for _ in range(count):
        pair = []
        for rows in (2_000, 1_000):
            x = random.lognormal(0, 0.8, rows)
            pair.append(correlation_of(x, x * random.lognormal(0, 0.8, rows)))
        careful += moved_tail(*pair) <= 0.01
        careless += moved_tail(*(Correlation(c.rows, c.value) for c in pair)) <= 0.01
    assert careless > 0.15 * count
    assert careful < 0.06 * count  # near its level of 0.01: fourth moments of such tails are themselves uncertain
    assert correlation_of([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]).value == 0
    assert grid_bins([]).total == 0
