"""A pane: the summary of all rows of one stretch of time, as it is kept when nobody looks at it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

COMPRESSION_LEVEL = 1
"""Halves a summary in a millisecond. Level 6 takes eight times as long for another twentieth."""


class Mergeable(Protocol):
    """A summary of rows. What cannot be merged is refused before anything has changed."""

    @property
    def rows(self) -> int: ...

    def merge(self, other: Self) -> None: ...

    def copy(self) -> Self: ...

    def encode(self) -> bytes: ...


class PaneKey(NamedTuple):
    """The time that a pane is of: from `start_seconds` on, a multiple of `length_seconds` since the epoch."""

    length_seconds: int
    start_seconds: int


@dataclass(frozen=True, slots=True)
class Pane:
    """`data`: the encoded summary of its `rows`, compressed by zlib."""

    key: PaneKey
    rows: int
    data: bytes

    @classmethod
    def of(cls, key: PaneKey, summary: Mergeable) -> Pane:
        return cls(key, summary.rows, zlib.compress(summary.encode(), COMPRESSION_LEVEL))


@dataclass(frozen=True, slots=True)
class PaneChanges:
    """What a store has to do to hold the panes that are held in memory: `put` adds or replaces. No key is in both."""

    put: tuple[Pane, ...] = ()
    delete: tuple[PaneKey, ...] = ()
