"""Counts of declared categories.

Guarantee: exact; values that were not declared are counted together as `other`, missing ones as `missing`.
Memory: 8 bytes for each category, and 16.
Merge: adds counts. The state depends only on the values: any order and any tree of merges gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from runtime.sketch.errors import BadValues, Malformed, NotMergeable
from runtime.sketch.keys import KeyKind, Keys
from runtime.sketch.keys_kernels import count_declared

MAX_CATEGORIES = 4096


def categories_bytes(categories: int) -> int:
    return 8 * (categories + 2)


class CategoryCounts:
    """counts: int64[categories + 2], in the caller's memory where a buffer is given: other and missing come last.

    declared: all texts, or all integers (booleans are 0 and 1), 1 to 4,096 different ones; ValueError otherwise.
    Raises Malformed for too small a buffer. One writer at a time.
    """

    def __init__(self, declared: Sequence[str] | Sequence[int], buffer: bytearray | memoryview | None = None) -> None:
        if not 1 <= len(declared) <= MAX_CATEGORIES:
            raise ValueError(f"expected 1 to {MAX_CATEGORIES} categories, got {len(declared)}")
        if all(isinstance(name, str) for name in declared):
            keys = Keys.of_texts([str(name) for name in declared])
        elif all(isinstance(name, int) and -(1 << 63) <= name < 1 << 63 for name in declared):
            keys = Keys.of_integers(np.array(declared, np.int64))
        else:
            raise ValueError("expected categories that are all texts, or all integers of 64 bits")
        size = categories_bytes(len(declared))
        memory = bytearray(size) if buffer is None else buffer
        if len(memory) < size:
            raise Malformed(f"expected {size} bytes or more for {len(declared)} categories, got {len(memory)}")
        self.declared: tuple[str | int, ...] = tuple(declared)
        self.kind: KeyKind = keys.kind
        self._places = np.argsort(keys.hashes, kind="stable")
        self._hashes = keys.hashes[self._places]
        if (self._hashes[1:] == self._hashes[:-1]).any():
            raise ValueError("expected categories that differ")
        self.counts: npt.NDArray[np.int64] = np.frombuffer(memory, "<i8", len(declared) + 2)

    def observe(self, keys: Keys) -> None:
        """Raises BadValues for keys of the other kind."""
        if keys.kind is not self.kind:
            raise BadValues(f"expected keys of kind {self.kind.name}, got {keys.kind.name}")
        count_declared(keys.hashes, self._hashes, self._places, self.counts)
        self.counts[-1] += keys.missing

    def merge(self, other: CategoryCounts) -> None:
        """Adds what `other` has seen. Raises NotMergeable unless the same categories are declared in the same order."""
        if (other.kind, other.declared) != (self.kind, self.declared):
            raise NotMergeable("the counts are of different categories")
        self.counts += other.counts

    def copy(self) -> CategoryCounts:
        copy = CategoryCounts(self.declared)  # type: ignore[arg-type]  # all of one type, as checked
        copy.counts[:] = self.counts
        return copy

    @property
    def other(self) -> int:
        return int(self.counts[-2])

    @property
    def missing(self) -> int:
        return int(self.counts[-1])

    def by_category(self) -> dict[str | int, int]:
        return dict(zip(self.declared, self.counts[:-2].tolist(), strict=True))

    def __repr__(self) -> str:
        return f"CategoryCounts({self.by_category()}, other={self.other}, missing={self.missing})"
