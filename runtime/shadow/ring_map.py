"""A mapped ring of copies, and what anybody may read of it: its pairs' counters."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field

from runtime.shadow.copied_pair import CopiedPair
from runtime.shadow.pair import PairKey
from runtime.shadow.ring_layout import (
    COPIES_AT,
    HEADER,
    LAYOUT_VERSION,
    MAGIC,
    OUTCOME_AT,
    PAIRS,
    SERIAL,
    SHED_AT,
    TAKEN,
    TEXT_BYTES,
    TEXT_SIZE,
    UNPLACED,
    WRITTEN,
    pair_at,
    text_at,
)
from runtime.shm.order import order
from runtime.shm.segment import Segment


class CopyRingMismatch(RuntimeError):
    """The segment was made by another version of this program, or is not a ring of copies."""


@dataclass(frozen=True, slots=True)
class CopyRing:
    """`words`: the segment as 64-bit words, which a memoryview stores whole; `room`: bytes for copies."""

    segment: Segment
    words: memoryview
    room: int

    def text(self, pair: int) -> bytes:
        begin = text_at(pair)
        return bytes(self.segment.buffer[begin : begin + min(self.words[pair_at(pair) + TEXT_SIZE], TEXT_BYTES)])


def map_copy_ring(segment: Segment) -> CopyRing:
    """Raises CopyRingMismatch."""
    if segment.size_bytes < COPIES_AT:
        raise CopyRingMismatch(f"expected a ring of copies, got a segment of {segment.size_bytes} bytes")
    magic, layout, pairs, room, text_bytes = HEADER.unpack_from(segment.buffer, 0)
    whole = segment.size_bytes == COPIES_AT + room
    if (magic, layout, pairs, text_bytes, whole) != (MAGIC, LAYOUT_VERSION, PAIRS, TEXT_BYTES, True):
        raise CopyRingMismatch(
            f"expected a ring of copies of layout {LAYOUT_VERSION} with {PAIRS} pairs, "
            f"got {magic!r} layout {layout} with {pairs} pairs, {segment.size_bytes} bytes"
        )
    return CopyRing(segment, memoryview(segment.buffer).cast("Q"), room)


@dataclass(slots=True)
class CopyCounts:
    """Of one pair, in requests, since the gateway started: `chosen` = all that was `shed` by workers + all `outcomes`
    of what the shadow process took + `waiting`. What waits is in a ring, or being run, or not reported yet.
    """

    chosen: int = 0
    shed: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        return self.chosen - sum(self.shed.values()) - sum(self.outcomes.values())

    def add(self, other: CopyCounts) -> None:
        self.chosen += other.chosen
        for mine, theirs in ((self.shed, other.shed), (self.outcomes, other.outcomes)):
            for reason, requests in theirs.items():
                mine[reason] = mine.get(reason, 0) + requests


MAX_PAST = 1024
"""Pairs whose place became another's, of which the sums are still known; the oldest are forgotten."""


class CopyCounter:
    """Adds up the pairs' counters over the rings of all workers. It remembers pairs whose place became another's, so
    that no sum falls while it lives. Thread-safe.
    """

    def __init__(self, rings: list[CopyRing]) -> None:
        self._rings = rings
        self._lock = threading.Lock()
        self._seen: dict[tuple[int, int], tuple[int, PairKey, CopyCounts]] = {}
        self._past: dict[PairKey, CopyCounts] = {}

    def counts(self) -> dict[PairKey, CopyCounts]:
        totals: dict[PairKey, CopyCounts] = {}
        with self._lock:
            for number, ring in enumerate(self._rings):
                for pair in range(PAIRS):
                    self._look(number, ring, pair)
            for key, past in self._past.items():
                totals.setdefault(key, CopyCounts()).add(past)
            for _, key, counts in self._seen.values():
                totals.setdefault(key, CopyCounts()).add(counts)
        return totals

    def of_workers(self) -> dict[PairKey, tuple[int, dict[str, int]]]:
        """What no report of the shadow process has: requests chosen, and those that workers shed, by reason."""
        return {key: (counts.chosen, counts.shed) for key, counts in self.counts().items()}

    def unplaced(self) -> int:
        """Requests that were chosen, of pairs that found no place in a ring: they are in no pair's counts."""
        return sum(int(ring.words[UNPLACED]) for ring in self._rings)

    def _look(self, number: int, ring: CopyRing, pair: int) -> None:
        serial = ring.words[pair_at(pair) + SERIAL]
        order()
        seen = self._seen.get((number, pair))
        key = seen[1] if seen is not None and seen[0] == serial else None
        if serial and key is None:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # it became another's just now
                key = CopiedPair.from_json(ring.text(pair)).key
        counts = _counts(ring.words[pair_at(pair) : pair_at(pair + 1)])
        order()
        if ring.words[pair_at(pair) + SERIAL] != serial or key is None:
            return
        if seen is not None and seen[0] != serial:
            past = self._past.pop(seen[1], CopyCounts())
            past.add(seen[2])
            self._past[seen[1]] = past
            if len(self._past) > MAX_PAST:
                del self._past[next(iter(self._past))]
        self._seen[number, pair] = (serial, key, counts)


def _counts(words: memoryview) -> CopyCounts:
    """What was taken is read first: the writer may be a moment behind it."""
    outcomes = {outcome: int(words[at]) for outcome, at in OUTCOME_AT.items()}
    taken = int(words[TAKEN])
    order()
    shed = {reason.value: int(words[at]) for reason, at in SHED_AT.items()}
    return CopyCounts(max(int(words[WRITTEN]), taken) + sum(shed.values()), shed, outcomes)
