"""A bounded, uniform sample of rows (Vitter's algorithm R), for what counts of single features cannot show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from runtime.drift.binned import BinsMismatch, Floats


@dataclass(frozen=True, eq=False)
class Reservoir:
    """`rows`: float64[min(seen, size), features], each of the rows seen with the same probability. Immutable.

    The same seed and the same blocks give the same sample. Memory: size · features · 8 bytes.
    """

    size: int
    seed: int
    rows: Floats
    seen: int = 0

    @classmethod
    def empty(cls, size: int, features: int, seed: int) -> Reservoir:
        return cls(size, seed, np.empty((0, features)))

    def _random(self, *what: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.seen, *what])

    def add(self, block: ArrayLike) -> Reservoir:
        """With a block of rows [rows, features] seen after the others."""
        block = np.asarray(block, np.float64)
        if block.ndim != 2 or block.shape[1] != self.rows.shape[1]:
            raise BinsMismatch(f"expected rows of {self.rows.shape[1]} features, got shape {block.shape}")
        free = min(self.size - len(self.rows), len(block))
        rows = np.concatenate([self.rows, block[:free]])
        later = block[free:]
        if len(later):
            position = self.seen + free + np.arange(len(later))
            slot = self._random().integers(0, position + 1)
            taken = slot < self.size
            rows[slot[taken]] = later[taken]  # of two rows with one slot the later stays, as one by one
        return Reservoir(self.size, self.seed, rows, self.seen + len(block))

    def merge(self, other: Reservoir) -> Reservoir:
        """A uniform sample of what both have seen: from each as many as a draw without replacement would take."""
        if self.rows.shape[1] != other.rows.shape[1]:
            raise BinsMismatch(f"expected rows of {self.rows.shape[1]} features, got {other.rows.shape[1]}")
        random = self._random(other.seed, other.seen)
        size = min(self.size, other.size)
        wanted = min(size, self.seen + other.seen)
        own = int(random.hypergeometric(self.seen, other.seen, wanted)) if wanted else 0

        def part(rows: Floats, count: int) -> NDArray[np.float64]:
            return rows[random.permutation(len(rows))[:count]]

        rows = np.concatenate([part(self.rows, own), part(other.rows, wanted - own)])
        return Reservoir(size, self.seed, rows, self.seen + other.seen)
