"""One look over all subjects: who has drifted, ranked, and what could not be said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drift_samples import draw_all
from hypothesis import example, given
from hypothesis import strategies as st

from runtime.drift.binned import Apart, BinsMismatch, CategoryBins, NumericBins, RateCounts, grid_bins
from runtime.drift.cells import new_categories, numeric_cells
from runtime.drift.correlation import Correlation
from runtime.drift.evaluate import JOINT, Parameters, Sample, evaluate, follow
from runtime.drift.evidence import Evidence
from runtime.drift.of_sketches import exact_moments
from runtime.drift.projection import projection_bins
from runtime.drift.verdict import Alarm, Aspect, Decision, Hysteresis, Role
from runtime.sketch.exponential import ExponentialHistogram
from runtime.sketch.moments import Moments

RANDOM = np.random.default_rng(0)
NORMAL = RANDOM.normal(size=20_000)


def look(reference: dict, live: dict, **more: object) -> object:
    return evaluate(Sample("sha256:ab", reference), Sample("window", live, 100.0, 160.0), **more)


def test_the_feature_that_moved_is_ranked_first_and_named_with_all_that_is_asked_for() -> None:
    reference = {"a": grid_bins(NORMAL), "b": grid_bins(NORMAL), "c": grid_bins(NORMAL)}
    live = {
        "a": grid_bins(RANDOM.normal(size=5_000)),
        "b": grid_bins(RANDOM.normal(0.3, 1, 5_000)),
        "c": grid_bins(RANDOM.normal(1.0, 1, 5_000)),
    }
    report = look(reference, live)
    assert [verdict.subject for verdict in report.verdicts] == ["c", "b", "a"]
    assert report.drifted == ("c", "b")
    assert report.decision is Decision.DRIFTED
    assert report.of("a").decision is Decision.STABLE
    assert (report.reference, report.window, report.hypotheses) == ("sha256:ab", "window", 3)
    ks = next(effect for effect in report.of("c").finding.effects if effect.measure == "KS")
    assert ks.low <= 0.3829 + 0.02
    assert ks.high >= 0.3829 - 0.02
    assert "8,640 looks with probability of at most 0.05" in report.guarantee


def test_ten_million_rows_of_a_change_of_no_consequence_are_stable_and_a_hundred_say_nothing() -> None:
    edges = numeric_cells(grid_bins(NORMAL)).boundaries
    counts = np.full(edges.size - 1, 500_000)
    slightly = counts.copy()
    slightly[0], slightly[-1] = 490_000, 510_000
    report = look({"a": NumericBins(edges, counts)}, {"a": NumericBins(edges, slightly)})
    assert report.of("a").finding.p_adjusted < 1e-9
    assert report.decision is Decision.STABLE
    report = look({"a": grid_bins(NORMAL)}, {"a": grid_bins(RANDOM.normal(size=100))})
    assert any(effect.large for effect in report.of("a").finding.effects)
    assert report.decision is Decision.NOT_ENOUGH_DATA


@pytest.mark.parametrize(
    ("apart", "aspect"),
    [
        (Apart(missing=100), Aspect.MISSING),
        (Apart(nan=100), Aspect.NAN),
        (Apart(positive_infinity=50, negative_infinity=50), Aspect.INFINITE),
        (Apart(out_of_range=100), Aspect.OUT_OF_RANGE),
    ],
)
def test_rows_apart_are_compared_as_rates(apart: Apart, aspect: Aspect) -> None:
    bins = grid_bins(RANDOM.normal(size=1_900))
    report = look({"a": grid_bins(NORMAL)}, {"a": NumericBins(bins.edges, bins.counts, apart=apart)})
    assert report.of("a").finding.aspect is aspect
    assert report.of("a").finding.strongest.value == pytest.approx(0.05)
    assert report.of("a").decision is Decision.DRIFTED


def test_a_feature_that_is_all_missing_has_drifted_though_no_value_can_be_compared() -> None:
    nothing = NumericBins(np.empty(0), np.empty(0), apart=Apart(missing=500))
    verdict = look({"a": grid_bins(NORMAL)}, {"a": nothing}).of("a")
    assert (verdict.decision, verdict.finding.aspect) == (Decision.DRIFTED, Aspect.MISSING)
    assert look({"a": grid_bins(NORMAL)}, {"a": grid_bins([])}).decision is Decision.NOT_ENOUGH_DATA


def test_a_constant_that_changes_and_an_integer_between_known_ones_are_found() -> None:
    report = look({"a": grid_bins(np.full(5_000, 7.0))}, {"a": grid_bins(np.full(200, 8.0))})
    assert report.of("a").decision is Decision.DRIFTED
    report = look(
        {"a": grid_bins(RANDOM.choice([0.0, 10.0], 5_000))}, {"a": grid_bins(RANDOM.choice([0.0, 5.0, 10.0], 5_000))}
    )
    assert report.of("a").decision is Decision.DRIFTED


def test_categories_are_compared_by_share_and_new_ones_by_their_rate() -> None:
    reference = CategoryBins({"red": 6_000, "green": 3_000, "blue": 1_000})
    same = CategoryBins({"red": 610, "green": 290, "blue": 100})
    turned = CategoryBins({"red": 300, "green": 600, "blue": 100})
    new = CategoryBins({"red": 588, "green": 294, "blue": 98, "mauve": 20})
    report = look({"s": reference, "t": reference, "n": reference}, {"s": same, "t": turned, "n": new})
    assert report.drifted == ("t", "n")
    assert report.of("n").finding.aspect is Aspect.NEW_CATEGORY
    assert report.of("n").finding.note == "2.000% where 0.000% were expected"
    assert report.of("t").finding.note == "red: 30.000% where 60.000% were expected"


def test_endless_categories_are_not_new_at_every_look() -> None:
    def names(rows: int) -> CategoryBins:
        drawn = RANDOM.zipf(1.3, rows)
        values, counts = np.unique(drawn, return_counts=True)
        return CategoryBins({str(v): int(c) for v, c in zip(values, counts, strict=True)})

    reference, live = names(5_000), names(5_000)
    new = new_categories(reference, live)
    assert new.live > 500  # more than one row in ten
    assert look({"user": reference}, {"user": live}).decision is not Decision.DRIFTED


def test_rates_and_latencies_of_the_service_are_subjects_like_others() -> None:
    roles = {"errors": Role.SERVICE, "latency": Role.SERVICE}
    reference = Sample(
        "r", {"errors": RateCounts(20, 20_000), "latency": grid_bins(RANDOM.lognormal(0, 1, 20_000))}, roles=roles
    )
    live = Sample("w", {"errors": RateCounts(60, 2_000), "latency": grid_bins(RANDOM.lognormal(0.5, 1, 2_000))})
    report = evaluate(reference, live)
    assert set(report.drifted) == {"errors", "latency"}
    assert report.of("errors").role is Role.SERVICE


def test_moved_correlations_and_rows_told_apart_are_found() -> None:
    def rows(rho: float, count: int) -> np.ndarray:
        x = RANDOM.normal(size=(count, 4))
        x[:, 1] = rho * x[:, 0] + np.sqrt(1 - rho**2) * x[:, 1]
        return x

    columns = ("a", "b", "c", "d")
    reference = Sample("r", {}, correlations={"a": Correlation(9_000, 0.6)}, rows=rows(0.7, 4_000), columns=columns)
    live = Sample("w", {}, correlations={"a": Correlation(3_000, 0.1)}, rows=rows(-0.7, 2_000), columns=columns)
    report = evaluate(reference, live)
    assert set(report.drifted) == {"a", JOINT}
    assert report.of(JOINT).finding.note.startswith("a × b -")
    same = evaluate(reference, Sample("w", {}, rows=rows(0.7, 4_000), columns=columns))
    assert same.decision is Decision.STABLE
    assert same.uncompared == ("a",)
    with pytest.raises(BinsMismatch):
        evaluate(reference, Sample("w", {}, rows=rows(0.7, 2_000), columns=("b", "a", "c", "d")))


def test_few_rows_of_projections_and_classifier_do_not_make_a_model_of_stable_features_unknown() -> None:
    columns = ("a", "b")
    x, y = RANDOM.normal(size=(1_024, 2)), RANDOM.normal(size=(1_024, 2))
    ours, theirs = projection_bins(x, y, seed=0, count=2)
    roles = dict.fromkeys(ours, Role.PROJECTION)
    stable = {"a": grid_bins(NORMAL), "b": grid_bins(NORMAL)}
    reference = Sample("r", stable | ours, roles=roles, rows=x, columns=columns)
    report = evaluate(reference, Sample("w", stable | theirs, rows=y, columns=columns))
    assert report.of(JOINT).decision is Decision.NOT_ENOUGH_DATA
    assert report.of("projection 0").role is Role.PROJECTION
    assert report.decision is Decision.STABLE
    turned = evaluate(reference, Sample("w", stable | theirs, rows=y @ [[1, 1], [0, 1]], columns=columns))
    assert turned.decision is Decision.DRIFTED
    alone = evaluate(Sample("r", {}, rows=x, columns=columns), Sample("w", {}, rows=y, columns=columns))
    assert alone.decision is Decision.NOT_ENOUGH_DATA


def test_what_only_one_side_has_is_named_and_other_kinds_are_refused() -> None:
    report = look({"a": grid_bins(NORMAL), "b": grid_bins(NORMAL)}, {"a": grid_bins(NORMAL), "z": grid_bins(NORMAL)})
    assert report.uncompared == ("b", "z")
    with pytest.raises(BinsMismatch, match="a: expected one kind"):
        look({"a": grid_bins(NORMAL)}, {"a": CategoryBins({"x": 1})})
    assert look({}, {}).decision is Decision.NOT_ENOUGH_DATA


def test_parameters_that_mean_nothing_are_refused() -> None:
    for bad in ({"level": 0.0}, {"level": 1.0}, {"looks": 0}):
        with pytest.raises(ValueError, match="expected"):
            Parameters(**bad)


def test_alarms_follow_reports_and_say_since_when() -> None:
    reference = {"a": grid_bins(NORMAL)}
    drifted = {"a": grid_bins(RANDOM.normal(1, 1, 3_000))}
    alarms: dict[str, Alarm] = {"gone": Alarm()}
    seen = []
    for at in range(3):
        report = evaluate(Sample("r", reference), Sample("w", drifted, 10.0 * at, 10.0 * at + 10))
        report, alarms = follow(report, alarms, Hysteresis(2, 2))
        seen.append((report.of("a").alarmed, report.of("a").since_seconds))
    assert seen == [(False, 0.0), (True, 0.0), (True, 0.0)]
    assert set(alarms) == {"a", "gone"}


def test_a_look_over_thirty_features_has_a_verdict_for_each() -> None:
    random = np.random.default_rng(4)
    report = look(draw_all(random, 20_000), draw_all(random, 5_000))
    assert len(report.verdicts) == 30
    assert report.decision is not Decision.DRIFTED


def with_moments(values: list[float]) -> NumericBins:
    """As sketches give them: none, where squares are beyond float64."""
    bins, moments = grid_bins(values), Moments()
    moments.observe(values)
    exact = exact_moments(ExponentialHistogram.of(np.array(values, np.float64)), moments)
    return replace(bins, exact=exact)


VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, 5e-324, -1e-310, 1.7e308, -1.7e308, np.nan, np.inf, -np.inf, 1.0, 1e-200]),
    st.floats(width=64),
)


@example([], [-1.7e308, -0.5], 1)  # and one from the largest number to next to none
@example([], [1.7e308, -1.7e308], 1)  # one bin wider than the largest number
@given(st.lists(VALUES, max_size=40), st.lists(VALUES, max_size=40), st.integers(1, 3_000))
def test_any_numbers_at_all_have_a_verdict_and_no_warning(one: list[float], other: list[float], times: int) -> None:
    reference, live = with_moments(one * times), with_moments(other)
    assert (reference.rows, live.rows) == (len(one) * times, len(other))
    report = look({"a": reference}, {"a": live})
    for finding in report.of("a").findings:
        assert 0 <= finding.p <= finding.p_adjusted <= 1
        for effect in finding.effects:
            assert not np.isnan([effect.value, effect.low, effect.high, effect.floor, effect.critical]).any()
            assert 0 <= effect.low <= effect.high
    assert report.of("a").sentence()
    assert Evidence.of({"a": reference}).after({"a": live}).log_e("a") < np.inf


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 2_000)),
    st.dictionaries(st.text(max_size=1), st.integers(0, 9)),
)
def test_any_categories_at_all_have_a_verdict(one: dict[str, int], other: dict[str, int]) -> None:
    report = look({"a": CategoryBins(one, 3)}, {"a": CategoryBins(other)})
    assert all(0 <= finding.p <= 1 for finding in report.of("a").findings)
