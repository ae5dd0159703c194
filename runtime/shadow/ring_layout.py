"""A ring of copies with one writer (a worker) and one reader (the shadow process), and the pairs that copies belong to.

    header 256 bytes                               pairs, 256 bytes each          texts              copies
    ┌──────────┬─────────────┬──────────────┐      ┌─────────────────────────┐    ┌─────────────┐    ┌────────────┐
    │ magic 8s │ layout u32  │ pairs u32    │      │ serial, text's bytes,   │    │ of pair 0:  │    │ copy       │
    ├──────────┴────┬────────┴──────────────┤      │ written, shed by reason │    │ JSON        │    ├────────────┤
    │ room u64      │ text's room u64       │    64├─────────────────────────┤    │ TEXT_BYTES  │    │ copy       │
 64 ├───────────────┼───────────────────────┤      │ status, taken           │    ├─────────────┤    ├────────────┤
    │ end u64       │ newest u64            │   128├─────────────────────────┤    │ of pair 1   │    │ gap        │
    │ serial u64    │ unplaced u64          │      │ what became of them     │    │ ...         │    └────────────┘
128 ├───────────────┼───────────────────────┤      └─────────────────────────┘    └─────────────┘     `room` bytes
    │ begin u64     │                       │       the writer's line, then two
    └───────────────┴───────────────────────┘       of the reader's
Little-endian. `begin` and `end` count bytes since the ring was made and never fall: a copy that begins at n lies
n % room bytes into the last part, whole; where it would reach over the end, a gap is written and it lies at the front.
The writer fills a copy, notes where it begins (`newest`), and then raises `end`. What finds no room is shed, and
counted. Before each raise there is a fence, and one behind each look at what the other side has raised.

A pair has counters of requests, each raised by one side only, by whole words. The writer raises `written` after `end`,
and each copy holds what `written` is with it, so the next writer mends the one word that a kill can leave behind. The
reader sets `taken` to the same before it frees the copy's room, and so the next reader knows what this one had taken.
What it has taken it adds, once that is reported, to one of the counts of what became of copies; the difference is what
is lost with a reader that is killed. So always
    chosen = written + shed = compared + failed + shed later + waiting.
A place belongs to one pair at a time. One that no writer uses, and of which nothing waits, may become another pair's:
`serial` is then 0 first, and a new number last; `status` names the serial that it is meant for.
The ring outlives both processes: the supervisor owns it. Pages that were never written take no memory.
"""

from __future__ import annotations

import struct
from enum import Enum

from runtime.shm.segment import Segment

MAGIC = b"DGCOPY\0\0"
LAYOUT_VERSION = 1
HEADER = struct.Struct("<8sIIQQ")
HEADER_BYTES = 256
WORD = 8
END, NEWEST, LAST_SERIAL, UNPLACED = 8, 9, 10, 11  # words of the writer's line
BEGIN = 16  # of the reader's

PAIRS = 64
"""Of a worker, at a time; a model with three shadows has three for each version that answers."""

PAIRS_AT = HEADER_BYTES // WORD
PAIR_WORDS = 32
SERIAL, TEXT_SIZE, WRITTEN = range(3)  # words of a pair; the writer's
STATUS, TAKEN = 8, 9  # the reader's, as the rest

TEXT_BYTES = 256 * 1024
"""Room for a pair's identity, settings and the names of all its tensors."""

TEXTS_AT = -(-(HEADER_BYTES + PAIRS * PAIR_WORDS * WORD) // 4096) * 4096
COPIES_AT = TEXTS_AT + PAIRS * TEXT_BYTES

ALIGNMENT = 64
"""Of copies, and of the arrays in them."""

LARGEST = 2
"""A copy takes at most the room divided by this: together with the gap before it, it then fits into an empty ring."""


class Shed(Enum):
    """Why a copy that was chosen is not compared."""

    QUEUE_FULL = "queue_full"
    TOO_LARGE = "too_large"
    NO_SHADOW = "no_shadow"
    INCOMPATIBLE = "incompatible"
    LATE = "late"
    LOST = "lost"


class Status(Enum):
    """What the reader can do with a pair's copies. ABSENT: it does not hold the shadow version."""

    ABSENT = 0
    READY = 1
    INCOMPATIBLE = 2


STATUSES = 4  # status word = serial * STATUSES + status

SHED_AT = {
    reason: 3 + at for at, reason in enumerate((Shed.QUEUE_FULL, Shed.TOO_LARGE, Shed.NO_SHADOW, Shed.INCOMPATIBLE))
}
"""Words of a pair: what the writer shed."""

COMPARED, FAILED = "compared", "failed"
OUTCOMES = (COMPARED, FAILED, *(reason.value for reason in (Shed.LATE, Shed.NO_SHADOW, Shed.INCOMPATIBLE, Shed.LOST)))
OUTCOME_AT = {outcome: 16 + at for at, outcome in enumerate(OUTCOMES)}
"""Words of a pair: what became of what the reader took, as far as it was reported."""

COPY = struct.Struct("<QIIQQQQIIII")
"""The head of a copy: its whole size in bytes; its pair, GAP for none; flags; the pair's serial; `written` with this
copy; Unix time and the primary's run, ns; requests, inputs, outputs, bytes of the tables behind it.

Tables: rows u32[requests]; bytes of the ids u32[requests]; an ARRAY and int64[dimensions] for each array; the ids. Then
the arrays' contents, each at a multiple of ALIGNMENT: row-major, or for BYTES lengths u32[elements] and UTF-8.
"""
ARRAY = struct.Struct("<IHHQ")
"""Its number in the signature, ONNX's element type, dimensions, bytes."""

GAP = 2**32 - 1
BATCHED = 1  # flags
LEAST_GAP = COPY.size


def create_copy_ring(name: str, room_bytes: int) -> Segment:
    """`room_bytes`: for copies, cut to a multiple of ALIGNMENT."""
    room_bytes -= room_bytes % ALIGNMENT
    segment = Segment.create(name, COPIES_AT + room_bytes)
    HEADER.pack_into(segment.buffer, 0, MAGIC, LAYOUT_VERSION, PAIRS, room_bytes, TEXT_BYTES)
    return segment


def pair_at(pair: int) -> int:
    """The first word of a pair."""
    return PAIRS_AT + pair * PAIR_WORDS


def text_at(pair: int) -> int:
    """Bytes from the segment's beginning."""
    return TEXTS_AT + pair * TEXT_BYTES


def aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT
