"""The pane arena: what a worker has summed up of each version's values, until control has collected it.

    arena: one worker writes it                        slot, 32 words
    ┌──────────────────────────────────────────────┐   ┌───────────┬───────────┬─────────┬────────────┐
    │ magic 8s │ layout u32 │ slots u32 │ size u64 │   │ state u64 │ id u64    │ version │ generation │
    │ used u64 │ refused u64                       │   ├───────────┴─┬─────────┴────┬────┴────────────┤
    │ discarded panes u64 │ discarded rows u64     │   │ offset u64  │ size u64     │ pane size u64   │
    ├──────────────────────────────────────────────┤   ├─────────────┴────────────┬─┴─────────────────┤
    │ being discarded: which pane u64,             │   │ bytes of model, digest,  │ reserved: 0       │
    │ then both counts behind it, 2 u64            │   │ description   3 u64      │ 6 u64             │
128 ├──────────────────────────────────────────────┤   ├──────────────────────────┴───────────────────┤
    │ slots, SLOTS of 256 bytes                    │   │ heads of the two panes, 8 words each         │
    ├──────────────────────────────────────────────┤   └──────────────────────────────────────────────┘
    │ allocations, from ALLOCATIONS_AT on          │   head of a pane
    └──────────────────────────────────────────────┘   ┌─────────────────────┬──────────────┬───────────┐
    allocation of a slot, in pages of 4,096 bytes      │ serial * 4 + state  │ sequence u64 │ epoch u64 │
    ┌──────────────────────────────┬────────┬────────┐ ├───────────────┬─────┴────────┬─────┴────┬──────┤
    │ model, digest, description   │ pane 0 │ pane 1 │ │ first unix ns │ last unix ns │ rows u64 │ 0, 0 │
    └──────────────────────────────┴────────┴────────┘ └───────────────┴──────────────┴──────────┴──────┘
    control page: control writes it
    ┌──────────┬────────────┬─────────────┬───────────┬───────────┐ 64 ┌──────────────────────────────────────┐
    │ magic 8s │ layout u32 │ workers u32 │ slots u64 │ epoch u64 │    │ collected: u64[workers, SLOTS, 2]    │
    └──────────┴────────────┴─────────────┴───────────┴───────────┘    └──────────────────────────────────────┘
Little-endian; every number is stored as a whole word. The supervisor owns arenas and page: they outlive worker and
control. What holds between these two is in docs/panes.md.

`collected` holds, of a pane, which one was collected last: (slot id + serial) * 2 while control zeroes it, and one more
when that is done. Slot ids are random and never used again, so that nothing that is said of a slot is taken for
something about the next one in its place.
"""

from __future__ import annotations

import struct

from runtime.shm.segment import Segment

ARENA_MAGIC = b"DGPANES\0"
CONTROL_MAGIC = b"DGEPOCH\0"
LAYOUT_VERSION = 1
SLOTS = 1024
PANES = 2
PAGE_BYTES = 4096
WORD = 8
WORD_MASK = (1 << 64) - 1

ARENA_HEADER = struct.Struct("<8sIIQ")
ARENA_SIZE, USED, REFUSED, DISCARDED_PANES, DISCARDED_ROWS = 2, 3, 4, 5, 6  # words of the header
DISCARDING, PANES_AFTER, ROWS_AFTER = 8, 9, 10
SLOTS_AT = 16  # words, as all below
SLOT_WORDS = 32

SLOT_STATE, ID, VERSION, GENERATION, OFFSET, SIZE, PANE_SIZE, MODEL_SIZE, DIGEST_SIZE, DESCRIPTION_SIZE = range(10)
FREE, LIVE, ENDED = 0, 1, 2  # states of a slot
HEADS_AT = 16
HEAD_WORDS = 8

PANE_STATE, SEQUENCE, EPOCH, FIRST, LAST, ROWS = range(6)  # words of a head
EMPTY, OPEN, CLOSED = 0, 1, 2  # states of a pane
STATES = 4

