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


def numeric_counts(bins: Iterable[pb.FeatureBin]) -> NumericCounts | None:
    """Of bins with rows and without category; None where there are none."""
    held = [b for b in bins if (b.live or b.reference) and not b.category and not math.isnan(b.low + b.high)]
    if not held:
        return None
    held.sort(key=lambda b: (b.low, b.high))
    low = np.array([b.low for b in held])
    high = np.array([b.high for b in held])
    finite = np.concatenate([low[np.isfinite(low)], high[np.isfinite(high)]])
    if not finite.size:
        return None
    reach = float(np.ptp(finite)) / 20 or abs(float(finite[0])) / 20 or 0.5  # how wide an open bin is drawn
    low = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high, finite.min()) - reach)
    high = np.where(np.isfinite(high), high, low + reach)
    rows = np.array([(b.live, b.reference) for b in held], np.float64)
    return NumericCounts(low, high, rows[:, 0].copy(), rows[:, 1].copy())


def integers(counts: NumericCounts) -> list[int] | None:
    """Where few bins hold rows and each has one integer to itself: those, one a bin; else None."""
    if len(counts.low) > DISCRETE:
        return None
    found: list[int] = []
    for low, high in zip(counts.low.tolist(), counts.high.tolist(), strict=True):
        value = math.floor(high) if high > 0 else math.ceil(low)
        alone = low < value <= high if high > 0 else low <= value < high or low == value == high == 0
        if not alone or high - low > 1:
            return None
        found.append(value)
    return found if len(set(found)) == len(found) else None


def fitting_axis(counts: NumericCounts) -> Axis:
    """From the least to the greatest value of both but CUT of either's rows, so that both can be seen.

    Logarithmic where values span decades or one sample would be squeezed into a small part of a linear axis.
    """
    sides = counts.sides
    low = min(counts.quantile(side, CUT) for side in sides)
    high = max(counts.quantile(side, 1 - CUT) for side in sides)
    touched = (counts.high >= low) & (counts.low <= high)
    if touched.sum() < 4:  # few values: with room beside them
        width = float((counts.high - counts.low)[touched].max())
        room = 4 * width or abs(low) / 2 or 0.5
        return Axis(low - room, high + room)
    near = _nearest(counts)
    if _squeezed(counts, low, high):
        if low > 0:
            return Axis(low, high, Warp.LOG)
        if near < max(abs(low), abs(high)) / 10:
            return Axis(low, high, Warp.BOTH_WAYS, near)
    margin = (high / 2 - low / 2) * 0.04
    return Axis(low - margin, high + margin)


def _squeezed(counts: NumericCounts, low: float, high: float) -> bool:
    def part(side: Floats, q: float) -> float:
        return (counts.quantile(side, q) / 2 - low / 2) / (high / 2 - low / 2)

    spans_decades = low > 0 and high / low >= 100 and min(part(side, 0.5) for side in counts.sides) < 0.15
    middles = [part(side, 0.95) - part(side, 0.05) for side in counts.sides]
    return spans_decades or any(0 < middle < 0.12 for middle in middles)


def _nearest(counts: NumericCounts) -> float:
    """A magnitude near to which half of the rows of the narrower sample lie."""
    spreads = []
    for side in counts.sides:
        magnitudes = [abs(counts.quantile(side, q)) for q in (0.25, 0.75)]
        spreads.append(max(magnitudes))
    return max(min(spreads), 1e-300)


def step_count(counts: NumericCounts) -> int:
    """About the root of the rows of the smaller sample: more would show noise."""
    rows = min(float(side.sum()) for side in counts.sides)
    return int(np.clip(math.sqrt(rows), LEAST_STEPS, MOST_STEPS))


def in_steps(counts: NumericCounts, side: Floats, axis: Axis, steps: int) -> Floats:
    """float64[steps], what share of a sample's rows lies in each of so many steps of equal width.

    The rows of a bin are spread evenly over its part of the axis; those beyond its ends are in no step.
    """
    total = side.sum()
    if not total:
        return np.zeros(steps)
    begin = np.array([axis.place(value) for value in counts.low]) * steps
    end = np.array([axis.place(value) for value in counts.high]) * steps
    begin = np.maximum(begin, -1e6)  # a logarithm of zero
    end = np.maximum(end, begin + 1e-9)
    edges = np.arange(steps + 1)[:, None]
    reached = np.clip((edges - begin) / (end - begin), 0, 1)  # the part of each bin that is left of each edge
    return np.diff(reached @ (side / total))
