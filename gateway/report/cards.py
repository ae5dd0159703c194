"""What the page has of one feature: its plot, its numbers on both sides, and what was tested of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from gateway.report.counts import NumericCounts, integers, numeric_counts
from gateway.report.effects import (
    bracket_text,
    chance_text,
    critical_text,
    deciding_effect,
    of_aspect,
    threshold_text,
    value_text,
    wants_attention,
)
from gateway.report.histogram import axis_note, histogram
from gateway.report.paired_bars import Pair, category_pairs, paired_bars, pairs_of, shortened
from gateway.report.text import NOTHING, clean, moment, number, p_value, share
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

NOTE_CHARACTERS = 400
FAULTS = (("missing", "missing"), ("NaN", "nan"), ("infinite", "infinite"), ("out of range", "out_of_range"))
SEEN = 0.005
"""From this share of rows on, faults are drawn."""


@dataclass(frozen=True, slots=True)
class Number:
    """One line of figures: of the reference, and of live rows."""

    label: str
    reference: str
    live: str


@dataclass(frozen=True, slots=True)
class Test:
    """One effect of one finding, as texts."""

    aspect: str
    measure: str
    value: str
    bracket: str
    threshold: str
    chance: str
    critical: str
    p: str
    decision: str


@dataclass(frozen=True, slots=True)
class Card:
    name: str
    role: str
    kind: str
    decision: str
    loud: bool
    alarmed: bool
    since: str
    headline: str
    plot: Markup | None
    note: str
    faults: Markup | None
    """Rows that have no place in the plot, where there are enough to be seen."""
    numbers: list[Number]
    faultless: bool
    """No row of either side is missing, NaN, infinite or out of range."""
    tests: list[Test]
    remarks: list[str]


def card(feature: pb.Feature, verdict: pb.DriftVerdict | None) -> Card:
    name = clean(feature.name)
    plot, note = _plot(name, feature)
    faults, pairs = _faults(feature, verdict), _fault_pairs(feature)
    seen = any(max(p.live, p.reference or 0.0) >= SEEN for p in pairs)
    return Card(
        name=name,
        role=clean(feature.role, 20),
        kind=clean(feature.kind, 20),
        decision=clean(verdict.decision, 30) if verdict is not None else "",
        loud=verdict is not None and wants_attention(verdict),
        alarmed=verdict is not None and verdict.alarmed,
        since=moment(verdict.since) if verdict is not None and verdict.HasField("since") else "",
        headline=headline(verdict),
        plot=plot,
        note=note,
        faults=paired_bars(f"{name}: rows without a value to draw", pairs) if seen else None,
        numbers=[*_figures(feature), *faults],
        faultless=not faults and bool(feature.live.rows),
        tests=tests(verdict),
        remarks=remarks(verdict),
    )


def headline(verdict: pb.DriftVerdict | None) -> str:
    """As "new category, difference of shares 0.07, threshold 0.01"; empty without a verdict."""
    effect = deciding_effect(verdict) if verdict is not None else None
    if verdict is None or effect is None:
        return ""
    aspect = clean(verdict.findings[0].aspect, 40)
    what = clean(effect.measure, 40) if aspect == "distribution" else f"{aspect}, {clean(effect.measure, 40)}"
    return f"{what} {value_text(effect)}, threshold {threshold_text(effect)}"


def tests(verdict: pb.DriftVerdict | None) -> list[Test]:
    return [
        Test(
            clean(finding.aspect, 40), clean(effect.measure, 40), value_text(effect), bracket_text(effect),
            threshold_text(effect), chance_text(effect), critical_text(effect), p_value(finding.p_adjusted),
            clean(finding.decision, 30),
        )
        for finding in (verdict.findings if verdict is not None else [])
        for effect in finding.effects
    ]  # fmt: skip


def remarks(verdict: pb.DriftVerdict | None) -> list[str]:
    return [clean(f.note, NOTE_CHARACTERS) for f in (verdict.findings if verdict is not None else []) if f.note]


def _plot(name: str, feature: pb.Feature) -> tuple[Markup | None, str]:
    counts, title = numeric_counts(feature.bins), f"{name}: live rows against the reference"
    if counts is None:
        pairs = category_pairs(feature)
        return (paired_bars(title, pairs), "") if pairs else (None, "No rows to draw.")
    if pairs := integer_pairs(feature, counts):
        return paired_bars(title, pairs), ""
    return histogram(name, counts), axis_note(counts)


def integer_pairs(feature: pb.Feature, counts: NumericCounts) -> list[Pair]:
    """Of few different integers one each by value, and the rest last; none where values are something else."""
    means = (side.mean if side.HasField("mean") else None for side in (feature.live, feature.reference))
    few = integers(counts, *means)
    if not few:
        return []
    pairs = pairs_of(list(zip(map("{:,}".format, few), counts.live.tolist(), counts.reference.tolist(), strict=True)))
    shown = shortened(pairs)
    return [p for p in pairs if p in shown] + [p for p in shown if p not in pairs]


def _figures(feature: pb.Feature) -> list[Number]:
    numbers = [
        _number("mean", feature, lambda s: _optional(s, "mean")),
        _number("deviation", feature, lambda s: _optional(s, "deviation")),
        _number("median", feature, _quantile_of(0.5)),
        _number("1 % … 99 %", feature, lambda s: _span(_quantile_of(0.01, 3)(s), _quantile_of(0.99, 3)(s))),
        _number("range", feature, lambda s: _span(_optional(s, "least", 3), _optional(s, "greatest", 3))),
        _number("different values", feature, lambda s: number(s.distinct, 3) if s.distinct else NOTHING),
        _number("correlation", feature, lambda s: _optional(s, "correlation", 3)),
    ]
    return [n for n in numbers if (n.reference, n.live) != (NOTHING, NOTHING)]


def _span(low: str, high: str) -> str:
    return NOTHING if NOTHING in {low, high} else f"{low} … {high}"


def _fault_pairs(feature: pb.Feature) -> list[Pair]:
    """Of what no plot of values shows."""
    sides = feature.live, feature.reference
    found = []
    for label, field in FAULTS:
        live, reference = (getattr(side, field) / (side.rows or 1) for side in sides)
        if live or reference:
            found.append(Pair(label, live, reference if feature.HasField("reference") else None))
    return found


def _faults(feature: pb.Feature, verdict: pb.DriftVerdict | None) -> list[Number]:
    numbers = [
        _number(label, feature, _share_of(field))
        for label, field in FAULTS
        if getattr(feature.live, field) or getattr(feature.reference, field)
    ]
    new = of_aspect(verdict, "new category")
    if new is not None and new.effects:
        numbers.append(Number("new categories", NOTHING, f"+{share(new.effects[0].value, 1)}"))
    return numbers


def _number(label: str, feature: pb.Feature, text: Callable[[pb.FeatureSummary], str]) -> Number:
    reference = text(feature.reference) if feature.HasField("reference") else NOTHING
    return Number(label, reference, text(feature.live))


def _optional(summary: pb.FeatureSummary, field: str, digits: int = 4) -> str:
    return number(getattr(summary, field), digits) if summary.HasField(field) else NOTHING


def _quantile_of(q: float, digits: int = 4) -> Callable[[pb.FeatureSummary], str]:
    def text(summary: pb.FeatureSummary) -> str:
        return next((number(found.value, digits) for found in summary.quantiles if abs(found.q - q) < 1e-9), NOTHING)

    return text


def _share_of(field: str) -> Callable[[pb.FeatureSummary], str]:
    def text(summary: pb.FeatureSummary) -> str:
        return share(getattr(summary, field), summary.rows)

    return text
