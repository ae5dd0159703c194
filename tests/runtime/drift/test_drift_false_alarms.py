"""Identical distributions: how often anything at all alarms, beside the stated level.

DRIFTGATE_REPLICATIONS=1000 for the full simulation. Binned features are drawn as `drift_samples` says; the classifier
and the projections see rows.
"""

from __future__ import annotations

import numpy as np
import pytest
from drift_samples import draw_all, replications, together
from scipy import stats

from runtime.drift.binned import ExactMoments, NumericBins, grid_bins
from runtime.drift.evaluate import DriftReport, Parameters, Sample, evaluate
from runtime.drift.projection import projections

LEVEL = 0.05
WINDOWS = (100, 1_000, 10_000, 100_000, 1_000_000)
REFERENCES = (1_000, 10_000, 100_000)


def at_or_under(alarms: int, runs: int, level: float = LEVEL) -> bool:
    """Not significantly above the level: one in ten thousand such tests fails by chance if the rate is the level."""
    return alarms <= stats.binom.isf(1e-4, runs, level)


def significant(report: DriftReport, level: float = LEVEL) -> bool:
    """Any hypothesis rejected, whatever its effect: a harder test than an alarm, which needs both."""
    return any(finding.p_adjusted <= level for verdict in report.verdicts for finding in verdict.findings)


@pytest.mark.parametrize("reference_rows", REFERENCES)
@pytest.mark.parametrize("window_rows", WINDOWS)
def test_thirty_features_alarm_together_at_or_under_the_level(window_rows: int, reference_rows: int) -> None:
    random = np.random.default_rng([window_rows, reference_rows])
    runs = replications(20)
    found = alarms = 0
    for _ in range(runs):
        pair = Sample("r", draw_all(random, reference_rows)), Sample("w", draw_all(random, window_rows))
        report = evaluate(*pair, Parameters(level=LEVEL, looks=1))
        found += significant(report)
        alarms += bool(report.drifted)
    print(f"N={reference_rows} M={window_rows}: significant {found}/{runs}, alarms {alarms}/{runs}")
    assert alarms <= found
    assert at_or_under(found, runs)


@pytest.mark.parametrize("window_rows", [100, 2_000, 50_000])
def test_all_looks_at_windows_against_one_reference_alarm_together_at_or_under_the_level(window_rows: int) -> None:
    """Sliding windows of four panes, 40 looks at each reference: the level is for all looks and features."""
    random = np.random.default_rng(window_rows)
    runs, looks, panes = replications(100) // 10, 40, 4
    found = 0
    for _ in range(runs):
        reference = {k: v for i, (k, v) in enumerate(draw_all(random, 10_000).items()) if i % 3 == 0}
        kept, any_found = [], False
        for _ in range(looks):
            kept = [*kept, {k: v for k, v in draw_all(random, window_rows // panes).items() if k in reference}][-panes:]
            window = {k: together([pane[k] for pane in kept]) for k in reference}
            report = evaluate(Sample("r", reference), Sample("w", window), Parameters(level=LEVEL, looks=looks))
            any_found |= significant(report)
        found += any_found
    print(f"M={window_rows}: {found}/{runs} runs of {looks} looks with anything significant")
    assert at_or_under(found, runs)


@pytest.mark.parametrize("window_rows", [200, 1_000])
def test_classifier_and_projections_of_rows_alarm_together_at_or_under_the_level(window_rows: int) -> None:
    """Correlated and heavy-tailed rows; with them every column, since all share the level."""
    random = np.random.default_rng(window_rows)
    features, runs, found = 6, replications(60), 0
    mix = random.normal(size=(features, features))
    names = tuple(f"x{i}" for i in range(features))

    def rows(count: int) -> np.ndarray:
        x = random.normal(size=(count, features)) @ mix
        x[:, 1], x[:, 2] = np.exp(x[:, 1] / 2), np.round(x[:, 2])
        return x

    def summary(x: np.ndarray, project: object) -> Sample:
        subjects = {name: grid_bins(column) for name, column in zip(names, x.T, strict=True)}
        subjects |= {f"projection {i}": grid_bins(column) for i, column in enumerate(project(x).T)}
        return Sample("rows", subjects, rows=x, columns=names)

    for _ in range(runs):
        reference, live = rows(2_000), rows(window_rows)
        project = projections(reference.mean(0), reference.std(0), seed=0)
        report = evaluate(summary(reference, project), summary(live, project), Parameters(level=LEVEL, looks=1))
        found += significant(report)
    print(f"rows M={window_rows}: {found}/{runs}")
    assert at_or_under(found, runs)


NARROW = {
    "kelvin": lambda random, n: random.normal(293, 0.5, n),
    "time": lambda random, n: 1.78e9 + random.exponential(3_600, n),
    "skewed": lambda random, n: 1e4 + random.lognormal(0, 2, n),
    "heavy": lambda random, n: 1e6 + random.pareto(1.5, n),
    "two-sided": lambda random, n: 1e4 + random.standard_t(2.5, n),
    "rare": lambda random, n: 1e3 + (random.random(n) < 0.003),
    "flag": lambda random, n: 1e3 + (random.random(n) < 0.3),
    "constant": lambda random, n: np.full(n, 21.5),
    "wide": lambda random, n: random.normal(100, 15, n),
    "count": lambda random, n: random.poisson(500, n) * 1.0,
}
"""Features that vary within a bucket or few: judged by mean and spread."""


@pytest.mark.parametrize("reference_rows", [1_000, 20_000])
@pytest.mark.parametrize("window_rows", [100, 1_000, 20_000])
def test_features_that_are_judged_by_their_moments_alarm_together_at_or_under_the_level(
    window_rows: int, reference_rows: int
) -> None:
    random = np.random.default_rng([window_rows, reference_rows])
    runs, found, alarms = replications(60), 0, 0

    def sample(rows: int) -> Sample:
        subjects = {}
        for name, draw in NARROW.items():
            values = draw(random, rows)
            bins = grid_bins(values)
            exact = ExactMoments(rows, values.mean(), values.var(ddof=1), values.min(), values.max())
            subjects[name] = NumericBins(bins.edges, bins.counts, bins.points, exact=exact)
        return Sample(f"{rows} rows", subjects)

    for _ in range(runs):
        report = evaluate(sample(reference_rows), sample(window_rows), Parameters(level=LEVEL, looks=1))
        assert report.hypotheses == 3 * len(NARROW)
        found += significant(report)
        alarms += bool(report.drifted)
    print(f"moments N={reference_rows} M={window_rows}: significant {found}/{runs}, alarms {alarms}/{runs}")
    assert at_or_under(found, runs)
