"""Counters of every version a worker has served, in a page that only this worker writes.

    header, 64 bytes                              slot, SLOT_BYTES each
    ┌──────────┬───────────────┬────────────┐     ┌──────────┬─────────────┬─────────┬──────────┬───────────────┐
    │ magic 8s │ layout u32    │ slots u32  │     │ seq u64  │ model 128s  │ version │ counters │ batch sizes   │
    ├──────────┴────┬──────────┴────────────┤     │          │ utf-8, NULs │ i64     │ 12 u64   │ 32 of 5 u64   │
    │ in flight u64 │ lost versions u64     │     └──────────┴─────────────┴─────────┴──────────┴───────────────┘
    └───────────────┴───────────────────────┘
Little-endian. `seq` is odd while the slot is written; a reader copies until it sees the same even number before and
after. The page outlives its worker (the supervisor owns it), so a restarted worker counts on from where it was and no
total ever falls. A batch-size row is (rows, runs, input ns, run ns, output ns); sizes beyond the first 32 different
ones are counted in the totals only.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from runtime.shm.segment import Segment

MAGIC = b"DGSTATS\0"
LAYOUT_VERSION = 1
SLOTS = 512
MODEL_BYTES = 128
BATCH_SIZES = 32

HEADER = struct.Struct("<8sII")
HEADER_BYTES = 64
IN_FLIGHT = struct.Struct("<Q")
IN_FLIGHT_OFFSET = HEADER.size
LOST_OFFSET = IN_FLIGHT_OFFSET + IN_FLIGHT.size
SEQUENCE = struct.Struct("<Q")
IDENTITY = struct.Struct(f"<{MODEL_BYTES}sq")
COUNTERS = (
    "successes",
    "success_ns",
    "failures",
    "failure_ns",
    "queue_ns",
    "input_ns",
    "run_ns",
    "output_ns",
    "rows",
    "runs",
    "last_ms",
    "cancelled",
)
COUNTER_BLOCK = struct.Struct(f"<{len(COUNTERS)}Q")
BATCH_ROW = struct.Struct("<5Q")
IDENTITY_OFFSET = SEQUENCE.size
COUNTERS_OFFSET = IDENTITY_OFFSET + IDENTITY.size
BATCH_OFFSET = COUNTERS_OFFSET + COUNTER_BLOCK.size
SLOT_BYTES = BATCH_OFFSET + BATCH_SIZES * BATCH_ROW.size
PAGE_BYTES = HEADER_BYTES + SLOTS * SLOT_BYTES
QUICK_TRIES = 100  # a write takes a few microseconds
NAPS = 250  # and some milliseconds where the writer lost its core in the middle of it; after 50 ms it is dead
NAP_SECONDS = 0.0002


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


def create_page(name: str) -> Segment:
    segment = Segment.create(name, PAGE_BYTES)
    HEADER.pack_into(segment.buffer, 0, MAGIC, LAYOUT_VERSION, SLOTS)
    return segment


def check_page(segment: Segment) -> None:
    """Raises LayoutMismatch."""
    magic, layout, slots = HEADER.unpack_from(segment.buffer, 0)
    if (magic, layout, slots, segment.size_bytes) != (MAGIC, LAYOUT_VERSION, SLOTS, PAGE_BYTES):
        raise LayoutMismatch(
            f"expected a statistics page of layout {LAYOUT_VERSION} and {PAGE_BYTES} bytes, "
            f"got {magic!r} layout {layout}, {segment.size_bytes} bytes"
        )


class StatisticsWriter:
    """The one writer of a page."""

    def __init__(self, segment: Segment) -> None:
        check_page(segment)
        self._buffer = segment.buffer
        self._lock = threading.Lock()
        self._slots: dict[tuple[str, int], SlotWriter] = {}
        self._used = 0
        self.set_in_flight(0)  # what a worker before had in flight has ended with it
        for index in range(SLOTS):
            counts = _read_slot(self._buffer, index)
            if counts is None:
                break
            self._used = index + 1
            writer = SlotWriter(self._buffer, index, counts)
            writer.publish()  # the writer before may have been killed in the middle of a write
            self._slots[counts.model, counts.version] = writer

    def slot(self, model: str, version: int) -> SlotWriter:
        """The version's counters; when the page is full, counters that nobody reads, and `lost` says so."""
        with self._lock:
            writer = self._slots.get((model, version))
            if writer is None:
                counts = VersionCounts(model, version)
                if self._used == SLOTS:
                    (lost,) = IN_FLIGHT.unpack_from(self._buffer, LOST_OFFSET)
                    IN_FLIGHT.pack_into(self._buffer, LOST_OFFSET, lost + 1)
                    return SlotWriter(bytearray(PAGE_BYTES), 0, counts)
                writer = SlotWriter(self._buffer, self._used, counts)
                writer.publish()
                self._used += 1
                self._slots[model, version] = writer
            return writer

    def set_in_flight(self, count: int) -> None:
        IN_FLIGHT.pack_into(self._buffer, IN_FLIGHT_OFFSET, count)


