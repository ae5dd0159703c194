"""One numeric feature: the reference as an area, live rows as a line over it, and where half of each lies below."""

from __future__ import annotations

from markupsafe import Markup

from gateway.report import svg
from gateway.report.axis import Axis, Warp
from gateway.report.counts import Floats, NumericCounts, beyond, fitting_axis, in_steps, step_count
from gateway.report.text import number, share

WIDTH, HEIGHT = 340.0, 150.0
NOTED = 0.01
LEFT, RIGHT, TOP, BOTTOM = 6.0, 334.0, 18.0, 128.0


def histogram(name: str, counts: NumericCounts) -> Markup:
    axis, steps = fitting_axis(counts), step_count(counts)
    live, reference = (in_steps(counts, side, axis, steps) for side in (counts.live, counts.reference))
    top = max(float(live.max()), float(reference.max())) or 1.0
    parts = [*_axis(axis), *_scale(top)]
    if counts.reference.sum():
        parts.append(svg.path([*_outline(reference, top), (RIGHT, BOTTOM), (LEFT, BOTTOM)], class_="reference"))
        parts.append(_median(counts, counts.reference, axis, "reference-median"))
    if counts.live.sum():
        parts.append(svg.path(_outline(live, top), class_="live"))
        parts.append(_median(counts, counts.live, axis, "live-median"))
    return svg.picture(
        f"{name}: live rows against the reference", _in_words(counts), WIDTH, HEIGHT, *parts, class_="plot"
    )


def axis_note(counts: NumericCounts) -> str:
    """What a reader should know of the axis: that it is not linear, and of rows beyond it, from NOTED on."""
    axis = fitting_axis(counts)
    notes = [] if axis.warp is Warp.LINEAR else [f"The axis is {axis.warp.value}."]
    samples = (("live rows", counts.live), ("the reference", counts.reference))
    for end, (side, value) in enumerate((("left", counts.low[0]), ("right", counts.high[-1]))):
        parts = [(word, beyond(counts, rows, axis)[end]) for word, rows in samples if rows.sum()]
        if any(part > NOTED for _, part in parts):
            shares = ", ".join(f"{share(round(part, 4), 1)} of {word}" for word, part in parts)
            notes.append(f"Further {side}, to {number(float(value), 3)}: {shares}.")
    return " ".join(notes)


def _outline(shares: Floats, top: float) -> list[tuple[float, float]]:
    """From the ground up, along the steps, and down again."""
    width = (RIGHT - LEFT) / len(shares)
    points = [(LEFT, BOTTOM)]
    for at, part in enumerate(shares.tolist()):
        y = BOTTOM - (BOTTOM - TOP) * part / top
        points += [(LEFT + at * width, y), (LEFT + (at + 1) * width, y)]
    return [*points, (RIGHT, BOTTOM)]


def _median(counts: NumericCounts, side: Floats, axis: Axis, kind: str) -> Markup:
    x = LEFT + (RIGHT - LEFT) * min(max(axis.place(counts.quantile(side, 0.5)), 0.0), 1.0)
    return svg.line(x, TOP, x, BOTTOM + 3, class_=kind)


def _axis(axis: Axis) -> list[Markup]:
    parts = [svg.line(LEFT, BOTTOM, RIGHT, BOTTOM, class_="axis")]
    for value, label in axis.ticks():
        x = LEFT + (RIGHT - LEFT) * axis.place(value)
        anchor = "start" if x < LEFT + 12 else "end" if x > RIGHT - 12 else "middle"
        parts.append(svg.line(x, BOTTOM, x, BOTTOM + 4, class_="axis"))
        parts.append(svg.text(x, BOTTOM + 16, label, text_anchor=anchor))
    return parts


def _scale(top: float) -> list[Markup]:
    return [
        svg.line(LEFT, TOP, RIGHT, TOP, class_="grid"),
        svg.text(LEFT, TOP - 5, f"{share(round(top, 3), 1)} of rows"),
    ]


def _in_words(counts: NumericCounts) -> str:
    parts = []
    for word, side in (("Live", counts.live), ("Reference", counts.reference)):
        if side.sum():
            low, middle, high = (number(counts.quantile(side, q)) for q in (0.05, 0.5, 0.95))
            parts.append(f"{word}: half of the rows lie below {middle}, nine of ten from {low} to {high}.")
    return " ".join(parts)
