"""Base-2 exponential histogram of signed numbers.

Guarantee: a quantile is within a share `relative_error` of the exact one: 1.083 % at scale 5, which holds as long as
the magnitudes of each sign span no more than 16 octaves. A wider span halves the resolution as often as needed:
2.166 % up to 32 octaves, 4.329 % up to 64, 8.64 % up to 128, 17.2 % up to 256. Least and greatest value, and all
counts, are exact. (A subnormal quantile is rounded to one: 2^-1075 more.) What is no finite number in range has counts
of its own: NaN, infinities, missing, below, above.
Memory: 4,224 bytes, whatever comes.
Merge: adds counts at the smaller of the two scales. The state depends only on which values were seen: any order and any
tree of merges gives the same bytes.

A bucket holds up to 4,294,967,295 and then stays there; `saturated` counts what it missed. Where only one bucket of a
sign is full, that is its own, and nothing is lost; the guarantee ends where several are.

Values are taken as float64: an integer beyond 2^53 is rounded to the nearest one first. -0.0 is zero.

The mapping is DDSketch's (Masson, Rim, Lee, PVLDB 12(12), 2019) with base and indices of OpenTelemetry's "Exponential
Histogram": DDSketch's key k is index k - 1. Coarsening is UDDSketch's collapse (Epicoco et al., IEEE Access 8, 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from runtime.sketch.buckets import MAX_SCALE, MIN_SCALE, bounds, relative_error, representatives
from runtime.sketch.columns import NO_LG_K, NO_MOMENTS, NO_REGISTERS, NO_SETTINGS, Array, observe_columns
from runtime.sketch.errors import Malformed
from runtime.sketch.exponential_kernels import coarsen, index_of, merge_histogram
from runtime.sketch.layout import (
    BUCKETS,
    COARSENING,
    COUNT_BYTES,
    HEAD_FIELDS,
    HEAD_WORDS,
    MOST_COUNTED,
    NEGATIVE,
    POSITIVE,
    POSITIVE_GREATEST,
    POSITIVE_LEAST,
    ZERO,
)

HISTOGRAM_BYTES = HEAD_WORDS * 8 + 2 * BUCKETS * COUNT_BYTES

ASIDE = HEAD_FIELDS[ZERO + 1 : COARSENING]
"""Names of the counts of what is neither in a bucket nor zero."""

FIRST_POSITION = 1 << 16
"""Added to an index it is above 0, whatever the scale."""

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Buffer = bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Cells:
    """Where the finite values lie, in ascending order: every cell that holds one.

    A cell is a bucket or zero. lower, upper, values: float64[cells]; positions, counts: int64[cells]. A positive cell
    holds its upper bound and not its lower one, a negative cell its lower bound and not its upper one. `values` stand
    for what is in the cell. `positions` order the cells of all histograms of one scale: 0 is zero.
    """

    scale: int
    positions: Integers
    counts: Integers

    @property
    def lower(self) -> Floats:
        return self._signed(bounds(self._indices + (self.positions < 0), self.scale))

    @property
    def upper(self) -> Floats:
        return self._signed(bounds(self._indices + (self.positions > 0), self.scale))

    @property
    def values(self) -> Floats:
        return self._signed(representatives(self._indices, self.scale))

    @property
    def cumulative(self) -> Integers:
        """How many values lie in each cell or below it: the distribution function at `upper`, times their number."""
        return np.cumsum(self.counts)

    @property
    def _indices(self) -> Integers:
        return np.abs(self.positions) - FIRST_POSITION

    def _signed(self, magnitudes: Floats) -> Floats:
        return np.where(self.positions == 0, 0.0, np.copysign(magnitudes, self.positions))


class ExponentialHistogram:
    """One histogram, in the caller's memory where a buffer is given.

    A buffer holds zeros or a histogram in HISTOGRAM_BYTES or more, and is writable. One writer at a time.
    Raises Malformed if it is smaller.
    """

    def __init__(self, buffer: Buffer | None = None) -> None:
        memory = bytearray(HISTOGRAM_BYTES) if buffer is None else buffer
        if len(memory) < HISTOGRAM_BYTES:
            raise Malformed(f"expected {HISTOGRAM_BYTES} bytes or more for a histogram, got {len(memory)}")
        self.heads: Integers = np.frombuffer(memory, "<i8", HEAD_WORDS).reshape(1, HEAD_WORDS)
        self.buckets: npt.NDArray[np.uint32] = np.frombuffer(
            memory, "<u4", 2 * BUCKETS, HEAD_WORDS * self.heads.itemsize
        ).reshape(2, 1, BUCKETS)

    @classmethod
    def of(cls, values: Array) -> Self:
        """values: numbers of any shape."""
        histogram = cls()
        histogram.observe(values)
        return histogram

    @classmethod
    def from_arrays(cls, head: Integers, buckets: npt.NDArray[np.uint32]) -> Self:
        """A copy of head int64[16] and buckets uint32[2, 512], as they lie in a block."""
        histogram = cls()
        histogram.heads[0] = head
        histogram.buckets[:, 0] = buckets
        return histogram

    def observe(self, values: Array) -> None:
        """values: floats, integers or booleans of any shape. Raises BadValues for others."""
        column = np.ascontiguousarray(values).reshape(-1, 1)
        state = (NO_SETTINGS, self.heads, self.buckets, NO_MOMENTS, NO_REGISTERS, NO_LG_K)
        observe_columns(column, None, None, state)

    def merge(self, other: ExponentialHistogram) -> None:
        """Adds what `other` has seen."""
        merge_histogram(self.heads, self.buckets, 0, other.heads, other.buckets, 0)

    def copy(self) -> ExponentialHistogram:
        return ExponentialHistogram.from_arrays(self.heads[0], self.buckets[:, 0])

    def coarsened(self, scale: int) -> ExponentialHistogram:
        """A copy at `scale`, or at its own where that is smaller. Raises ValueError below MIN_SCALE."""
        if scale < MIN_SCALE:
            raise ValueError(f"expected a scale of {MIN_SCALE} or more, got {scale}")
        copy = self.copy()
        coarsen(copy.heads, copy.buckets, 0, MAX_SCALE - scale)
        return copy

    @property
    def scale(self) -> int:
        return MAX_SCALE - int(self.heads[0, COARSENING])

    @property
    def relative_error(self) -> float:
        return relative_error(self.scale)

    @property
    def aside(self) -> dict[str, int]:
        """Counts of what is neither in a bucket nor zero, by the names in ASIDE."""
        return {name: int(count) for name, count in zip(ASIDE, self.heads[0, ZERO + 1 : COARSENING], strict=True)}

    @property
    def zero(self) -> int:
        return int(self.heads[0, ZERO])

    @property
    def finite(self) -> int:
        """Values in buckets, and zeros: those that quantiles are of."""
        return int(self.heads[0, POSITIVE : ZERO + 1].sum())

    @property
    def total(self) -> int:
        """All values, missing ones too."""
        return int(self.heads[0, :COARSENING].sum())

    @property
    def saturated(self) -> int:
        """Values that full buckets could not count."""
        return int(self.heads[0, POSITIVE] + self.heads[0, NEGATIVE] - self.buckets.sum(dtype=np.int64))

    @property
    def minimum(self) -> float:
        """The least finite value, exactly; NaN where there is none."""
        if self.heads[0, NEGATIVE]:
            return -self.magnitudes(1)[1]
        if self.heads[0, ZERO]:
            return 0.0
        return self.magnitudes(0)[0]

    @property
    def maximum(self) -> float:
        """The greatest finite value, exactly; NaN where there is none."""
        if self.heads[0, POSITIVE]:
            return self.magnitudes(0)[1]
        if self.heads[0, ZERO]:
            return 0.0
        return -self.magnitudes(1)[0]

    def magnitudes(self, sign: int) -> tuple[float, float]:
        """Least and greatest of the positive (0) or negative (1) values, NaN where there are none."""
        if not self.heads[0, POSITIVE + sign]:
            return np.nan, np.nan
        first = POSITIVE_LEAST + (POSITIVE_GREATEST - POSITIVE_LEAST + 1) * sign
        least, greatest = self.heads[0, first : first + 2].view(np.float64)
        return float(least), float(greatest)

    def run(self, sign: int) -> tuple[int, npt.NDArray[np.uint32]]:
        """First index and counts, uint32[n], from the first to the last bucket in use; empty where none is."""
        if not self.heads[0, POSITIVE + sign]:
            return 0, np.zeros(0, np.uint32)
        coarsening = int(self.heads[0, COARSENING])
        first = POSITIVE_LEAST + (POSITIVE_GREATEST - POSITIVE_LEAST + 1) * sign
        low, high = (int(index_of(int(bits))) >> coarsening for bits in self.heads[0, first : first + 2])
        return low, self.buckets[sign, 0, np.arange(low, high + 1) % BUCKETS]

    def cells(self) -> Cells:
        parts: list[tuple[Integers, Integers]] = []
        for sign in (1, 0):
            low, run = self.run(sign)
            counts = run.astype(np.int64)
            lost = int(self.heads[0, POSITIVE + sign] - counts.sum())
            if lost:
                full = np.flatnonzero(run == MOST_COUNTED)
                counts[full] += lost // len(full)
            used = np.flatnonzero(counts)
            positions = used + low + FIRST_POSITION
            parts.append((-positions[::-1], counts[used][::-1]) if sign else (positions, counts[used]))
            if sign and self.zero:
                parts.append((np.zeros(1, np.int64), self.heads[0, ZERO : ZERO + 1].copy()))
        positions, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Cells(self.scale, positions, counts)

    def quantiles(self, shares: npt.ArrayLike) -> Floats:
        """Of the finite values, each that of rank floor(share (n - 1)); NaN where there are none.

        shares: float[n] from 0 to 1; ValueError beyond. Returns float64[n].
        """
        wanted = np.atleast_1d(np.asarray(shares, np.float64))
        if not ((wanted >= 0) & (wanted <= 1)).all():
            raise ValueError(f"expected shares from 0 to 1, got {wanted.tolist()}")
        cells = self.cells()
        if not len(cells.counts):
            return np.full(len(wanted), np.nan)
        ranks = np.floor(wanted * (self.finite - 1)).astype(np.int64)
        found = np.searchsorted(cells.cumulative, ranks, side="right")
        values = np.clip(cells.values, self.minimum, self.maximum)[np.minimum(found, len(cells.counts) - 1)]
        return np.where(ranks == 0, self.minimum, np.where(ranks == self.finite - 1, self.maximum, values))

    def quantile(self, share: float) -> float:
        return float(self.quantiles([share])[0])

    def __repr__(self) -> str:
        return f"ExponentialHistogram(finite={self.finite}, scale={self.scale}, total={self.total})"


def aligned(left: ExponentialHistogram, right: ExponentialHistogram) -> tuple[Cells, Cells]:
    """Both over the same cells, those that either uses, at the smaller of their scales: some counts are 0."""
    scale = min(left.scale, right.scale)
    ours, theirs = left.coarsened(scale).cells(), right.coarsened(scale).cells()
    positions = np.union1d(ours.positions, theirs.positions)
    return _over(ours, positions), _over(theirs, positions)


def _over(cells: Cells, positions: Integers) -> Cells:
    counts = np.zeros(len(positions), np.int64)
    counts[np.searchsorted(positions, cells.positions)] = cells.counts
    return Cells(cells.scale, positions, counts)