class SlotWriter:
    """Adds one run at a time; thread-safe."""

    def __init__(self, buffer: object, index: int, counts: VersionCounts) -> None:
        self._buffer: bytearray = buffer  # type: ignore[assignment]  # an mmap, which struct takes alike
        self._offset = HEADER_BYTES + index * SLOT_BYTES
        self._counts = counts
        self._lock = threading.Lock()
        self._sequence = 0
        self._rows = {rows: position for position, rows in enumerate(counts.batches)}

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
            counts = self._counts
            counts.successes += requests
            counts.success_ns += total_ns
            counts.queue_ns += queue_ns
            counts.input_ns += input_ns
            counts.run_ns += run_ns
            counts.output_ns += output_ns
            counts.rows += rows
            counts.runs += 1
            counts.last_ms = now_ms
            position = self._rows.get(rows)
            if position is None and len(self._rows) < BATCH_SIZES:
                position = self._rows[rows] = len(self._rows)
            if position is not None:
                runs, input_sum, run_sum, output_sum = counts.batches.get(rows, (0, 0, 0, 0))
                row = (runs + 1, input_sum + input_ns, run_sum + run_ns, output_sum + output_ns)
                counts.batches[rows] = row
                self._write(position, (rows, *row))
            else:
                self._write(-1, ())

    def add_failures(self, requests: int, total_ns: int, *, cancelled: bool) -> None:
        with self._lock:
            self._counts.failures += requests
            self._counts.failure_ns += total_ns
            if cancelled:
                self._counts.cancelled += requests
            self._write(-1, ())

    def publish(self) -> None:
        with self._lock:
            IDENTITY.pack_into(
                self._buffer,
                self._offset + IDENTITY_OFFSET,
                self._counts.model.encode()[:MODEL_BYTES],
                self._counts.version,
            )
            self._write(-1, ())

    def _write(self, position: int, row: tuple[int, ...]) -> None:
        counts = self._counts
        SEQUENCE.pack_into(self._buffer, self._offset, self._sequence + 1)
        COUNTER_BLOCK.pack_into(
            self._buffer,
            self._offset + COUNTERS_OFFSET,
            counts.successes,
            counts.success_ns,
            counts.failures,
            counts.failure_ns,
            counts.queue_ns,
            counts.input_ns,
            counts.run_ns,
            counts.output_ns,
            counts.rows,
            counts.runs,
            counts.last_ms,
            counts.cancelled,
        )
        if position >= 0:
            BATCH_ROW.pack_into(self._buffer, self._offset + BATCH_OFFSET + position * BATCH_ROW.size, *row)
        self._sequence += 2
        SEQUENCE.pack_into(self._buffer, self._offset, self._sequence)


class StatisticsReader:
    """Reads the pages of all workers and adds them up."""

    def __init__(self, segments: Iterable[Segment]) -> None:
        self._buffers = []
        for segment in segments:
            check_page(segment)
            self._buffers.append(segment.buffer)

    def totals(self, model: str = "") -> list[VersionCounts]:
        """Per model and version over all workers, ordered by name and version; of one `model` or of all."""
        totals: dict[tuple[str, int], VersionCounts] = {}
        for buffer in self._buffers:
            for index in range(SLOTS):
                counts = _read_slot(buffer, index)
                if counts is None:
                    break
                if model not in ("", counts.model):
                    continue
                key = (counts.model, counts.version)
                if key in totals:
                    totals[key].add(counts)
                else:
                    totals[key] = counts
        return [totals[key] for key in sorted(totals)]

    def in_flight(self, worker: int) -> int:
        (count,) = IN_FLIGHT.unpack_from(self._buffers[worker], IN_FLIGHT_OFFSET)
        return int(count)

    def lost_versions(self) -> int:
        """Versions that found no slot in a full page."""
        return sum(int(IN_FLIGHT.unpack_from(buffer, LOST_OFFSET)[0]) for buffer in self._buffers)


def _read_slot(buffer: object, index: int) -> VersionCounts | None:
    """None for a slot never used. A writer killed in mid-write leaves `seq` odd: its last copy is taken as it is."""
    offset = HEADER_BYTES + index * SLOT_BYTES
    view: bytearray = buffer  # type: ignore[assignment]  # an mmap slices to bytes alike
    for attempt in range(QUICK_TRIES + NAPS):
        (before,) = SEQUENCE.unpack_from(view, offset)  # not out of the copy, which is not made from front to back
        copy = bytes(view[offset : offset + SLOT_BYTES])
        (after,) = SEQUENCE.unpack_from(view, offset)
        if before == after and before % 2 == 0:
            break
        if attempt >= QUICK_TRIES:
            time.sleep(NAP_SECONDS)
    name, version = IDENTITY.unpack_from(copy, IDENTITY_OFFSET)
    if not name.rstrip(b"\0"):
        return None
    counts = VersionCounts(name.rstrip(b"\0").decode("utf-8", "replace"), version)
    for key, value in zip(COUNTERS, COUNTER_BLOCK.unpack_from(copy, COUNTERS_OFFSET), strict=True):
        setattr(counts, key, value)
    for position in range(BATCH_SIZES):
        rows, runs, input_ns, run_ns, output_ns = BATCH_ROW.unpack_from(copy, BATCH_OFFSET + position * BATCH_ROW.size)
        if runs:
            counts.batches[rows] = (runs, input_ns, run_ns, output_ns)
    return counts
