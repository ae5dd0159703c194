"""Correlations of ranks: scipy's values, and p-values that tails do not spoil."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from drift_samples import replications
from scipy import stats

from runtime.drift.binned import BinsMismatch
from runtime.drift.correlation import Correlation, moved_tail, rank_correlation_of, rank_correlations

Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


def tails(random: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    x = random.lognormal(0, 2, rows)
    return x, x + 5 * random.standard_t(1.5, rows)


def flag(random: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    x = random.normal(size=rows)
    return np.round(x, 1), (x + random.normal(size=rows) > 1.2) * 1.0


def turning(random: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    x = random.normal(size=rows)
    return x, x * random.normal(size=rows)


def test_it_is_spearmans_with_ties_and_without_what_is_not_finite() -> None:
    random = np.random.default_rng(0)
    for draw in (tails, flag, turning):
        x, y = draw(random, 500)
        told = rank_correlation_of(np.append(x, [np.nan, 1.0]), np.append(y, [1.0, np.inf]))
        assert told.rows == 500
        assert told.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_columns_that_hardly_vary_tell_nothing() -> None:
    random = np.random.default_rng(1)
    x, rare = random.normal(size=1_000), np.zeros(1_000)
    rare[:29] = 1.0
    assert rank_correlation_of(x, rare) == Correlation(0, 0.0)
    assert moved_tail(rank_correlation_of(x, rare), rank_correlation_of(x, x)) == 1.0
    rare[29] = 1.0
    assert rank_correlation_of(x, rare).rows == 1_000
    assert rank_correlation_of([], []) == Correlation(0, 0.0)


@pytest.mark.parametrize("live_rows", [1_024, 300])
@pytest.mark.parametrize("draw", [tails, flag, turning])
def test_p_values_keep_their_level_where_those_of_pearsons_do_not(draw: Draw, live_rows: int) -> None:
    random = np.random.default_rng(live_rows)
    runs = replications(400)
    p = []
    for _ in range(runs):
        pair = rank_correlation_of(*draw(random, 1_024)), rank_correlation_of(*draw(random, live_rows))
        p.append(moved_tail(*pair))
    for level in (0.05, 0.01, 0.001):
        assert (np.array(p) <= level).sum() <= stats.binom.isf(1e-4, runs, 1.2 * level)


def test_each_column_has_its_correlation_with_the_prediction() -> None:
    random = np.random.default_rng(2)
    rows = random.normal(size=(600, 3))
    rows[:, 2] += rows[:, 0]
    rows[::50, 1] = np.nan
    told = rank_correlations(rows, ("a", "b", "p"), "p")
    assert set(told) == {"a", "b"}
    assert told["a"] == rank_correlation_of(rows[:, 0], rows[:, 2])
    assert (told["b"].rows, told["a"].rows) == (588, 600)
    for columns, prediction in ((("a", "b"), "a"), (("a", "b", "c"), "p")):
        with pytest.raises(BinsMismatch, match="one of them"):
            rank_correlations(rows, columns, prediction)
