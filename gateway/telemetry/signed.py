"""Base-2 exponential histograms of numbers of any sign and magnitude: what features and outputs look like.

The sketch that a feature is measured by is one (docs/sketches.md), so its export loses nothing: scale, indices and
counts are its own. NaN, infinities and missing values are no part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from runtime.sketch.buckets import MIN_SCALE
from runtime.sketch.exponential import ExponentialHistogram
from runtime.sketch.layout import BUCKETS

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """Magnitudes of one sign: counts int64[n]; counts[k] are in (2^((offset+k)/2^scale), 2^((offset+k+1)/2^scale)]."""

    offset: int
    counts: Counts

    def at(self, coarsening: int) -> Side:
        """With buckets that are 2^coarsening as many of these."""
        if not coarsening or not self.counts.size:
            return self
        first = self.offset >> coarsening
        places = ((self.offset + np.arange(self.counts.size)) >> coarsening) - first
        return Side(first, np.bincount(places, self.counts, places[-1] + 1).astype(np.int64))

    def plus(self, other: Side) -> Side:
        if not other.counts.size or not self.counts.size:
            return self if self.counts.size else other
        low = min(self.offset, other.offset)
        both = np.zeros(max(side.offset + side.counts.size for side in (self, other)) - low, np.int64)
        for side in (self, other):
            both[side.offset - low : side.offset - low + side.counts.size] += side.counts
        return Side(low, both)

    def minus(self, earlier: Side) -> Side | None:
        """None where anything would be below 0."""
        if not earlier.counts.any():
            return self
        low = min(self.offset, earlier.offset)
        high = max(self.offset + self.counts.size, earlier.offset + earlier.counts.size)
        left = np.zeros(high - low, np.int64)
        left[self.offset - low : self.offset - low + self.counts.size] += self.counts
        left[earlier.offset - low : earlier.offset - low + earlier.counts.size] -= earlier.counts
        if (left < 0).any():
            return None
        there = np.flatnonzero(left)
        return Side(low + int(there[0]), left[there[0] : there[-1] + 1]) if there.size else Side(0, left[:0])


@dataclass(frozen=True, slots=True, eq=False)
class SignedDistribution:
    """`total`: the sum of the values; None where it is not known, or would fall, as that of negative values may."""

    scale: int
    zero: int
    positive: Side
    negative: Side
    total: float | None = None
    minimum: float | None = None
    maximum: float | None = None

    @classmethod
    def of(cls, histogram: ExponentialHistogram, mean: float | None = None) -> Self:
        """`mean`: of its finite values, where it is known."""
        sides = [Side(offset, run.astype(np.int64)) for offset, run in (histogram.run(0), histogram.run(1))]
        finite, known = histogram.finite, mean is not None and histogram.finite and histogram.minimum >= 0
        return cls(
            histogram.scale,
            histogram.zero,
            sides[0],
            sides[1],
            float(mean * finite) if mean is not None and known else None,
            histogram.minimum if finite else None,
            histogram.maximum if finite else None,
        )

    @property
    def count(self) -> int:
        return self.zero + int(self.positive.counts.sum()) + int(self.negative.counts.sum())

    def plus(self, other: SignedDistribution) -> SignedDistribution:
        """As if one histogram had counted both, but without its bound on counts; as many buckets as a sketch has."""
        scale = min(self.scale, other.scale)
        while True:
            positive, negative = (
                getattr(self, sign).at(self.scale - scale).plus(getattr(other, sign).at(other.scale - scale))
                for sign in ("positive", "negative")
            )
            if max(positive.counts.size, negative.counts.size) <= BUCKETS or scale <= MIN_SCALE:
                break
            scale -= 1
        known = [side for side in (self, other) if side.count]
        minima = [side.minimum for side in known if side.minimum is not None]
        maxima = [side.maximum for side in known if side.maximum is not None]
        totals = [side.total for side in known if side.total is not None]
        return SignedDistribution(
            scale,
            self.zero + other.zero,
            positive,
            negative,
            sum(totals) if len(totals) == len(known) and known else None,
            min(minima, default=None),
            max(maxima, default=None),
        )

    def since(self, earlier: SignedDistribution) -> SignedDistribution:
        """What was counted after `earlier`; all of it where counting has begun anew.

        Least and greatest value of that time are not known.
        """
        coarsening = earlier.scale - self.scale
        if coarsening < 0 or earlier.zero > self.zero:
            return self
        positive = self.positive.minus(earlier.positive.at(coarsening))
        negative = self.negative.minus(earlier.negative.at(coarsening))
        if positive is None or negative is None:
            return self
        total = None
        if self.total is not None and earlier.total is not None:
            total = max(self.total - earlier.total, 0.0)
        return SignedDistribution(self.scale, self.zero - earlier.zero, positive, negative, total)
