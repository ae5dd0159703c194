"""Answers of GetFeatures and GetDrift that are true of some data: real sketches of it, evaluated for real.

A table is a dict of columns: float64[n], or an array of str objects with None where a value is missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.control.feature_answers import numeric_bins
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.drift import evaluate as drift
from runtime.drift.binned import CategoryBins, NumericBins
from runtime.drift.correlation import Correlation, correlation_of
from runtime.drift.of_sketches import frequent_pair, numeric_pair
from runtime.drift.verdict import Alarm, Finding, Role, Verdict
from runtime.sketch.distinct import DistinctCount
from runtime.sketch.exponential import ExponentialHistogram, aligned
from runtime.sketch.frequent import FrequentValues
from runtime.sketch.keys import Keys
from runtime.sketch.moments import Moments

START = 1_750_000_000.0
WINDOW_SECONDS = 600
LOOK_SECONDS = 60.0
DIGEST = "sha256:" + "0123456789abcdef" * 4
PROFILE_DIGEST = "sha256:" + "fedcba9876543210" * 4
SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

Table = Mapping[str, Any]


@dataclass(frozen=True)
class Answers:
    drift: pb.DriftReport
    features: pb.GetFeaturesResponse


def stamp(seconds: float) -> Timestamp:
    message = Timestamp()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def answers(
    reference: Table,
    looks: Sequence[Table],
    *,
    model: str = "breast_cancer",
    outputs: Sequence[str] = (),
    prediction: str = "",
    parameters: drift.Parameters | None = None,
    with_rows: bool = False,
) -> Answers:
    """`looks`: the windows of live rows, one after the other. `prediction`: the column that others correlate with."""
    parameters = parameters or drift.Parameters()
    roles = dict.fromkeys(outputs, Role.OUTPUT)
    alarms: dict[str, Alarm] = {}
    history: list[tuple[drift.DriftReport, dict[str, bool]]] = []
    for number, live in enumerate(looks):
        end = START + number * LOOK_SECONDS
        samples = _samples(reference, live, roles, end, prediction, with_rows=with_rows and number == len(looks) - 1)
        report, alarms = drift.follow(drift.evaluate(*samples, parameters), alarms)
        history.append((report, {name: alarm.raised for name, alarm in alarms.items()}))
    last = history[-1][0]
    window = _window(looks[-1], last)
    compared = _reference(reference)
    shown = [verdict.subject for verdict in last.verdicts][:20]
    report = pb.DriftReport(
        model=model, version=3, digest=DIGEST, reference=compared, window=window, looked_at=stamp(last.end_seconds),
        decision=last.decision.value, verdicts=[_verdict(verdict) for verdict in last.verdicts],
        hypotheses=last.hypotheses, level=last.level, looks=last.looks, guarantee=last.guarantee,
        uncompared=_uncompared(reference, looks[-1]), history_subjects=shown,
        history=[_look(report, raised, live, shown) for (report, raised), live in zip(history, looks, strict=True)],
    )  # fmt: skip
    features = pb.GetFeaturesResponse(
        model=model, version=3, digest=DIGEST, window=window, reference=compared,
        features=[_feature(n, reference, looks[-1], roles, prediction) for n in looks[-1] if n in reference],
        memory_bytes=6_300_000,
    )  # fmt: skip
    return Answers(report, features)


def _uncompared(reference: Table, live: Table) -> list[str]:
    ours = [f"{name}: the reference does not have it" for name in live if name not in reference]
    return ours + [f"{name}: only the reference has it" for name in reference if name not in live]


def without_reference(found: Answers, *, gathered: int = 0, wanted: int = 0) -> Answers:
    """The same rows, compared with nothing."""
    report, features = pb.DriftReport(), pb.GetFeaturesResponse()
    report.CopyFrom(found.drift)
    features.CopyFrom(found.features)
    for field in ("reference", "verdicts", "history", "history_subjects", "decision", "guarantee", "hypotheses"):
        report.ClearField(field)  # type: ignore[arg-type]
    report.problem = "the version has no reference"
    features.ClearField("reference")
    for feature in features.features:
        feature.ClearField("reference")
        for one in feature.bins:
            one.reference = 0
    if wanted:
        gathering = pb.Reference(kind="live", rows_gathered=gathered, rows_wanted=wanted)
        report.reference.CopyFrom(gathering)
        features.reference.CopyFrom(gathering)
        report.problem = f"the reference is being gathered: {gathered} of {wanted} rows"
    return Answers(report, features)


def _samples(
    reference: Table, live: Table, roles: dict[str, Role], end: float, prediction: str, *, with_rows: bool
) -> tuple[drift.Sample, drift.Sample]:
    pairs = {name: _pair(reference[name], live[name]) for name in reference if name in live}
    sides = []
    for side, table, source in ((0, reference, PROFILE_DIGEST), (1, live, "window")):
        bins: dict[str, Any] = {name: pair[side] for name, pair in pairs.items()}
        bins |= {name: _pair(table[name], table[name])[side] for name in table if name not in pairs}
        sample = drift.Sample(source, bins, end - WINDOW_SECONDS, end, roles, _correlations(table, prediction))
        if with_rows:
            columns = tuple(name for name in table if _numeric(table[name]) and name not in roles)
            rows = np.column_stack([table[name] for name in columns])[:2000]
            sample = replace(sample, rows=rows, columns=columns)
        sides.append(sample)
    return sides[0], sides[1]


def _numeric(column: Any) -> bool:
    return bool(column.dtype.kind == "f")


def _correlations(table: Table, prediction: str) -> dict[str, Correlation]:
    if not prediction:
        return {}
    others = [name for name in table if _numeric(table[name]) and name != prediction]
    return {name: correlation_of(table[name], table[prediction]) for name in others}


def _pair(reference: Any, live: Any) -> tuple[Any, Any]:
    if _numeric(reference):
        both: tuple[NumericBins, NumericBins] = numeric_pair(_histogram(reference), _histogram(live))
        return both
    missing = (sum(v is None for v in reference), sum(v is None for v in live))
    pair: tuple[CategoryBins, CategoryBins] = frequent_pair(_frequent(reference), _frequent(live), missing=missing)
    return pair


def _histogram(column: Any) -> ExponentialHistogram:
    return ExponentialHistogram.of(column)


def _frequent(column: Any) -> FrequentValues:
    values = FrequentValues()
    values.observe(Keys.of_texts(column))
    return values


def _reference(table: Table) -> pb.Reference:
    about = {"data": "train.parquet", "rows": str(_rows(table)), "commit": "4f2a9c1"}
    return pb.Reference(
        kind="profile", digest=PROFILE_DIGEST, rows=_rows(table), created_at=stamp(START - 86_400 * 12),
        set_at=stamp(START - 7_200), about=about,
    )  # fmt: skip


def _rows(table: Table) -> int:
    return len(next(iter(table.values())))


def _window(live: Table, report: drift.DriftReport) -> pb.Window:
    return pb.Window(
        seconds=WINDOW_SECONDS, start=stamp(report.start_seconds), end=stamp(report.end_seconds), rows=_rows(live)
    )


def _verdict(verdict: Verdict) -> pb.DriftVerdict:
    findings = [verdict.finding, *(f for f in verdict.findings if f is not verdict.finding)]
    message = pb.DriftVerdict(
        subject=verdict.subject, role=verdict.role.value, decision=verdict.decision.value, alarmed=verdict.alarmed,
        effect=verdict.effect, findings=[_finding(finding) for finding in findings], text=verdict.sentence(),
        compared_with=verdict.reference,
    )  # fmt: skip
    if verdict.since_seconds is not None:
        message.since.CopyFrom(stamp(verdict.since_seconds))
    return message


def _finding(finding: Finding) -> pb.DriftFinding:
    effects = [pb.DriftEffect(**vars(effect)) for effect in finding.effects]
    return pb.DriftFinding(
        aspect=finding.aspect.value, p=finding.p, p_adjusted=finding.p_adjusted, effects=effects, note=finding.note,
        reference_rows=finding.reference_rows, live_rows=finding.live_rows, decision=finding.decide(0.05).value,
    )  # fmt: skip


def _look(report: drift.DriftReport, raised: dict[str, bool], live: Table, shown: list[str]) -> pb.DriftLook:
    effects = {verdict.subject: verdict.effect for verdict in report.verdicts}
    return pb.DriftLook(
        time=stamp(report.end_seconds), rows=_rows(live), decision=report.decision.value,
        effects=[effects.get(name, math.nan) for name in shown], alarmed=[raised.get(name, False) for name in shown],
    )  # fmt: skip


def _feature(name: str, reference: Table, live: Table, roles: dict[str, Role], prediction: str) -> pb.Feature:
    numeric = _numeric(reference[name])
    return pb.Feature(
        name=name,
        role="output" if name in roles else "input",
        kind="numeric" if numeric else "categorical",
        live=_summary(name, live, prediction),
        reference=_summary(name, reference, prediction),
        bins=_bins(reference[name], live[name]),
    )


def _bins(reference: Any, live: Any) -> list[pb.FeatureBin]:
    if _numeric(reference):
        return numeric_bins(_histogram(live), _histogram(reference))
    return _category_bins(reference, live)


def _summary(name: str, table: Table, prediction: str) -> pb.FeatureSummary:
    column = table[name]
    if not _numeric(column):
        values = _frequent(column)
        found = [pb.ValueCount(value=str(v.value), count=v.at_least) for v in values.top(20)]
        missing = sum(value is None for value in column)
        return pb.FeatureSummary(
            rows=len(column), missing=missing, distinct=values.used, values=found,
            other=len(column) - missing - sum(v.count for v in found),
        )  # fmt: skip
    histogram, moments, distinct = _histogram(column), Moments(), DistinctCount()
    moments.observe(column, table[prediction] if prediction else None)
    distinct.observe(column)
    told = moments.summary()
    aside = histogram.aside
    summary = pb.FeatureSummary(
        rows=len(column), nan=aside["nan"], infinite=aside["plus_infinity"] + aside["minus_infinity"],
        zero=histogram.zero, distinct=distinct.estimate(), relative_error=histogram.relative_error,
    )  # fmt: skip
    if histogram.finite:
        summary.mean, summary.deviation = told.mean, math.sqrt(told.variance)
        summary.least, summary.greatest = histogram.minimum, histogram.maximum
        summary.quantiles.extend(
            pb.Quantile(q=q, value=v) for q, v in zip(SHARES, histogram.quantiles(SHARES).tolist(), strict=True)
        )
        if prediction and name != prediction and math.isfinite(told.correlation):
            summary.correlation = told.correlation
    return summary


def fine_bins(reference: Any, live: Any) -> list[pb.FeatureBin]:
    """A bin for each bucket, finer than a gateway answers."""
    theirs, ours = aligned(_histogram(reference), _histogram(live))
    return [
        pb.FeatureBin(low=low, high=high, live=here, reference=there)
        for low, high, here, there in zip(
            theirs.lower.tolist(), theirs.upper.tolist(), ours.counts.tolist(), theirs.counts.tolist(), strict=True
        )
    ]


def _category_bins(reference: Any, live: Any) -> list[pb.FeatureBin]:
    theirs, ours = frequent_pair(_frequent(reference), _frequent(live))
    names = sorted(theirs.counts.keys() | ours.counts.keys(), key=lambda n: -theirs.counts.get(n, 0))
    found = [
        pb.FeatureBin(category=name, live=ours.counts.get(name, 0), reference=theirs.counts.get(name, 0))
        for name in names
    ]
    return found + [pb.FeatureBin(category="other", live=ours.other, reference=theirs.other)] * bool(theirs.other)
