"""Drift over time: a line for each of the subjects that changed most, the threshold, and when each was alarmed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup

from gateway.report import svg
from gateway.report.effects import DRIFTED, NOT_ENOUGH, STABLE
from gateway.report.ranking import MOST_THRESHOLDS, Scale
from gateway.report.text import age, clean, counted, number, seconds_of
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

MOST_LINES = 6
"""As many as can be told apart by colour and dashes."""
MOST_POINTS = 300
WIDTH, HEIGHT, RIBBON = 1000.0, 260.0, 14.0
TOTAL = HEIGHT + 6 + RIBBON
RIBBONS = {
    DRIFTED: ("ribbon-loud", RIBBON), STABLE: ("ribbon-calm", RIBBON / 1.7), NOT_ENOUGH: ("ribbon-unknown", RIBBON / 4),
}  # fmt: skip
"""The height tells what the colour does."""
Place = Callable[[float], float]
TICK_SECONDS = (60, 300, 600, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 2_592_000)


@dataclass(frozen=True, slots=True)
class Entry:
    """Of the legend. `style` picks colour and dashes, 0 to MOST_LINES - 1."""

    subject: str
    style: int
    swatch: Markup
    alarmed: bool


@dataclass(frozen=True, slots=True)
class Label:
    """A text beside the plot, `place` in percent of its width or height."""

    place: float
    text: str


@dataclass(frozen=True, slots=True)
class Timeline:
    picture: Markup
    entries: list[Entry]
    across: list[Label]
    up: list[Label]
    threshold: float
    """Its place from the top, in percent."""
    grey: int
    """Further subjects, drawn as thin grey lines."""
    has_ribbon: bool
    marks_raised: bool
    """Dots stand where alarms were raised; else, where that is not told, since when they stand."""


@dataclass(frozen=True, slots=True)
class _Look:
    seconds: float
    effects: list[float]
    alarmed: list[bool]
    decision: str


def timeline(report: pb.DriftReport) -> Timeline | None:
    """None with fewer than two looks: there is no line between them."""
    looks = _looks(report)
    if len(looks) < 2 or looks[0].seconds >= looks[-1].seconds:
        return None
    start, end = looks[0].seconds, looks[-1].seconds
    scale = Scale(
        max([1.5, *(1.04 * min(e, MOST_THRESHOLDS) for look in looks for e in look.effects if math.isfinite(e))])
    )
    subjects = list(report.history_subjects)
    tells = any(any(look.alarmed) for look in looks)
    since = {v.subject: seconds_of(v.since) for v in report.verdicts if v.HasField("since")}
    loud = {v.subject for v in report.verdicts if v.alarmed or v.alarmed_by_evidence} | {
        name for at, name in enumerate(subjects) if any(look.alarmed[at] for look in looks)
    }
    coloured = [at for at, name in enumerate(subjects) if name in loud][:MOST_LINES]
    first_style = 0
    if not coloured and subjects:
        coloured, first_style = [0], MOST_LINES - 1  # nothing alarms: no line in the colour of alarms

    def x(seconds: float) -> float:
        return WIDTH * (seconds - start) / (end - start)

    def y(effect: float) -> float:
        return HEIGHT * (1 - scale.place(effect))

    parts = [
        svg.line(0.0, HEIGHT * (1 - place), WIDTH, HEIGHT * (1 - place), class_="grid") for place, _ in scale.ticks
    ]
    parts += [
        svg.path(run, class_="other-line")
        for at in range(len(subjects))
        if at not in coloured
        for run in _runs(looks, at, x, y)
    ]
    parts.append(svg.line(0.0, y(1), WIDTH, y(1), class_="threshold"))
    for style, at in reversed(list(enumerate(coloured, first_style))):
        parts += [svg.path(run, class_=f"line line-{style}") for run in _runs(looks, at, x, y)]
        raised = _raised(looks, at) if tells else _since(looks, at, since.get(subjects[at]))
        places = [(x(seconds), y(effect)) for seconds, effect in raised]
        # A line without length that has round ends: it stays round in a stretched picture.
        parts += [svg.path([place, place], class_=f"raised line-{style}") for place in places]
    parts += _ribbon(looks, x)
    last = [(clean(subjects[at]), looks[-1].effects[at]) for at in coloured]
    drawn = svg.picture(
        "Drift over time",
        _in_words(report, last, end - start),
        WIDTH,
        TOTAL,
        *parts,
        preserveAspectRatio="none",
        class_="timeline",
    )
    return Timeline(
        drawn,
        [Entry(clean(subjects[at], 60), style, _swatch(style), subjects[at] in loud)
         for style, at in enumerate(coloured, first_style)],
        [Label(x(seconds) / WIDTH * 100, text) for seconds, text in _time_ticks(start, end)],
        [Label(100 * HEIGHT * (1 - place) / TOTAL, text) for place, text in scale.ticks],
        100 * y(1) / TOTAL,
        len(subjects) - len(coloured),
        any(look.decision for look in looks),
        tells,
    )  # fmt: skip


def _looks(report: pb.DriftReport) -> list[_Look]:
    """By time, at most MOST_POINTS: of looks that share a point the largest effect of each subject stays."""
    subjects = len(report.history_subjects)
    found = []
    for look in sorted(report.history, key=lambda look: look.time.ToNanoseconds()):
        effects = [*look.effects, *[math.nan] * subjects][:subjects]
        alarmed = [*look.alarmed, *[False] * subjects][:subjects]
        found.append(_Look(seconds_of(look.time), effects, alarmed, look.decision))
    step = math.ceil(len(found) / MOST_POINTS) or 1
    return [_joined(found[at : at + step]) for at in range(0, len(found), step)]


def _joined(looks: Sequence[_Look]) -> _Look:
    last = looks[-1]
    effects = [
        max((e for e in every if not math.isnan(e)), default=math.nan)
        for every in zip(*(look.effects for look in looks), strict=True)
    ]
    return _Look(last.seconds, effects, last.alarmed, last.decision)


def _runs(looks: Sequence[_Look], at: int, x: Place, y: Place) -> list[list[tuple[float, float]]]:
    """Parts of a line between looks that the subject was not in."""
    runs: list[list[tuple[float, float]]] = [[]]
    for look in looks:
        if math.isfinite(look.effects[at]):
            runs[-1].append((x(look.seconds), y(look.effects[at])))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _raised(looks: Sequence[_Look], at: int) -> list[tuple[float, float]]:
    """When, and how large the effect was."""
    raised, before = [], False
    for look in looks:
        if look.alarmed[at] and not before and math.isfinite(look.effects[at]):
            raised.append((look.seconds, look.effects[at]))
        before = look.alarmed[at]
    return raised


def _since(looks: Sequence[_Look], at: int, seconds: float | None) -> list[tuple[float, float]]:
    """The first look from then on: a window's first rows show in no look before its end."""
    later = [look for look in looks if seconds is not None and look.seconds >= seconds]
    return [(look.seconds, look.effects[at]) for look in later if math.isfinite(look.effects[at])][:1]


