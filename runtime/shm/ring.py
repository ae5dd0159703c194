"""Both ends of a ring of request records. Its layout, and what holds between the two, is in ring_layout.py."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.shm.order import order
from runtime.shm.record import RECORD, Records
from runtime.shm.record_layout import LAYOUT_VERSION, RECORD_BYTES
from runtime.shm.ring_layout import (
    DROPPED_OTHER,
    DROPPED_SAMPLED,
    HEADER,
    LOGGED,
    MAGIC,
    MAX_NAME_BYTES,
    NAME_BYTES,
    NAME_LENGTH,
    NAMED,
    NAMES,
    NAMES_OFFSET,
    RECORDS_OFFSET,
    RELEASED,
    SEPARATOR,
    WORDS,
    WRITTEN,
)
from runtime.shm.segment import Segment
from runtime.shm.take import cut_at_run


class RingMismatch(RuntimeError):
    """The segment was made by another version of this program, or is not a ring."""


@dataclass(frozen=True, slots=True)
class RingView:
    """A mapped ring. `words`: uint64[WORDS], the header; `records`: RECORD[capacity]; `raw`, `slots`: the same as rows
    of uint8 and of uint64.
    """

    segment: Segment
    words: npt.NDArray[np.uint64]
    records: Records
    raw: npt.NDArray[np.uint8]
    slots: npt.NDArray[np.uint64]

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
    return RingView(segment, words, raw.view(RECORD).reshape(-1), raw, raw.view(np.uint64))


class NameWriter:
    """Numbers for names, in the process that writes the ring. Not thread-safe."""

    def __init__(self, view: RingView) -> None:
        self._view = view
        names = NameReader(view)
        names.refresh()
        self._numbers = {name: number for number, name in enumerate(names.names) if number}

    def number(self, *parts: str) -> int:
        """The same number for the same parts, over restarts too; 0 for an empty name and when the table is full."""
        data = SEPARATOR.join(parts).encode()
        if len(data) > MAX_NAME_BYTES:
            data = data[:MAX_NAME_BYTES].decode(errors="ignore").encode()  # at the end of a character
        text = data.decode()  # as any reader will have it, so that the next writer knows it too
        known = self._numbers.get(text)
        if known is not None:
            return known
        number = int(self._view.words[NAMED]) + 1
        if not text or number >= NAMES:
            return 0
        offset = NAMES_OFFSET + number * NAME_BYTES
        buffer = self._view.segment.buffer
        buffer[offset + NAME_LENGTH.size : offset + NAME_LENGTH.size + len(data)] = data
        NAME_LENGTH.pack_into(buffer, offset, len(data))
        order()
        self._view.words[NAMED] = number
        self._numbers[text] = number
        return number


class NameReader:
    """`names[number]` is the text under which it was given; "" for 0."""

    def __init__(self, view: RingView) -> None:
        self._view = view
        self.names: list[str] = [""]

    def refresh(self) -> None:
        """Takes up names written since. Call it after reading `written`, before looking at the records."""
        buffer = self._view.segment.buffer
        named = int(self._view.words[NAMED])
        if named < len(self.names):
            return
        order()
        for number in range(len(self.names), named + 1):
            offset = NAMES_OFFSET + number * NAME_BYTES
            (length,) = NAME_LENGTH.unpack_from(buffer, offset)
            data = buffer[offset + NAME_LENGTH.size : offset + NAME_LENGTH.size + length]
            self.names.append(data.decode("utf-8", "replace"))


class RingReader:
    """Takes records in order; what is taken stays in the ring until it is released. Single-threaded.

    `written`, `taken` and `logged` count records since the ring was made; `look` sees what has been written since.
    """

    def __init__(self, view: RingView) -> None:
        self._view = view
        self.names = NameReader(view)
        self.taken = int(view.words[RELEASED])
        self.logged = max(int(view.words[LOGGED]), self.taken)
        self.written = self.taken
        self.look()

    def look(self) -> None:
        """All else sees the ring as it was at the last look."""
        self.written = int(self._view.words[WRITTEN])
        order()

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
            count = cut_at_run(self._view.records, self.taken, count, most)
        start = self.taken
        self.taken += count
        return self.between(start, self.taken)

    def between(self, start: int, stop: int) -> list[Records]:
        """The records numbered `start` to `stop`, which have been written and not released, with their names read."""
        self.names.refresh()
        place = start % self._view.capacity
        first = self._view.records[place : place + stop - start]
        rest = stop - start - len(first)
        return [part for part in (first, self._view.records[:rest]) if len(part)]

    def untold(self) -> list[Records]:
        """The records not logged yet, for the access log; they count as logged from now on."""
        start, self.logged = self.logged, self.written
        self._view.words[LOGGED] = self.logged
        return self.between(start, self.logged) if start < self.logged else []

    def release_logged(self) -> None:
        """Takes and releases what has been logged: nobody else wants it."""
        self.release(self.logged - self.taken)
        self.taken = self.logged

    def release(self, count: int) -> None:
        """The oldest `count` records that were taken may be overwritten."""
        order()  # all that was read of them was read before
        self._view.words[RELEASED] += np.uint64(count)
