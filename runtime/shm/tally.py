"""A row of counters that one process writes and others read.

┌──────────┬────────────┬───────────┬─────────────┐
│ magic 8s │ layout u32 │ count u32 │ count of u64│   little-endian; each counter is written whole
└──────────┴────────────┴───────────┴─────────────┘
"""

from __future__ import annotations

import struct

from runtime.shm.segment import Segment

MAGIC = b"DGTALLY\0"
LAYOUT_VERSION = 1
HEADER = struct.Struct("<8sII")
COUNTER = struct.Struct("<Q")


def create_tally(name: str, count: int) -> Segment:
    segment = Segment.create(name, HEADER.size + count * COUNTER.size)
    HEADER.pack_into(segment.buffer, 0, MAGIC, LAYOUT_VERSION, count)
    return segment


class Tally:
    """Raises ValueError if the segment is not a tally of this layout."""

    def __init__(self, segment: Segment) -> None:
        magic, layout, count = HEADER.unpack_from(segment.buffer, 0)
        if (magic, layout) != (MAGIC, LAYOUT_VERSION) or segment.size_bytes < HEADER.size + count * COUNTER.size:
            raise ValueError(f"expected a tally of layout {LAYOUT_VERSION}, got {magic!r} layout {layout}")
        self._buffer = segment.buffer

    def add(self, index: int, count: int = 1) -> None:
        """Only in the process that owns the tally; one thread at a time."""
        COUNTER.pack_into(self._buffer, HEADER.size + index * COUNTER.size, self.value(index) + count)

    def value(self, index: int) -> int:
        (value,) = COUNTER.unpack_from(self._buffer, HEADER.size + index * COUNTER.size)
        return int(value)
