"""How often which class of the primary met which class of the shadow.

Guarantee: a pair of classes that is there has the exact count of its rows, and `other` is the exact count of the rest.
Memory: MOST_PAIRS pairs. Where there are more, those of two classes come before those of one, and then the first by
name: which ones are kept depends on what was seen alone, so any order and any tree of merges gives the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

MOST_PAIRS = 1024
"""All pairs of 32 classes; of more classes few pairs are ever seen."""

CLASS_CHARACTERS = 64
HASH_DIGITS = 12

NO_CLASS = "(none)"
"""Of scores with NaN."""


class ClassPair(NamedTuple):
    """`agree`: both are the same class; pairs of two classes are ordered before those."""

    agree: bool
    primary: str
    shadow: str


class Confusion:
    def __init__(self, counts: Mapping[ClassPair, int] | None = None, other: int = 0) -> None:
        self._counts = dict(counts or {})
        self.other = other
        self._cut()

    def add(self, pair: ClassPair, rows: int) -> None:
        self._counts[pair] = self._counts.get(pair, 0) + rows
        if len(self._counts) > 2 * MOST_PAIRS:
            self._cut()

    def merge(self, theirs: Confusion) -> None:
        for pair, rows in theirs.items():
            self.add(pair, rows)
        self.other += theirs.other
        self._cut()

    def items(self) -> Iterator[tuple[ClassPair, int]]:
        """In order."""
        self._cut()
        return iter(sorted(self._counts.items()))

    @property
    def rows(self) -> int:
        return sum(self._counts.values()) + self.other

    def copy(self) -> Confusion:
        return Confusion(self._counts, self.other)

    def _cut(self) -> None:
        if len(self._counts) > MOST_PAIRS:
            for pair in sorted(self._counts)[MOST_PAIRS:]:
                self.other += self._counts.pop(pair)

    def __repr__(self) -> str:
        return f"Confusion(pairs={len(self._counts)}, rows={self.rows})"


def class_name(value: object) -> str:
    """Of a label, or of the labels of a row. Of a long one its beginning, and a hash that tells it from others."""
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if len(text) <= CLASS_CHARACTERS:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_DIGITS]
    return f"{text[: CLASS_CHARACTERS - HASH_DIGITS - 1]}~{digest}"
