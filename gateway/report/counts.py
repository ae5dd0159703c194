"""Rows of both samples by value, made ready to be drawn: where a plot begins and ends, and steps of equal width.

Bins may be of any width, touch or not, and end in infinity; those that share no row need not be there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.report.axis import Axis, Warp
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

Floats = npt.NDArray[np.float64]

CUT = 0.005
"""Share of either sample's rows that may lie beyond the plot to each side, so that one value does not flatten all."""
LEAST_STEPS, MOST_STEPS = 12, 40
FEWEST = 5
LARGEST_INTEGER = 1e9
"""Sums of larger ones are rounded."""
MANY_BINS, REST = 8, 3.0
"""Of so many bins the first and the last are the rest if they are so many times wider than those beside them."""
LARGEST = 1e307
"""Beyond this, values are drawn here: sums and differences of larger ones are infinite."""
DISCRETE = 12
"""So few different integers are drawn one by one."""


@dataclass(frozen=True, eq=False)
class NumericCounts:
    """`low`, `high`: float64[bins], finite, ascending; `live`, `reference`: float64[bins], rows."""

    low: Floats
    high: Floats
    live: Floats
    reference: Floats

    @property
    def sides(self) -> tuple[Floats, ...]:
        """Of the samples that have rows."""
        return tuple(side for side in (self.reference, self.live) if side.sum() > 0)

    def quantile(self, side: Floats, q: float) -> float:
        """Within a bin, as if its rows lay evenly."""
        ends = np.cumsum(side)
        at = min(int(np.searchsorted(ends, q * ends[-1])), len(side) - 1)
        within = (q * ends[-1] - (ends[at] - side[at])) / side[at] if side[at] else 0.0
        return float(self.low[at] + within * (self.high[at] - self.low[at]))


FAR = 1e6
"""Axes away, one bound is told from no other: a logarithm of zero, or a value 10^300 times as far as the axis."""


def numeric_counts(bins: Iterable[pb.FeatureBin]) -> NumericCounts | None:
    """Of bins with rows and without category; None where there are none, or where they overlap."""
    held = [b for b in bins if (b.live or b.reference) and not b.category and b.low <= b.high]
    held = [b for b in held if math.isfinite(b.low) or math.isfinite(b.high)]
    if not held:
        return None
    held.sort(key=lambda b: (b.low, b.high))
    low = np.array([b.low for b in held]).clip(-LARGEST, LARGEST)
    high = np.array([b.high for b in held]).clip(-LARGEST, LARGEST)
    closed = np.array([math.isfinite(b.low) and math.isfinite(b.high) for b in held])
    for at in np.flatnonzero(~closed):
        if math.isinf(held[at].low):
            low[at] = high[at] - _reach(low, high, closed, last=False)
        else:
            high[at] = low[at] + _reach(low, high, closed, last=True)
    if (high < low).any() or (low[1:] < high[:-1]).any():
        return None  # bins that overlap are no histogram
    rows = np.array([(b.live, b.reference) for b in held], np.float64)
    return NumericCounts(low, high, rows[:, 0].copy(), rows[:, 1].copy())


def _reach(low: Floats, high: Floats, closed: npt.NDArray[np.bool_], *, last: bool) -> float:
    """How wide an open bin is drawn: twice the one beside it."""
    widths = (high - low)[closed].tolist()
    return 2 * widths[-1 if last else 0] or 1.0 if widths else 1.0


def integers(counts: NumericCounts, live_mean: float | None, reference_mean: float | None) -> list[int]:
    """The values, one a bin, where there are few and all are integers; else none.

    Bins do not tell what is in them; means do, which are exact. `*_mean`: of the rows in the bins, None without rows.
    """
    if len(counts.high) > DISCRETE or max(abs(counts.low[0]), abs(counts.high[-1])) > LARGEST_INTEGER:
        return []
    found = np.floor(counts.high)
    if len(np.unique(found)) < len(found):
        return []
    for side, mean in ((counts.live, live_mean), (counts.reference, reference_mean)):
        if not side.sum():
            continue
        if mean is None or not math.isclose(found @ side / side.sum(), mean, rel_tol=1e-9, abs_tol=1e-9):
            return []
    return [int(value) for value in found]


