"""Both ends of a worker's page of statistics. Its layout, and what holds between them, is in statistics_layout.py."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from runtime.shm import count
from runtime.shm.order import order
from runtime.shm.segment import Segment
from runtime.shm.statistics_layout import (
    BATCH_WORDS,
    BATCHES_AT,
    COUNTERS,
    COUNTERS_AT,
    CRASHES_AT,
    HEADER,
    HEADER_BYTES,
    IDENTITY,
    IDENTITY_AT,
    IN_FLIGHT,
    LAYOUT_VERSION,
    LOADED_AT,
    LOST,
    MAGIC,
    MARKS,
    MODEL_BYTES,
    PAGE_BYTES,
    SEQUENCE,
    SLOT_WORDS,
    SLOTS,
    UNDER_WAY_AT,
    USED,
    VERSION_AT,
)

log = logging.getLogger(__name__)

QUICK_TRIES = 100  # a write takes less than a microsecond
NAPS = 250  # and some milliseconds where the writer lost its core in the middle of it; after 50 ms it is dead
NAP_SECONDS = 0.0002
BEYOND = UNDER_WAY_AT + MARKS - 1  # the word that counts what found no word of its own

Words = npt.NDArray[np.uint64]


@dataclass(slots=True)
class VersionCounts:
    """Totals since the gateway started. `batches`: rows of a run → (runs, input ns, run ns, output ns)."""

    model: str
    version: int
    successes: int = 0
    success_ns: int = 0
    failures: int = 0
    failure_ns: int = 0
    queue_ns: int = 0
    input_ns: int = 0
    run_ns: int = 0
    output_ns: int = 0
    rows: int = 0
    runs: int = 0
    last_ms: int = 0
    cancelled: int = 0
    batches: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)

    def add(self, other: VersionCounts) -> None:
        for name in COUNTERS:
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, max(mine, theirs) if name == "last_ms" else mine + theirs)
        for rows, row in other.batches.items():
            before = self.batches.get(rows, (0, 0, 0, 0))
            self.batches[rows] = (before[0] + row[0], before[1] + row[1], before[2] + row[2], before[3] + row[3])


class LayoutMismatch(RuntimeError):
    """The segment was made by another version of this program, or is not a statistics page."""


def map_page(segment: Segment) -> tuple[Words, Words]:
    """uint64[8], the header; uint64[SLOTS, SLOT_WORDS]. Raises LayoutMismatch."""
    magic, layout, slots = HEADER.unpack_from(segment.buffer, 0)
    if (magic, layout, slots, segment.size_bytes) != (MAGIC, LAYOUT_VERSION, SLOTS, PAGE_BYTES):
        raise LayoutMismatch(
            f"expected a statistics page of layout {LAYOUT_VERSION} and {PAGE_BYTES} bytes, "
            f"got {magic!r} layout {layout}, {segment.size_bytes} bytes"
        )
    header = np.frombuffer(segment.buffer, np.uint64, HEADER_BYTES // 8)
    return header, np.frombuffer(segment.buffer, np.uint64, SLOTS * SLOT_WORDS, HEADER_BYTES).reshape(SLOTS, SLOT_WORDS)


class StatisticsWriter:
    """The one writer of a page."""

    def __init__(self, segment: Segment) -> None:
        self._header, self._rows = map_page(segment)
        self._gauges = memoryview(segment.buffer).cast("Q")  # stores a word in less time than the array
        self._lock = threading.Lock()
        self._places: dict[bytes, int] = {}  # by identity, the one whose counters were asked for longest ago first
        self._free: list[int] = []
        self._served: weakref.WeakValueDictionary[bytes, SlotWriter] = weakref.WeakValueDictionary()
        self.set_in_flight(0)  # what a worker before had in flight has ended with it
        for place, slot in enumerate(self._rows[: int(self._header[USED])]):
            slot[UNDER_WAY_AT:BATCHES_AT] = 0
            slot[SEQUENCE] += slot[SEQUENCE] & np.uint64(1)  # the writer before may have been killed half-way
            if slot[VERSION_AT]:
                self._places[slot[IDENTITY_AT:COUNTERS_AT].tobytes()] = place
            else:
                self._free.append(place)

    def slot(self, model: str, version: int) -> SlotWriter:
        """The counters of a version that has been loaded. It is served as long as somebody holds them.

        When the page is full, they take the place of a version that is not served; when there is none, nobody reads
        them, and `lost` says so.
        """
        writer = self.mark(model, version)
        writer.note_loaded()
        return writer

    def mark(self, model: str, version: int) -> SlotWriter:
        """The same, of one that is not loaded yet: totals leave it out."""
        identity = IDENTITY.pack(model.encode()[:MODEL_BYTES], version)
        with self._lock:
            writer = self._served.get(identity)
            place = self._places.pop(identity, None)
            if place is None:
                place = self._take(np.frombuffer(identity, np.uint64))
            if place is None:
                if not self._header[LOST]:
                    log.warning("%d versions are served, and no more have counters for ModelStatistics", SLOTS)
                self._header[LOST] += np.uint64(1)
                return SlotWriter(np.zeros(SLOT_WORDS, np.uint64))
            self._places[identity] = place
            if writer is None:
                writer = self._served[identity] = SlotWriter(self._rows[place])
            return writer

    def _take(self, identity: Words) -> int | None:
        """A place that is free now, with nothing counted in it; None: all versions there are served."""
        used = int(self._header[USED])
        if self._free:
            place = self._free.pop()
        elif used < SLOTS:
            place = used
        else:
            unserved = next((each for each in self._places if each not in self._served), None)
            if unserved is None:
                return None
            place = self._places.pop(unserved)
        slot = self._rows[place]
        slot[SEQUENCE] |= np.uint64(1)  # a writer before may have been killed just here
        order()
        slot[VERSION_AT] = 0
        order()
        slot[IDENTITY_AT:VERSION_AT] = identity[:-1]
        slot[COUNTERS_AT:] = 0
        order()
        slot[VERSION_AT] = identity[-1]
        order()
        slot[SEQUENCE] += np.uint64(1)
        self._header[USED] = max(used, place + 1)
        return place

    def set_in_flight(self, count: int) -> None:
        self._gauges[IN_FLIGHT] = count


class SlotWriter:
    """Adds one run at a time; thread-safe. `slot`: uint64[SLOT_WORDS].

    What is done between `begin` and `end` is the version's doing: if the process dies of it, the version has crashed.
    """

    def __init__(self, slot: Words) -> None:
        self._slot = slot
        self._lock = threading.Lock()
        self._words = memoryview(slot.data)  # stores a word in less time than the array
        self._free = list(range(UNDER_WAY_AT, BEYOND))  # taken and given back by one operation: no lock is needed

    def note_loaded(self) -> None:
        self._words[LOADED_AT] = 1

    def begin(self) -> int:
        """Answers what `end` is to be called with."""
        try:
            place = self._free.pop()
        except IndexError:
            with self._lock:
                self._words[BEYOND] += 1
            return BEYOND
        self._words[place] = 1
        return place

    def end(self, place: int) -> None:
        if place == BEYOND:
            with self._lock:
                self._words[BEYOND] -= 1
            return
        self._words[place] = 0
        self._free.append(place)

    def add_run(
        self,
        requests: int,
        rows: int,
        total_ns: int,
        queue_ns: int,
        input_ns: int,
        run_ns: int,
        output_ns: int,
        now_ms: int,
    ) -> None:
        """One run that answered `requests`; `total_ns` and `queue_ns` are sums over them."""
        with self._lock:
            count.add_run(self._slot, requests, rows, total_ns, queue_ns, input_ns, run_ns, output_ns, now_ms)

    def add_failures(self, requests: int, total_ns: int, *, cancelled: bool) -> None:
        with self._lock:
            count.add_failures(self._slot, requests, total_ns, requests if cancelled else 0)


class StatisticsReader:
    """Reads the pages of all workers and adds them up.

    `others`: pages of processes that answer no client. Of them only the crashes are read.
    """

    def __init__(self, segments: Iterable[Segment], others: Iterable[Segment] = ()) -> None:
        self._pages = [map_page(segment) for segment in segments]
        self._others = [map_page(segment) for segment in others]

    def totals(self, model: str = "") -> list[VersionCounts]:
        """Per model and version over all workers, ordered by name and version; of one `model` or of all."""
        totals: dict[tuple[str, int], VersionCounts] = {}
        for header, slots in self._pages:
            used = int(header[USED])
            order()
            for slot in slots[:used]:
                if model not in ("", _identity(slot)[0]):
                    continue
                copy = _consistent_copy(slot)
                key = _identity(copy)  # the slot may have become another version's
                if not key[1] or not copy[LOADED_AT] or model not in ("", key[0]):
                    continue
                counts = _counts(key, copy)
                if key in totals:
                    totals[key].add(counts)
                else:
                    totals[key] = counts
        return [totals[key] for key in sorted(totals)]

    def crashes(self, model: str, version: int) -> int:
        """How many processes died in a run, a load or a warm-up of this version since the gateway started."""
        return self.all_crashes().get((model, version), 0)

    def all_crashes(self) -> dict[tuple[str, int], int]:
        """By model and version, of those that have crashed. Takes microseconds, so it may be asked at each look."""
        found: dict[tuple[str, int], int] = {}
        for header, slots in (*self._pages, *self._others):
            for place in np.flatnonzero(slots[: int(header[USED]), CRASHES_AT]):
                slot = _consistent_copy(slots[place])
                key = _identity(slot)
                if key[1] and slot[CRASHES_AT]:
                    found[key] = found.get(key, 0) + int(slot[CRASHES_AT])
        return found

    def in_flight(self, worker: int) -> int:
        header, _ = self._pages[worker]
        return int(header[IN_FLIGHT])

    def lost_versions(self) -> int:
        """Versions that found no slot in a full page."""
        return sum(int(header[LOST]) for header, _ in self._pages)


def _consistent_copy(slot: Words) -> Words:
    """A writer killed in mid-write leaves the sequence odd: the last copy is taken as it is."""
    for attempt in range(QUICK_TRIES + NAPS):
        before = int(slot[SEQUENCE])
        order()
        copy = slot.copy()
        order()
        if before % 2 == 0 and int(slot[SEQUENCE]) == before:
            break
        if attempt >= QUICK_TRIES:
            time.sleep(NAP_SECONDS)
    return copy


def _identity(slot: Words) -> tuple[str, int]:
    model, version = IDENTITY.unpack(slot[IDENTITY_AT:COUNTERS_AT].tobytes())
    return model.rstrip(b"\0").decode("utf-8", "replace"), version


def _counts(key: tuple[str, int], slot: Words) -> VersionCounts:
    counts = VersionCounts(*key)
    for name, value in zip(COUNTERS, slot[COUNTERS_AT:LOADED_AT].tolist(), strict=True):
        setattr(counts, name, value)
    for rows, runs, input_ns, run_ns, output_ns in slot[BATCHES_AT:].reshape(-1, BATCH_WORDS).tolist():
        if runs:
            counts.batches[rows] = (runs, input_ns, run_ns, output_ns)
    return counts