ALLOCATIONS_AT = -(-(SLOTS_AT + SLOTS * SLOT_WORDS) * WORD // PAGE_BYTES) * PAGE_BYTES
"""Bytes."""

CONTROL_HEADER = struct.Struct("<8sIIQ")
CONTROL_EPOCH = 3
COLLECTED_AT = 8

Words = memoryview
"""Of a segment, as 64-bit words: stores one in less time than an array does."""


class PanesMismatch(RuntimeError):
    """The segment was made by another version of this program, is damaged, or is not what it should be."""


def create_arena(name: str, size_bytes: int) -> Segment:
    """`size_bytes`: the most that all panes of a worker may take, cut to whole pages. What is not written takes none.

    Raises ValueError when there would be no room for even one slot.
    """
    size_bytes -= size_bytes % PAGE_BYTES
    least = ALLOCATIONS_AT + (1 + PANES) * PAGE_BYTES
    if size_bytes < least:
        raise ValueError(f"an arena of panes has at least {least} bytes, got {size_bytes}")
    segment = Segment.create(name, size_bytes)
    ARENA_HEADER.pack_into(segment.buffer, 0, ARENA_MAGIC, LAYOUT_VERSION, SLOTS, size_bytes)
    return segment


def create_pane_control(name: str, workers: int) -> Segment:
    segment = Segment.create(name, (COLLECTED_AT + workers * SLOTS * PANES) * WORD)
    CONTROL_HEADER.pack_into(segment.buffer, 0, CONTROL_MAGIC, LAYOUT_VERSION, workers, SLOTS)
    return segment


def arena_words(segment: Segment) -> Words:
    """Raises PanesMismatch."""
    if segment.size_bytes < ALLOCATIONS_AT:
        raise PanesMismatch(f"expected an arena of panes, got a segment of {segment.size_bytes} bytes")
    magic, layout, slots, size_bytes = ARENA_HEADER.unpack_from(segment.buffer, 0)
    if (magic, layout, slots, size_bytes) != (ARENA_MAGIC, LAYOUT_VERSION, SLOTS, segment.size_bytes):
        raise PanesMismatch(
            f"expected an arena of panes of layout {LAYOUT_VERSION}, {SLOTS} slots and {segment.size_bytes} bytes, "
            f"got {magic!r} layout {layout}, {slots} slots, {size_bytes} bytes"
        )
    words = memoryview(segment.buffer).cast("Q")
    if words[USED] > SLOTS or words[DISCARDING] > SLOTS * PANES:
        raise PanesMismatch(
            f"expected at most {SLOTS} used slots in an arena of panes, and one of their panes to be discarded, "
            f"got {words[USED]} and pane {words[DISCARDING]}"
        )
    return words


def control_words(segment: Segment, workers: int) -> Words:
    """Of a page for at least so many workers. Raises PanesMismatch."""
    if segment.size_bytes < COLLECTED_AT * WORD:
        raise PanesMismatch(f"expected a control page of panes, got a segment of {segment.size_bytes} bytes")
    magic, layout, found, slots = CONTROL_HEADER.unpack_from(segment.buffer, 0)
    whole = segment.size_bytes == (COLLECTED_AT + found * SLOTS * PANES) * WORD
    if (magic, layout, slots, whole) != (CONTROL_MAGIC, LAYOUT_VERSION, SLOTS, True) or found < workers:
        raise PanesMismatch(
            f"expected a control page of panes of layout {LAYOUT_VERSION} for {workers} workers and {SLOTS} slots, "
            f"got {magic!r} layout {layout} for {found} workers and {slots} slots, {segment.size_bytes} bytes"
        )
    return memoryview(segment.buffer).cast("Q")


def slot_at(place: int) -> int:
    """The first word of a slot."""
    return SLOTS_AT + place * SLOT_WORDS


def head_at(place: int, pane: int) -> int:
    """The first word of a pane's head."""
    return slot_at(place) + HEADS_AT + pane * HEAD_WORDS


def collected_at(worker: int, place: int, pane: int) -> int:
    """The word of the control page that says which of a place's panes was collected last."""
    return COLLECTED_AT + (worker * SLOTS + place) * PANES + pane


def zeroing(slot_id: int, serial: int) -> int:
    """What stands there while the pane is being zeroed: it is stored elsewhere already."""
    return (slot_id + serial) * 2 & WORD_MASK


def acknowledged(slot_id: int, serial: int) -> int:
    """What stands there once the pane is zero and its writer's again."""
    return zeroing(slot_id, serial) + 1


def pages(size_bytes: int) -> int:
    """`size_bytes`, rounded up to whole pages."""
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES


def allocation_bytes(text_bytes: int, pane_size: int) -> int:
    """What a slot takes of the arena at most."""
    return pages(text_bytes) + PANES * pages(pane_size)


def is_sound(words: Words, place: int) -> bool:
    """The slot's allocation lies in the arena, and is as large as its parts."""
    slot = slot_at(place)
    text_bytes = sum(words[slot + word] for word in (MODEL_SIZE, DIGEST_SIZE, DESCRIPTION_SIZE))
    begin, size, pane_size = words[slot + OFFSET], words[slot + SIZE], words[slot + PANE_SIZE]
    is_inside = begin >= ALLOCATIONS_AT and begin + size <= words[ARENA_SIZE]
    return is_inside and begin % PAGE_BYTES == 0 and size == allocation_bytes(text_bytes, pane_size) and pane_size > 0


def pane_offset(offset: int, size: int, pane_size: int, pane: int) -> int:
    """Bytes from the arena's beginning: the panes stand at the end of a slot's allocation."""
    return offset + size - (PANES - pane) * pages(pane_size)