def fitting_axis(counts: NumericCounts) -> Axis:
    """From the least to the greatest value of both but CUT of either's rows, so that both can be seen.

    Logarithmic where values span decades or one sample would be squeezed into a small part of a linear axis.
    """
    sides = counts.sides
    least, greatest = _inner(counts)
    low = max(min(counts.quantile(side, CUT) for side in sides), least)
    high = min(max(counts.quantile(side, 1 - CUT) for side in sides), greatest)
    low, high = min(low, high), max(low, high)  # of bins whose bounds contradict each other
    touched = (counts.high >= low) & (counts.low <= high)
    if touched.sum() < 4:  # few values: with room beside them
        width = float((counts.high - counts.low)[touched].max(initial=0.0))
        room = 4 * width or abs(low) / 2 or 0.5
        return Axis(low - room, high + room)
    if _squeezed(counts, low, high):
        if low > 0:
            return Axis(low, high, Warp.LOG)
        farthest = max(abs(low), abs(high))
        near = _nearest(counts, farthest)
        if near < farthest / 10:
            return Axis(low, high, Warp.BOTH_WAYS, near)
    margin = (high / 2 - low / 2) * 0.04
    return Axis(low - margin, high + margin)


def _inner(counts: NumericCounts) -> tuple[float, float]:
    """Without a first or last bin that holds all the rest, much wider than its neighbour: nobody knows where in it."""
    low, high = counts.low, counts.high
    if len(low) < MANY_BINS:
        return float(low[0]), float(high[-1])
    least = high[0] if _is_rest((low[0], high[0]), (low[1], high[1])) else low[0]
    greatest = low[-1] if _is_rest((low[-1], high[-1]), (low[-2], high[-2])) else high[-1]
    return (float(least), float(greatest)) if least < greatest else (float(low[0]), float(high[-1]))


def _is_rest(end: tuple[float, float], beside: tuple[float, float]) -> bool:
    """Much wider on a linear axis, and on a logarithmic one where there is one."""
    if end[1] - end[0] <= REST * (beside[1] - beside[0]):
        return False
    if min(end[0], beside[0]) <= 0 <= max(end[1], beside[1]):
        return True
    (a, b), (c, d) = ((math.log(abs(bin_[0])), math.log(abs(bin_[1]))) for bin_ in (end, beside))
    return abs(a - b) > REST * abs(c - d)


def _squeezed(counts: NumericCounts, low: float, high: float) -> bool:
    def part(side: Floats, q: float) -> float:
        return (counts.quantile(side, q) / 2 - low / 2) / (high / 2 - low / 2)

    spans_decades = low > 0 and high / low >= 100 and min(part(side, 0.5) for side in counts.sides) < 0.15
    fine = [side for side in counts.sides if _bins_within(counts, side) >= FEWEST]
    middles = [part(side, 0.95) - part(side, 0.05) for side in fine]
    return spans_decades or any(0 < middle < 0.12 for middle in middles)


def _bins_within(counts: NumericCounts, side: Floats) -> int:
    """In how many bins nine tenths of a sample lie: fewer than a few have no shape that another axis would show."""
    ends = [counts.quantile(side, q) for q in (0.05, 0.95)]
    return int(((counts.high > ends[0]) & (counts.low < ends[1]) & (side > 0)).sum())


def _nearest(counts: NumericCounts, farthest: float) -> float:
    """A magnitude within which half of the rows of the narrower sample lie; not so small that nothing else is seen."""
    halves = [max(abs(counts.quantile(side, q)) for q in (0.25, 0.75)) for side in counts.sides]
    return max(min(halves), farthest * 1e-6, 1e-300)


def step_count(counts: NumericCounts) -> int:
    """About the root of the rows of the smaller sample: more would show noise."""
    rows = min(float(side.sum()) for side in counts.sides)
    return int(np.clip(math.sqrt(rows), LEAST_STEPS, MOST_STEPS))


def in_steps(counts: NumericCounts, side: Floats, axis: Axis, steps: int) -> Floats:
    """float64[steps], what share of a sample's rows lies in each of so many steps of equal width on the axis.

    The rows of a bin are spread evenly over its part of the axis; those beyond its ends are in no step.
    """
    return np.diff(_cumulative(counts, side, axis, steps))


def beyond(counts: NumericCounts, side: Floats, axis: Axis) -> tuple[float, float]:
    """What share of a sample's rows lies before the axis, and what after it."""
    before, until_end = _cumulative(counts, side, axis, 1).tolist()
    return before, 1 - until_end if side.sum() else 0.0


def _cumulative(counts: NumericCounts, side: Floats, axis: Axis, steps: int) -> Floats:
    """float64[steps + 1], the share of rows that are left of each edge."""
    total = side.sum()
    if not total:
        return np.zeros(steps + 1)
    with np.errstate(over="ignore"):
        begin, end = (
            np.clip([axis.place(value) for value in bounds], -FAR, FAR) * steps for bounds in (counts.low, counts.high)
        )
    end = np.maximum(end, begin + 1e-6)
    edges = np.arange(steps + 1)[:, None]
    left: Floats = np.clip((edges - begin) / (end - begin), 0, 1) @ (side / total)
    return left