def _ribbon(looks: Sequence[_Look], x: Place) -> list[Markup]:
    """What each look decided of the model, along the bottom. Height tells what colour does."""
    parts = []
    begin = 0
    for at in range(1, len(looks) + 1):
        if at < len(looks) and looks[at].decision == looks[begin].decision:
            continue
        decision = looks[begin].decision
        left = x(looks[begin].seconds)
        right = x(looks[at].seconds) if at < len(looks) else WIDTH
        if decision in RIBBONS:
            kind, height = RIBBONS[decision]
            parts.append(svg.rectangle(left, TOTAL - height, right - left, height, class_=kind))
        begin = at
    return parts


def _swatch(style: int) -> Markup:
    return svg.element(
        "svg", svg.line(0.0, 5.0, 34.0, 5.0, class_=f"line line-{style}"), viewBox="0 0 34 10", class_="swatch",
        aria_hidden="true",
    )  # fmt: skip


def _time_ticks(start: float, end: float) -> list[tuple[float, str]]:
    step = next((s for s in TICK_SECONDS if (end - start) / s <= 7), TICK_SECONDS[-1] * 12)
    pattern = "%H:%M" if step < 86_400 else "%d %b"
    first = math.ceil(start / step) * step
    moments = [float(first + n * step) for n in range(8) if first + n * step <= end]
    return [(m, datetime.fromtimestamp(m, UTC).strftime(pattern)) for m in moments]


def _in_words(report: pb.DriftReport, last: list[tuple[str, float]], seconds: float) -> str:
    loud = sum(look.decision == DRIFTED for look in report.history)
    effects = ", ".join(f"{name} {number(effect, 2)}" for name, effect in last)
    return (
        f"{counted(len(report.history), 'look')} within {age(seconds)}, {loud} of them with drift. "
        f"Effects of the last look, in thresholds: {effects}."
    )
