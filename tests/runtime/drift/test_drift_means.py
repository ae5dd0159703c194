"""What moves inside of a bin: found by exact moments, at or under the level for tails of any kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from drift_samples import replications
from scipy import stats

from runtime.drift.binned import BinsMismatch, ExactMoments, NumericBins, grid_bins
from runtime.drift.evaluate import DriftReport, Parameters, Sample, evaluate
from runtime.drift.means import NOTHING, beside_constant, mean_moved, spread_moved
from runtime.drift.verdict import Aspect, Decision

Draw = Callable[[np.random.Generator, int], np.ndarray]

TAILS: dict[str, Draw] = {
    "normal": lambda random, n: random.normal(size=n),
    "exponential": lambda random, n: random.exponential(size=n),
    "lognormal": lambda random, n: random.lognormal(0, 2, n),
    "pareto": lambda random, n: random.pareto(1.5, n),
    "student": lambda random, n: random.standard_t(3, n),
    "rare flag": lambda random, n: (random.random(n) < 0.01) * 1.0,
    "flag": lambda random, n: (random.random(n) < 0.3) * 1.0,
}


def moments_of(values: np.ndarray) -> ExactMoments:
    variance = values.var(ddof=1) if values.size > 1 else 0.0
    return ExactMoments(values.size, float(values.mean()), float(variance), float(values.min()), float(values.max()))


def bins_of(values: np.ndarray, *, exact: bool = True) -> NumericBins:
    bins = grid_bins(values)
    return NumericBins(bins.edges, bins.counts, bins.points, exact=moments_of(values) if exact else None)


def look(reference: np.ndarray, live: np.ndarray, *, exact: bool = True, looks: int = 8_640) -> DriftReport:
    sides = [bins_of(values, exact=exact) for values in (reference, live)]
    return evaluate(Sample("r", {"a": sides[0]}), Sample("w", {"a": sides[1]}), Parameters(looks=looks))


KELVIN = np.random.default_rng(0).normal(293, 0.5, 50_000)
SECONDS = np.random.default_rng(1).normal(1.78e9, 3_600, 50_000)


@pytest.mark.parametrize(("reference", "sigma"), [(KELVIN, 0.5), (SECONDS, 3_600)], ids=["293 K", "seconds since 1970"])
def test_a_feature_that_varies_within_one_bucket_is_judged_by_its_moments(reference: np.ndarray, sigma: float) -> None:
    random = np.random.default_rng(2)
    mean = float(reference.mean())
    same = random.normal(mean, sigma, 5_000)
    for live, aspect in (
        (same + 0.2 * sigma, Aspect.MEAN),
        (same + 3 * sigma, Aspect.MEAN),
        (mean + (same - mean) * 1.5, Aspect.SPREAD),
        (mean + (same - mean) * 0.6, Aspect.SPREAD),
        (np.full(5_000, mean), Aspect.SPREAD),
    ):
        verdict = look(reference, live).of("a")
        assert verdict.decision is Decision.DRIFTED
        assert aspect in {finding.aspect for finding in verdict.findings if finding.decide(0.05) is Decision.DRIFTED}
    verdict = look(reference, same).of("a")
    assert (verdict.decision, verdict.finding.aspect) == (Decision.STABLE, Aspect.MEAN)
    assert "difference of means" in verdict.sentence()


def test_without_moments_such_a_feature_is_not_called_stable() -> None:
    verdict = look(KELVIN, np.random.default_rng(3).normal(293, 0.5, 5_000), exact=False).of("a")
    assert verdict.decision is Decision.NOT_ENOUGH_DATA
    assert "may lie inside of bins" in verdict.finding.note
    few = look(KELVIN, np.random.default_rng(4).normal(293, 0.5, 60)).of("a")
    assert few.decision is Decision.NOT_ENOUGH_DATA


def test_what_bins_tell_is_left_to_them() -> None:
    """No hypothesis more, for features that spread over many bins."""
    random = np.random.default_rng(5)
    report = look(random.normal(size=5_000), random.normal(size=5_000))
    assert (report.hypotheses, report.of("a").finding.aspect) == (1, Aspect.SHAPE)


def test_constants_are_stable_while_they_are_the_same() -> None:
    seven = np.full(5_000, 7.0)
    assert look(seven, np.full(300, 7.0)).decision is Decision.STABLE
    assert look(seven, np.full(300, 7.0), exact=False).decision is Decision.NOT_ENOUGH_DATA
    assert look(np.zeros(5_000), np.zeros(300), exact=False).decision is Decision.STABLE  # zero's bin is only zero's
    moved = look(seven, np.full(300, 7.0 * (1 + 1e-9))).of("a")
    assert (moved.decision, moved.finding.aspect) == (Decision.DRIFTED, Aspect.MEAN)
    assert look(seven, np.full(1, 7.0 * (1 + 1e-9))).decision is Decision.NOT_ENOUGH_DATA


def test_a_few_rows_beside_a_constant_are_no_change_and_many_are() -> None:
    seven, live = np.full(5_000, 7.0), np.full(10_000, 7.0)
    live[:50] = 7.01
    assert beside_constant(moments_of(seven), moments_of(live), 1e-6).value == pytest.approx(0.005, abs=0.0002)
    assert look(seven, live).decision is not Decision.DRIFTED
    live[:500] = 7.01
    verdict = look(seven, live).of("a")
    assert (verdict.decision, verdict.finding.aspect) == (Decision.DRIFTED, Aspect.SPREAD)


@pytest.mark.parametrize(("n", "m"), [(20_000, 100), (1_000, 1_000), (1_000, 100), (100, 20_000)])
@pytest.mark.parametrize("name", TAILS)
def test_mean_and_spread_keep_their_level_with_tails_of_any_kind(name: str, n: int, m: int) -> None:
    random = np.random.default_rng([n, m])
    runs = replications(600)
    p_mean, p_spread = [], []
    for _ in range(runs):
        pair = (moments_of(TAILS[name](random, n)), moments_of(TAILS[name](random, m)))
        p_mean.append(mean_moved(*pair, 0.01).p)
        p_spread.append(spread_moved(*pair, 0.01).p)
    for level in (0.05, 0.01, 0.001):
        allowed = stats.binom.isf(1e-4, runs, level)
        assert (np.array(p_mean) <= level).sum() <= allowed
        assert (np.array(p_spread) <= level).sum() <= allowed


def test_welch_alone_would_alarm_of_skewed_tails() -> None:
    """The trap that the larger of two variances avoids."""
    random = np.random.default_rng(6)
    reference, found, ours = random.lognormal(0, 2, 20_000), 0, 0
    for _ in range(1_000):
        live = random.lognormal(0, 2, 100)
        found += stats.ttest_ind(reference, live, equal_var=False).pvalue <= 1e-3
        ours += mean_moved(moments_of(reference), moments_of(live), 1e-3).p <= 1e-3
    assert found > 20
    assert ours <= 8


def test_a_critical_value_is_what_the_test_passes_at() -> None:
    random = np.random.default_rng(7)
    reference, live = moments_of(random.normal(size=4_000)), random.normal(size=1_000)
    critical = mean_moved(reference, moments_of(live), 1e-4).critical
    shifted = moments_of(live - live.mean() + reference.mean + critical * reference.deviation)
    assert mean_moved(reference, shifted, 1e-4).p == pytest.approx(1e-4, rel=0.05)


def test_rounding_is_no_change_and_few_rows_say_nothing() -> None:
    one = ExactMoments(1_000, 1e9, 1e-16, 1e9 - 1e-7, 1e9 + 1e-7)
    other = ExactMoments(1_000, 1e9 + 1e-4, 1e-16, 1e9 - 1e-7, 1e9 + 1e-7)
    assert mean_moved(one, other, 0.01).value == 0
    assert spread_moved(one, other, 0.01) == NOTHING
    few = ExactMoments(5, 3.0, 1.0, 0.0, 9.0)
    assert mean_moved(few, few, 0.01).p == 1
    tiny = ExactMoments(100, 0.0, 0.0, -1e-200, 1e-200)
    assert mean_moved(tiny, tiny, 0.01) == NOTHING


def test_moments_that_are_none_are_refused() -> None:
    for bad in ((0, 0.0, 1.0, 0.0, 1.0), (3, np.inf, 1.0, 0.0, 1.0), (3, 0.0, -1.0, 0.0, 1.0), (3, 0.0, 1.0, 1.0, 0.0)):
        with pytest.raises(BinsMismatch):
            ExactMoments(*bad)
    with pytest.raises(BinsMismatch, match="expected moments of the 3 values"):
        NumericBins(np.array([0.0, 1.0]), np.array([3]), exact=ExactMoments(4, 0.5, 0.1, 0.1, 0.9))
