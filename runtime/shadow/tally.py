"""What is counted of one output of a pair of versions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from runtime.shadow.confusion import Confusion
from runtime.sketch.block import Block
from runtime.sketch.exponential import ExponentialHistogram
from runtime.sketch.layout import PLUS_INFINITY, BlockShape
from runtime.sketch.moments import Summary

DIFFERENCES = BlockShape(2, 0)
"""Of a row each pair of numbers: the absolute difference, the relative one."""

ABSOLUTE, RELATIVE = 0, 1

COUNTS = (
    "rows", "equal_rows", "close_rows", "predicted_rows", "predicted_equal_rows", "not_finite", "incomparable_rows",
)  # fmt: skip


@dataclass(slots=True)
class OutputTally:
    """`rows`: all that were compared or could not be; the others as docs/shadows.md says. All counts but
    `not_finite`, which is of numbers, are of rows.

    `differences` None: nothing has come yet whose difference is a number.
    """

    rows: int = 0
    equal_rows: int = 0
    close_rows: int = 0
    predicted_rows: int = 0
    predicted_equal_rows: int = 0
    not_finite: int = 0
    incomparable_rows: int = 0
    confusion: Confusion = field(default_factory=Confusion)
    differences: Block | None = None

    def observe(self, differences: npt.NDArray[np.float64]) -> None:
        """differences: float64[numbers, 2], absolute and relative."""
        self._differ().observe(differences)

    def _differ(self) -> Block:
        if self.differences is None:
            self.differences = Block.create(DIFFERENCES)
        return self.differences

    def merge(self, other: OutputTally) -> None:
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.confusion.merge(other.confusion)
        if other.differences is not None:
            self._differ().merge(other.differences)

    def copy(self) -> OutputTally:
        counts = {name: getattr(self, name) for name in COUNTS}
        differences = self.differences.copy() if self.differences is not None else None
        return OutputTally(**counts, confusion=self.confusion.copy(), differences=differences)


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the differences of an output's numbers. `histogram`: of those that are finite, which quantiles are of.

    `greatest`: infinite among relative ones where a number of the primary was 0 and the shadow's was not.
    """

    histogram: ExponentialHistogram
    moments: Summary

    @classmethod
    def of(cls, block: Block, which: int) -> Spread:
        return cls(block.histogram(which), block.moments_of(which).summary())

    @property
    def greatest(self) -> float:
        if self.histogram.heads[0, PLUS_INFINITY]:
            return float("inf")
        return self.histogram.maximum
