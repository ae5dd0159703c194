"""A row of counters that one process writes and others read.

┌──────────┬────────────┬───────────┬─────────────┐
│ magic 8s │ layout u32 │ count u32 │ count of u64│   little-endian
└──────────┴────────────┴───────────┴─────────────┘
Each counter is stored as a whole word, by one instruction: nobody reads half of it, and a kill leaves the old or the
new. The supervisor owns one, which is why this does without numpy.
"""

from __future__ import annotations

import struct

from runtime.shm.segment import Segment

MAGIC = b"DGTALLY\0"
LAYOUT_VERSION = 1
HEADER = struct.Struct("<8sII")
COUNTER_BYTES = 8


def create_tally(name: str, count: int) -> Segment:
    segment = Segment.create(name, HEADER.size + count * COUNTER_BYTES)
    HEADER.pack_into(segment.buffer, 0, MAGIC, LAYOUT_VERSION, count)
    return segment


class Tally:
    """Raises ValueError if the segment is not a tally of this layout."""

    def __init__(self, segment: Segment) -> None:
        magic, layout, count = HEADER.unpack_from(segment.buffer, 0)
        if (magic, layout) != (MAGIC, LAYOUT_VERSION) or segment.size_bytes < HEADER.size + count * COUNTER_BYTES:
            raise ValueError(f"expected a tally of layout {LAYOUT_VERSION}, got {magic!r} layout {layout}")
        self._counters = memoryview(segment.buffer)[HEADER.size : HEADER.size + count * COUNTER_BYTES].cast("Q")

    def add(self, index: int, count: int = 1) -> None:
        """Only in the process that owns the tally; one thread at a time."""
        self._counters[index] += count

    def value(self, index: int) -> int:
        return self._counters[index]
