"""Summaries whose merge is exact, with the interface that windows ask for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np

from runtime.sketch.categories import CategoryCounts
from runtime.sketch.codec import decode, encode
from runtime.sketch.exponential import ExponentialHistogram
from runtime.sketch.keys import Keys

COLOURS = ("red", "green", "blue")


class Numbers:
    def __init__(self, histogram: ExponentialHistogram) -> None:
        self.histogram = histogram

    @classmethod
    def of(cls, values: Sequence[int]) -> Self:
        # Far apart, so that merging has to bring scales together.
        return cls(ExponentialHistogram.of(np.array([(-7.3) ** value for value in values])))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        histogram = decode(data)
        assert isinstance(histogram, ExponentialHistogram)
        return cls(histogram)

    @property
    def rows(self) -> int:
        return self.histogram.total

    def merge(self, other: Self) -> None:
        self.histogram.merge(other.histogram)

    def copy(self) -> Self:
        return type(self)(self.histogram.copy())

    def encode(self) -> bytes:
        return encode(self.histogram)


class Colours:
    def __init__(self, counts: CategoryCounts) -> None:
        self.counts = counts

    @classmethod
    def of(cls, values: Sequence[int]) -> Self:
        counts = CategoryCounts(COLOURS)
        counts.observe(Keys.of_texts([(*COLOURS, "mauve")[value % 4] for value in values]))
        return cls(counts)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        counts = decode(data)
        assert isinstance(counts, CategoryCounts)
        return cls(counts)

    @property
    def rows(self) -> int:
        return int(self.counts.counts.sum())

    def merge(self, other: Self) -> None:
        self.counts.merge(other.counts)

    def copy(self) -> Self:
        return type(self).decode(self.encode())

    def encode(self) -> bytes:
        return encode(self.counts)


def together(payload: type[Numbers | Colours], values: Iterable[Sequence[int]]) -> bytes | None:
    """The bytes of one summary that saw all these values, each in turn; None for no values."""
    seen = [value for part in values for value in part]
    return payload.of(seen).encode() if seen else None
