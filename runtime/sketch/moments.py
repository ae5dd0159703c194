"""Moments of one feature, and co-moments of it with the prediction.

Guarantee: counts are exact; mean, variance and correlation are those of the finite values, up to rounding: the error of
the mean is at most 1e-13 of the mean magnitude, the relative error of the variance 1e-13 sqrt(1 + mean^2 / variance),
in any order and any tree of merges, as the tests hold it. Magnitudes whose squares are beyond float64 (from about
1e150) make the variance infinite or NaN, and from 1e300 the mean, too.
Memory: 72 bytes.
Merge: Chan's formulas (Chan, Golub, LeVeque, 1979); equal up to rounding, not bit for bit.

A block adds each tile of 256 rows by two passes, so nothing is subtracted that is large beside the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from runtime.sketch.block_kernels import TILE_ROWS
from runtime.sketch.errors import BadValues, Malformed
from runtime.sketch.layout import COUNT, MOMENT_FIELDS, MOMENT_WORDS
from runtime.sketch.moments_kernels import add_column, merge_moments

MOMENTS_BYTES = MOMENT_WORDS * 8

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Summary:
    """What moments say, NaN where too few values were seen. Variances are of the sample: divided by n - 1."""

    count: int
    mean: float
    variance: float
    pairs: int
    correlation: float


class Moments:
    """row: float64[1, 9], in the caller's memory where a buffer is given; it holds zeros or moments.

    Raises Malformed if it is smaller than MOMENTS_BYTES. One writer at a time.
    """

    def __init__(self, buffer: bytearray | memoryview | None = None) -> None:
        memory = bytearray(MOMENTS_BYTES) if buffer is None else buffer
        if len(memory) < MOMENTS_BYTES:
            raise Malformed(f"expected {MOMENTS_BYTES} bytes or more for moments, got {len(memory)}")
        self.row: Floats = np.frombuffer(memory, "<f8", MOMENT_WORDS).reshape(1, MOMENT_WORDS)

    @classmethod
    def from_array(cls, row: Floats) -> Self:
        """A copy of float64[9], as it lies in a block."""
        moments = cls()
        moments.row[0] = row
        return moments

    def observe(self, values: npt.ArrayLike, prediction: npt.ArrayLike | None = None) -> None:
        """Adds values, float[n], and where given their pairs with prediction, float[n]; only finite ones count.

        Raises BadValues for arrays of different lengths.
        """
        column = np.asarray(values, np.float64).ravel()
        others = np.zeros(len(column)) if prediction is None else np.asarray(prediction, np.float64).ravel()
        if len(column) != len(others):
            raise BadValues(f"expected {len(column)} predictions, one for each value, got {len(others)}")
        finite = np.isfinite(column)
        column, others = column[finite], others[finite]  # copies: the kernel may overwrite them
        paired = prediction is not None
        for start in range(0, len(column), TILE_ROWS):
            part, beside = column[start : start + TILE_ROWS], others[start : start + TILE_ROWS]
            add_column(part, beside, len(part), paired, bool(np.isfinite(beside).all()), self.row, 0)

    def merge(self, other: Moments) -> None:
        """Adds what `other` has seen."""
        merge_moments(self.row, 0, other.row, 0)

    def copy(self) -> Moments:
        return Moments.from_array(self.row[0])

    @property
    def count(self) -> int:
        return int(self.row[0, COUNT])

    def summary(self) -> Summary:
        at = dict(zip(MOMENT_FIELDS, self.row[0].tolist(), strict=True))
        count, pairs = int(at["count"]), int(at["pairs"])
        spread = math.sqrt(at["m2_x"]) * math.sqrt(at["m2_y"])
        correlation = min(max(at["c_xy"] / spread, -1.0), 1.0) if pairs > 1 and spread > 0 else math.nan
        return Summary(
            count,
            at["mean"] if count else math.nan,
            at["m2"] / (count - 1) if count > 1 else math.nan,
            pairs,
            correlation,
        )
