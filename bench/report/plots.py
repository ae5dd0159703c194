"""Kinds of plots, as SVG: bars and lines with the rounds' spread, labelled axes, and nothing else."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from bench.report.figures import Figure

INK, FAINT = "#1b2733", "#c3ccd5"
DARK = {INK: "#e2e8ee", FAINT: "#46515c"}
"""What a page that is dark shows instead; the colours of data stand on both."""

SERIES = ("#2f7fd0", "#d9820f", "#2f9e6e", "#9070cf", "#c9506b", "#7d8896")
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "driftgate",  # ids in the file are the same at each drawing
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.grid.axis": "x",
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}
ERROR = {"ecolor": INK, "elinewidth": 1.0, "capsize": 2.5}
NUMBERS = StrMethodFormatter("{x:,g}")
INCH_A_BAR = 0.26
WIDTH_INCHES = 8.2


@dataclass(frozen=True, slots=True)
class Series:
    """One figure for each category, None where there is none."""

    title: str
    figures: Sequence[Figure | None]


@dataclass(frozen=True, slots=True)
class Panel:
    """Series over the same categories."""

    title: str
    categories: Sequence[str]
    series: Sequence[Series]


def bars(panels: Sequence[Panel], label: str, description: str, *, labels: str = "") -> str:
    """Horizontal bars, panels side by side with the same categories. `labels`: the format of figures beside bars."""
    first = panels[0]
    height = 0.9 + INCH_A_BAR * len(first.categories) * len(first.series) + 0.12 * len(first.categories)
    with _canvas(height + (0.3 if len(first.series) > 1 else 0), description) as (canvas, written):
        axes = canvas.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, panel in zip(axes, panels, strict=True):
            _bars(axis, panel, labels)
            axis.set_xlabel(f"{panel.title}: {label}" if panel.title else label)
        axes[0].set_yticks(range(len(first.categories)), first.categories)
        axes[0].set_ylim(len(first.categories) - 0.4, -0.6)
        _legend(canvas, axes[0], first.series)
    return written[0]


def _bars(axis: Any, panel: Panel, labels: str) -> None:
    thickness = 0.8 / len(panel.series)
    for number, series in enumerate(panel.series):
        known = [(place, each) for place, each in enumerate(series.figures) if each is not None]
        if not known:
            continue
        places = np.array([place for place, _ in known]) + (number - (len(panel.series) - 1) / 2) * thickness
        middles = [each.median for _, each in known]
        axis.barh(
            places, middles, thickness * 0.9, color=SERIES[number], label=series.title,
            xerr=_spread([each for _, each in known]), error_kw=ERROR,
        )  # fmt: skip
        if labels:
            for place, (_, each) in zip(places, known, strict=True):
                axis.annotate(
                    format(each.median, labels), (each.greatest, place), (5, 0), textcoords="offset points", va="center"
                )
    furthest = max((each.greatest for series in panel.series for each in series.figures if each is not None), default=1)
    axis.set_xlim(0, furthest * (1.14 if labels else 1.04))
    axis.xaxis.set_major_formatter(NUMBERS)
    axis.set_axisbelow(True)
    axis.grid(visible=True, axis="x")
    axis.tick_params(axis="y", length=0)


def lines(
    panels: Sequence[Panel], label: str, across: Sequence[str], description: str, *, logarithmic: bool = False
) -> str:
    """Lines over categories in their order, panels side by side. `across`: of each panel, what the categories are."""
    with _canvas(3.2, description) as (canvas, written):
        axes = canvas.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, panel, what in zip(axes, panels, across, strict=True):
            for number, series in enumerate(panel.series):
                known = [(place, each) for place, each in enumerate(series.figures) if each is not None]
                axis.errorbar(
                    [place for place, _ in known], [each.median for _, each in known],
                    yerr=_spread([each for _, each in known]), color=SERIES[number], label=series.title,
                    marker="o", markersize=4, linewidth=1.6, **ERROR,
                )  # fmt: skip
            axis.set_xticks(range(len(panel.categories)), panel.categories)
            axis.set_xlim(-0.3, len(panel.categories) - 0.7)
            axis.set_xlabel(what)
            axis.set_title(panel.title)
            axis.set_axisbelow(True)
            axis.grid(visible=True, axis="y")
            if logarithmic:
                axis.set_yscale("log")
                axis.yaxis.set_minor_formatter(NullFormatter())
            else:
                axis.set_ylim(bottom=0)
            axis.yaxis.set_major_formatter(NUMBERS)
        axes[0].set_ylabel(label)
        _legend(canvas, axes[0], panels[0].series)
    return written[0]


def _legend(canvas: Canvas, axis: Any, series: Sequence[Series]) -> None:
    if len(series) > 1:
        handles, titles = axis.get_legend_handles_labels()
        canvas.legend(handles, titles, loc="outside upper left", ncols=len(series))


def _spread(figures: Sequence[Figure]) -> Any:
    """float64[2, figures]: how far below and above the medians."""
    below = [each.median - each.least for each in figures]
    above = [each.greatest - each.median for each in figures]
    return np.array([below, above])


@contextmanager
def _canvas(height_inches: float, description: str) -> Iterator[tuple[Canvas, list[str]]]:
    """The second of the pair gets the SVG when the drawing is done."""
    written: list[str] = []
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
        yield canvas, written
        buffer = io.StringIO()
        metadata = {"Date": None, "Creator": f"matplotlib {mpl.__version__}", "Description": description}
        canvas.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    written.append(_for_both(buffer.getvalue(), description))


def _for_both(svg: str, description: str) -> str:
    """For light pages and dark ones; with its description where a reader of screens looks for it."""
    rules = "".join(
        f'[style*="fill: {light}"]{{fill:{dark} !important}}[style*="stroke: {light}"]{{stroke:{dark} !important}}'
        for light, dark in DARK.items()
    )
    head, mark, rest = svg.partition(" <defs>\n  <style")
    style = f" <title>{description}</title>\n <style>@media (prefers-color-scheme: dark){{{rules}}}</style>\n"
    lines = (head + style + mark + rest).splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


def drawn_by(svg: str) -> str:
    """Which matplotlib: another one may draw the same otherwise."""
    found = re.search(r"matplotlib [\d.]+", svg)
    return found[0] if found else ""
