"""Which subjects have changed most: the rows of the ranking, each a bar in thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from gateway.report import svg
from gateway.report.effects import (
    bracket_text,
    chance_text,
    deciding,
    deciding_effect,
    in_thresholds,
    threshold_text,
    value_text,
    wants_attention,
)
from gateway.report.text import clean, p_value
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

CALM_ROWS, MOST_ROWS = 10, 25
LINEAR_TO = 12.0
"""Thresholds; beyond, the scale is logarithmic, or a broken unit would leave nothing to see of all else."""
MOST_THRESHOLDS = 1e9
"""What is beyond ends there: of a broken reference an effect may be the largest number that there is."""
WIDTH, HEIGHT = 1000.0, 16.0


@dataclass(frozen=True, slots=True)
class Scale:
    """Places of effects in thresholds, 0 to 1."""

    most: float

    def place(self, thresholds: float) -> float:
        at = min(max(thresholds, 0.0), self.most)
        return at / self.most if self.most <= LINEAR_TO else math.asinh(at) / math.asinh(self.most)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """The place of each and its text."""
        if self.most <= LINEAR_TO:
            step = 1 if self.most <= 6 else 2
            values = [float(v) for v in range(0, math.floor(self.most) + 1, step)]
            if 1.0 not in values:
                values.insert(1, 1.0)
        else:
            values = [0.0, *(10.0**e for e in range(math.floor(math.log10(self.most)) + 1))]
        return [(self.place(value), f"{value:,.0f}") for value in values]


@dataclass(frozen=True, slots=True)
class Row:
    """One subject as the ranking shows it. Texts are clean; `bar` is its picture."""

    subject: str
    role: str
    decision: str
    alarmed: bool
    aspect: str
    measure: str
    value: str
    bracket: str
    threshold: str
    chance: str
    p: str
    bar: Markup
    by_evidence: bool


@dataclass(frozen=True, slots=True)
class Ranking:
    rows: list[Row]
    scale: Scale
    hidden: int


def ranking(verdicts: Sequence[pb.DriftVerdict], most: int = MOST_ROWS) -> Ranking:
    """In the gateway's order: what wants attention, then at most CALM_ROWS more."""
    loud = [v for v in verdicts if wants_attention(v)]
    shown = (loud + [v for v in verdicts if not wants_attention(v)][:CALM_ROWS])[:most]
    scale = scale_of(shown)
    return Ranking([_row(verdict, scale) for verdict in shown], scale, len(verdicts) - len(shown))


def scale_of(verdicts: Sequence[pb.DriftVerdict]) -> Scale:
    largest = [
        min(in_thresholds(e.low, e), MOST_THRESHOLDS)
        for verdict in verdicts
        if (e := deciding_effect(verdict)) is not None and math.isfinite(e.low)
    ]
    return Scale(max([1.5, *(value * 1.04 for value in largest)]))


def _row(verdict: pb.DriftVerdict, scale: Scale) -> Row:
    finding, effect = deciding(verdict), deciding_effect(verdict)
    effect = effect if effect is not None else pb.DriftEffect()
    return Row(
        subject=clean(verdict.subject),
        role=clean(verdict.role, 30),
        decision=clean(verdict.decision, 30),
        alarmed=verdict.alarmed,
        aspect=clean(finding.aspect, 40) if finding is not None else "",
        measure=clean(effect.measure, 40),
        value=value_text(effect),
        bracket=bracket_text(effect),
        threshold=threshold_text(effect),
        chance=chance_text(effect),
        p=p_value(finding.p_adjusted) if finding is not None else "",
        bar=_bar(verdict, effect, scale),
        by_evidence=verdict.alarmed_by_evidence,
    )


def _bar(verdict: pb.DriftVerdict, effect: pb.DriftEffect, scale: Scale) -> Markup:
    """Stretched to its column, so no text is in it. Grey: how far chance goes; a tick: what it gives on average."""
    places = [scale.place(in_thresholds(value, effect)) * WIDTH for value in (effect.low, effect.high)]
    low, high = places
    floor, critical = (scale.place(in_thresholds(v, effect)) * WIDTH for v in (effect.floor, effect.critical))
    threshold = scale.place(1.0) * WIDTH
    kind = "bar-loud" if wants_attention(verdict) else "bar-calm"
    parts = [
        svg.rectangle(0.0, 0.0, critical, HEIGHT, class_="chance-reach"),
        svg.rectangle(0.0, 3.0, max(low, 2.0), HEIGHT - 6, class_=kind),
        svg.line(floor, 0.0, floor, HEIGHT, class_="chance"),
        svg.line(threshold, 0.0, threshold, HEIGHT, class_="threshold"),
    ]
    if high - low > 1:
        parts.append(svg.line(low, HEIGHT / 2, min(high, WIDTH), HEIGHT / 2, class_="bracket"))
    words = (
        f"{clean(effect.measure, 40)} {value_text(effect)}, threshold {threshold_text(effect)}, "
        f"{chance_text(effect)} by chance"
    )
    return svg.picture(clean(verdict.subject), words, WIDTH, HEIGHT, *parts, preserveAspectRatio="none", class_="bar")
