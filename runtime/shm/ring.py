"""A ring of request records with one writer (a worker) and one reader (control), and the names the records refer to.

    header 192 bytes                          names                         records
    ┌──────────┬────────────┬──────────────┐  ┌─────────────────────────┐   ┌──────────────────────┐
    │ magic 8s │ layout u32 │ record u32   │  │ 0: length u16, text 254 │   │ 0: RECORD_BYTES      │
    ├──────────┴───┬────────┴──────────────┤  │ 1: ...                  │   │ 1: ...               │
    │ records u64  │ names u64             │  │ NAMES of 256 bytes      │   │ `records` of them    │
 64 ├──────────────┼───────────────────────┤  └─────────────────────────┘   └──────────────────────┘
    │ written u64  │ named u64             │   the writer's line
    │ dropped sampled u64 │ other u64      │
128 ├──────────────┼───────────────────────┤
    │ released u64 │                       │   the reader's line
    └──────────────┴───────────────────────┘
Little-endian. `written` and `released` count records since the ring was made, and never fall: record n lies at place
n % records. The writer fills a record and then raises `written`; when `written - released` reaches `records` it drops
the record and counts it. The reader raises `released` when it needs the records no more: what it has taken and not
released is there again for the next reader, should this one be killed. A name is written once, then `named` is raised.
The ring outlives both processes: the supervisor owns it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.shm.record import LAYOUT_VERSION, RECORD, RECORD_BYTES, Records
from runtime.shm.segment import Segment
from runtime.shm.take import acquire, cut_at_run

MAGIC = b"DGRING\0\0"
HEADER = struct.Struct("<8sIIQQ")
HEADER_BYTES = 192
WORDS = HEADER_BYTES // 8
WRITTEN, NAMED, DROPPED_SAMPLED, DROPPED_OTHER = 8, 9, 10, 11  # words of the writer's line
RELEASED = 16  # the reader's
NAMES = 16_384
NAME_BYTES = 256
NAME_LENGTH = struct.Struct("<H")
MAX_NAME_BYTES = NAME_BYTES - NAME_LENGTH.size
NAMES_OFFSET = HEADER_BYTES
RECORDS_OFFSET = NAMES_OFFSET + NAMES * NAME_BYTES
SEPARATOR = "\x1f"


class RingMismatch(RuntimeError):
    """The segment was made by another version of this program, or is not a ring."""


def create_ring(name: str, records: int) -> Segment:
    """`records`: how many it holds; each is RECORD_BYTES. Pages that were never written take no memory."""
    segment = Segment.create(name, RECORDS_OFFSET + records * RECORD_BYTES)
    HEADER.pack_into(segment.buffer, 0, MAGIC, LAYOUT_VERSION, RECORD_BYTES, records, NAMES)
    return segment


@dataclass(frozen=True, slots=True)
class RingView:
    """A mapped ring. `words`: uint64[WORDS], the header; `records`: RECORD[capacity]; `raw`: the same as uint8 rows."""

    segment: Segment
    words: npt.NDArray[np.uint64]
    records: Records
    raw: npt.NDArray[np.uint8]

    @property
    def capacity(self) -> int:
        return len(self.records)


def map_ring(segment: Segment) -> RingView:
    """Raises RingMismatch."""
    magic, layout, record_bytes, records, names = HEADER.unpack_from(segment.buffer, 0)
    whole = RECORDS_OFFSET + records * RECORD_BYTES
    if (magic, layout, record_bytes, names, segment.size_bytes) != (MAGIC, LAYOUT_VERSION, RECORD_BYTES, NAMES, whole):
        raise RingMismatch(
            f"expected a ring of layout {LAYOUT_VERSION} with records of {RECORD_BYTES} bytes, "
            f"got {magic!r} layout {layout}, {record_bytes} bytes"
        )
    words = np.frombuffer(segment.buffer, np.uint64, WORDS)
    raw = np.frombuffer(segment.buffer, np.uint8, records * RECORD_BYTES, RECORDS_OFFSET).reshape(-1, RECORD_BYTES)
    return RingView(segment, words, raw.view(RECORD).reshape(-1), raw)


class NameWriter:
    """Numbers for names, in the process that writes the ring. Not thread-safe."""

    def __init__(self, view: RingView) -> None:
        self._view = view
        names = NameReader(view)
        names.refresh()
        self._numbers = {name: number for number, name in enumerate(names.names) if number}

    def number(self, *parts: str) -> int:
        """The same number for the same parts, over restarts too; 0 for an empty name and when the table is full."""
        text = SEPARATOR.join(parts)
        known = self._numbers.get(text)
        if known is not None:
            return known
        data = text.encode()[:MAX_NAME_BYTES]
        number = len(self._numbers) + 1
        if not data or number >= NAMES:
            return 0
        offset = NAMES_OFFSET + number * NAME_BYTES
        buffer = self._view.segment.buffer
        buffer[offset + NAME_LENGTH.size : offset + NAME_LENGTH.size + len(data)] = data
        NAME_LENGTH.pack_into(buffer, offset, len(data))
        self._numbers[text] = number
        self._view.words[NAMED] = number
        return number


class NameReader:
    """`names[number]` is the text under which it was given; "" for 0."""

    def __init__(self, view: RingView) -> None:
        self._view = view
        self.names: list[str] = [""]

    def refresh(self) -> None:
        """Takes up names written since. Call it after reading `written`, before looking at the records."""
        buffer = self._view.segment.buffer
        for number in range(len(self.names), int(self._view.words[NAMED]) + 1):
            offset = NAMES_OFFSET + number * NAME_BYTES
            (length,) = NAME_LENGTH.unpack_from(buffer, offset)
            data = buffer[offset + NAME_LENGTH.size : offset + NAME_LENGTH.size + length]
            self.names.append(data.decode("utf-8", "replace"))


class RingReader:
    """Takes records in order; what is taken stays in the ring until it is released. Single-threaded."""

    def __init__(self, view: RingView) -> None:
        self._view = view
        self.names = NameReader(view)
        self.taken = int(view.words[RELEASED])

    @property
    def written(self) -> int:
        return int(self._view.words[WRITTEN])

    @property
    def waiting(self) -> int:
        """Records written and not yet taken."""
        return self.written - self.taken

    @property
    def capacity(self) -> int:
        return self._view.capacity

    @property
    def held(self) -> int:
        """Records written and not released."""
        return self.written - int(self._view.words[RELEASED])

    @property
    def dropped(self) -> tuple[int, int]:
        """Records that found the ring full, since it was made: sampled ones (spans), others (for the access log)."""
        return int(self._view.words[DROPPED_SAMPLED]), int(self._view.words[DROPPED_OTHER])

    def take(self, most: int) -> list[Records]:
        """At most `most` records, never half of a run, as one or two views into the ring (two where it wraps).

        A run longer than `most` is taken whole. The views hold until `release`.
        """
        count = self.waiting
        if count > most:
            acquire()
            count = cut_at_run(self._view.records, self.taken, count, most)
        start = self.taken
        self.taken += count
        return self.between(start, self.taken)

    def between(self, start: int, stop: int) -> list[Records]:
        """The records numbered `start` to `stop`, which have been written and not released, with their names read."""
        acquire()
        self.names.refresh()
        place = start % self._view.capacity
        first = self._view.records[place : place + stop - start]
        rest = stop - start - len(first)
        return [part for part in (first, self._view.records[:rest]) if len(part)]

    def release(self, count: int) -> None:
        """The oldest `count` records that were taken may be overwritten."""
        self._view.words[RELEASED] += np.uint64(count)
