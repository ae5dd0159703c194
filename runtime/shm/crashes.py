"""Who broke the process: what was under way in a page whose writer has died becomes a crash of its version.

The supervisor does it, before it starts the process anew. So this does without numpy and numba, as the supervisor does,
and takes the page as it was left: half-way through a change, or written over by whatever broke the process.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.shm.segment import Segment
from runtime.shm.statistics_layout import (
    BATCHES_AT,
    CRASHES_AT,
    HEADER,
    HEADER_BYTES,
    IDENTITY,
    IDENTITY_AT,
    LAYOUT_VERSION,
    MAGIC,
    PAGE_BYTES,
    SLOT_WORDS,
    SLOTS,
    UNDER_WAY_AT,
    USED,
    VERSION_AT,
)

WORD_BYTES = 8


@dataclass(frozen=True, slots=True)
class Crash:
    """A version that was under way when its process died: `runs` of it, loads and warm-ups among them."""

    model: str
    version: int
    runs: int


def note_crashes(segment: Segment, *, count: bool) -> list[Crash]:
    """Of a page whose writer has ended: its marks are taken away, and what they marked is answered.

    `count`: each such version has crashed once. False where the process was ended from outside: nothing is counted.
    A page that is not one of this layout any more answers nothing.
    """
    if segment.size_bytes != PAGE_BYTES or HEADER.unpack_from(segment.buffer, 0) != (MAGIC, LAYOUT_VERSION, SLOTS):
        return []
    crashes: list[Crash] = []
    with memoryview(segment.buffer) as raw, raw.cast("Q") as words:
        for place in range(min(words[USED], SLOTS)):
            slot = HEADER_BYTES // WORD_BYTES + place * SLOT_WORDS
            marks = range(slot + UNDER_WAY_AT, slot + BATCHES_AT)
            under_way = sum(words[mark] for mark in marks)
            if not under_way:
                continue
            for mark in marks:
                words[mark] = 0
            if not words[slot + VERSION_AT]:
                continue
            model, version = IDENTITY.unpack_from(raw, (slot + IDENTITY_AT) * WORD_BYTES)
            crashes.append(Crash(model.rstrip(b"\0").decode("utf-8", "replace"), version, under_way))
            if count:
                words[slot + CRASHES_AT] += 1
    return crashes
