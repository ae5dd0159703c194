"""What drift evaluation sees of a sample: counts by bin or by category, and what lies in no bin, counted apart.

    rows = counts in bins or categories + Apart (missing, NaN, ±Inf, out of range)

Zero is a value and lies in a bin. A bin is (edges[i], edges[i + 1]]; which of two bins a value on an edge belongs to is
the maker's choice, as long as it is the same for both samples. Bins of the same grid at different resolutions can be
compared: `align` finds the finest bins that cut through no count of either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

GRID_SCALE = 5
"""Bins double in width every 2^5 of them: representatives are within 1.083 % of every value."""

ZERO_REACH = float(np.finfo(np.float64).tiny)
"""Zero shares its bin, (-ZERO_REACH, ZERO_REACH], with subnormal numbers only."""


class BinsMismatch(ValueError):
    """Two summaries that cannot be compared, or numbers that are no bins."""


@dataclass(frozen=True)
class Apart:
    """Rows that lie in no bin."""

    missing: int = 0
    nan: int = 0
    positive_infinity: int = 0
    negative_infinity: int = 0
    out_of_range: int = 0

    @property
    def infinite(self) -> int:
        return self.positive_infinity + self.negative_infinity

    @property
    def rows(self) -> int:
        return self.missing + self.nan + self.infinite + self.out_of_range


@dataclass(frozen=True)
class ExactMoments:
    """Of the values in the bins, up to rounding: tells what moves inside of one. `variance` is the sample's, divided by
    count - 1. `least` and `greatest` are exact, so a constant is known as one whatever was rounded.
    """

    count: int
    mean: float
    variance: float
    least: float
    greatest: float

    def __post_init__(self) -> None:
        numbers = (self.mean, self.variance, self.least, self.greatest)
        if self.count < 1 or not all(map(math.isfinite, numbers)) or self.variance < 0 or self.least > self.greatest:
            raise BinsMismatch(f"expected a count of 1 or more, finite numbers and least <= greatest, got {self}")
        if self.least == self.greatest:
            object.__setattr__(self, "mean", self.least)
            object.__setattr__(self, "variance", 0.0)

    @property
    def constant(self) -> bool:
        return self.least == self.greatest

    @property
    def deviation(self) -> float:
        return math.sqrt(self.variance)


@dataclass(frozen=True, eq=False)
class NumericBins:
    """`edges`: float64[bins + 1], ascending, finite; `counts`: int64[bins]; `points`: float64[bins], one value of each
    bin that stands for all of it. Without `points` it is the one with the least relative error: 2ab/(a+b).
    `exact`: moments of the same values, where they are known. Arrays are not to be changed: what follows from them is
    kept, since one reference is compared with many windows.
    """

    edges: Floats
    counts: Counts
    points: Floats = field(default_factory=lambda: np.empty(0))
    apart: Apart = Apart()
    exact: ExactMoments | None = None

    def __post_init__(self) -> None:
        edges = np.asarray(self.edges, np.float64)
        counts = np.asarray(self.counts, np.int64)
        if edges.ndim != 1 or counts.ndim != 1 or edges.size != counts.size + (counts.size > 0 or edges.size > 0):
            raise BinsMismatch(f"expected one edge more than bins, got {edges.size} edges and {counts.size} bins")
        if not (np.isfinite(edges).all() and (edges[1:] > edges[:-1]).all()):
            raise BinsMismatch("expected finite edges that ascend")
        if (counts < 0).any():
            raise BinsMismatch("expected counts of 0 or more")
        points = np.asarray(self.points, np.float64)
        if points.size == 0:
            points = representatives(edges)
        if points.size != counts.size:
            raise BinsMismatch(f"expected a point for each of {counts.size} bins, got {points.size}")
        for name, value in (("edges", edges), ("counts", counts), ("points", points)):
            object.__setattr__(self, name, value)
        if self.exact is not None and self.exact.count != self.total:
            raise BinsMismatch(f"expected moments of the {self.total} values in bins, got those of {self.exact.count}")

    @cached_property
    def total(self) -> int:
        return int(self.counts.sum())

    @cached_property
    def held(self) -> NDArray[np.intp]:
        """Which bins have rows."""
        return np.flatnonzero(self.counts)

    @property
    def rows(self) -> int:
        return self.total + self.apart.rows

    @cached_property
    def deviation(self) -> float:
        """Standard deviation: exact, or that of the points; 0 without rows."""
        if self.total == 0:
            return 0.0
        if self.exact is not None:
            return self.exact.deviation
        weights, unit = self.counts / self.total, self.largest
        points = self.points / unit  # squares of the largest numbers are none
        return unit * float(np.sqrt(weights @ (points - weights @ points) ** 2))

    @cached_property
    def largest(self) -> float:
        """The largest magnitude of a point that has rows; 1 if that is 0."""
        return float(np.abs(self.points[self.held]).max(initial=0.0)) or 1.0

    @cached_property
    def snapped(self) -> float:
        """At most this far is the average value from the point that stands for it, as a share of `largest`."""
        held, largest = self.held, self.largest
        points, low, high = (array[held] / largest for array in (self.points, self.edges[:-1], self.edges[1:]))
        return float(self.counts[held] @ np.maximum(points - low, high - points)) / max(self.total, 1)


@dataclass(frozen=True)
class CategoryBins:
    """Rows by category. `other`: rows whose category is not told apart, because it is not declared or has no room."""

    counts: Mapping[str, int]
    other: int = 0
    apart: Apart = Apart()

    def __post_init__(self) -> None:
        if self.other < 0 or any(count < 0 for count in self.counts.values()):
            raise BinsMismatch("expected counts of 0 or more")

    @property
    def total(self) -> int:
        return sum(self.counts.values()) + self.other

    @property
    def rows(self) -> int:
        return self.total + self.apart.rows


@dataclass(frozen=True)
class RateCounts:
    """Rows of which some are counted: requests that failed, predictions that were rejected.

    `burst`: so many rows say as much as an independent one.
    """

    hits: int
    rows: int
    burst: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.hits <= self.rows or not self.burst >= 1:
            raise BinsMismatch(f"expected 0 <= hits <= rows and a burst of 1 or more, got {self}")


Bins = NumericBins | CategoryBins | RateCounts


def representatives(edges: Floats) -> Floats:
    """For each bin (a, b] the value with the least relative error, 2ab/(a+b); 0 where 0 lies inside."""
    low, high = edges[:-1], edges[1:]
    if low.size and (low[0] > 0 or high[-1] < 0):
        with np.errstate(over="ignore"):  # of a bin from the largest number to next to none
            return low * (2 / (1 + low / high))
    same_sign = np.sign(low) * np.sign(high) > 0
    middle = np.where((low < 0) & (high >= 0), 0.0, low / 2 + high / 2)
    with np.errstate(over="ignore"):  # of a bin that spans everything
        ratio = np.where(same_sign, low, 1.0) / np.where(same_sign, high, 1.0)
        return np.where(same_sign, low * (2 / (1 + ratio)), middle)


def align(one: NumericBins, other: NumericBins) -> tuple[Floats, Counts, Counts]:
    """The finest common bins: edges, and the counts of either in them. No count of either is cut."""
    if one.counts.size == 0 or other.counts.size == 0:
        whole = one if one.counts.size else other
        nothing = np.zeros_like(whole.counts)
        return whole.edges, (whole.counts if whole is one else nothing), (whole.counts if whole is other else nothing)
    edges = np.union1d(one.edges, other.edges)
    edges = edges[_cuts_nothing(one, edges) & _cuts_nothing(other, edges)]
    return edges, _placed(one, edges), _placed(other, edges)


def _cuts_nothing(bins: NumericBins, edges: Floats) -> NDArray[np.bool_]:
    """For each edge: is it one of `bins`, outside of them, or inside an empty one?"""
    low, high = bins.edges[:-1][bins.held], bins.edges[1:][bins.held]
    if not low.size:
        return np.ones(edges.size, np.bool_)
    before = low.searchsorted(edges)  # held bins that begin below the edge; the last of them may be cut by it
    cuts_nothing: NDArray[np.bool_] = (before == 0) | (high[before - 1] <= edges)
    return cuts_nothing


def _placed(bins: NumericBins, edges: Floats) -> Counts:
    cell = edges.searchsorted(bins.edges[1:][bins.held]) - 1
    return np.bincount(cell, weights=bins.counts[bins.held], minlength=edges.size - 1).astype(np.int64)


def bins_of_cells(
    lower: ArrayLike,
    upper: ArrayLike,
    counts: ArrayLike,
    points: ArrayLike | None = None,
    apart: Apart | None = None,
    exact: ExactMoments | None = None,
) -> NumericBins:
    """Bins from those cells of a histogram that hold something: all of one length, ascending, without overlap.

    Between cells that do not touch there is an empty bin. The cell of zero is (0, 0), and cells of subnormal
    numbers join it; infinite bounds are drawn in. `points` stand for the cells, else their representatives.
    """
    low, high = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    largest = np.finfo(np.float64).max
    zero = (low >= -ZERO_REACH) & (high <= ZERO_REACH)
    low = np.where(zero, -ZERO_REACH, np.where((low >= 0) & (low < ZERO_REACH), ZERO_REACH, low))
    high = np.where(zero, ZERO_REACH, np.where((high <= 0) & (high > -ZERO_REACH), -ZERO_REACH, high))
    low, high = np.maximum(low, -largest), np.minimum(high, largest)
    edges = np.empty(2 * low.size)
    edges[::2], edges[1::2] = low, high
    rises = edges[1:] > edges[:-1]
    if rises.sum() < edges.size - 1:  # cells touch, or lie in zero's together
        edges = edges[np.append(True, rises)] if (edges[1:] >= edges[:-1]).all() else np.unique(edges)
    full = np.zeros(max(edges.size - 1, 0), np.int64)
    at = edges.searchsorted(low)
    np.add.at(full, at, np.asarray(counts, np.int64))
    standing = representatives(edges) if edges.size else np.empty(0)
    if points is not None:
        standing[at] = np.where(zero, 0.0, np.asarray(points, np.float64))
    return NumericBins(edges, full, standing, apart or Apart(), exact)


def grid_bins(values: ArrayLike, *, scale: int = GRID_SCALE, missing: int = 0) -> NumericBins:
    """Bins of `values` (any shape) on the base-2 grid: (2^(k/2^scale), 2^((k+1)/2^scale)], mirrored for negatives.

    Neighbouring bins without a count are one bin. NaN and ±Inf are counted apart.
    """
    flat = np.asarray(values, np.float64).ravel()
    finite = flat[np.isfinite(flat)]
    apart = Apart(
        missing=missing,
        nan=int(np.isnan(flat).sum()),
        positive_infinity=int(np.isposinf(flat).sum()),
        negative_infinity=int(np.isneginf(flat).sum()),
    )
    lows, highs, counts = [], [], []
    for sign in (-1, 1):
        magnitudes = np.abs(finite[np.sign(finite) == sign])
        keys, times = np.unique(np.ceil(np.log2(magnitudes) * 2**scale).astype(np.int64), return_counts=True)
        with np.errstate(over="ignore"):  # the last bin ends at infinity
            small, large = np.exp2((keys - 1) / 2**scale), np.exp2(keys / 2**scale)
        lows.append(-large[::-1] if sign < 0 else small)
        highs.append(-small[::-1] if sign < 0 else large)
        counts.append(times[::-1] if sign < 0 else times)
    if zeros := int((finite == 0).sum()):
        lows.insert(1, np.zeros(1))
        highs.insert(1, np.zeros(1))
        counts.insert(1, np.array([zeros]))
    return bins_of_cells(np.concatenate(lows), np.concatenate(highs), np.concatenate(counts), apart=apart)


def exact_pair(reference: ArrayLike, live: ArrayLike) -> tuple[NumericBins, NumericBins]:
    """Bins of two samples' finite values, one for each value that either has: no distance loses anything.

    Of samples of some thousand rows; a bin is 24 bytes on each side.
    """
    sides = [np.asarray(values, np.float64).ravel() for values in (reference, live)]
    finite = [side[np.isfinite(side)] for side in sides]
    points = np.union1d(*finite)
    # Values are the upper ends of their bins; a bin without rows lies between two that are no neighbours.
    below = np.nextafter(points, -np.inf)
    edges = np.union1d(points, below[np.isfinite(below)])
    at = np.searchsorted(edges, points) - 1
    middles = representatives(edges) if edges.size else np.empty(0)
    middles[at] = points
    pair = []
    for side, own in zip(sides, finite, strict=True):
        values, times = np.unique(own, return_counts=True)
        counts = np.zeros(max(edges.size - 1, 0), np.int64)
        counts[at[np.searchsorted(points, values)]] = times
        apart = Apart(0, int(np.isnan(side).sum()), int(np.isposinf(side).sum()), int(np.isneginf(side).sum()))
        pair.append(NumericBins(edges, counts, middles, apart))
    return pair[0], pair[1]
