"""Counters of every version a worker has served, in a page that only this worker writes.

    header, 64 bytes                              slot, SLOT_WORDS u64 each
    ┌──────────┬───────────────┬────────────┐     ┌──────────┬─────────────┬─────────┬──────────┬───────────────┐
    │ magic 8s │ layout u32    │ slots u32  │     │ sequence │ model 128s  │ version │ counters │ batch sizes   │
    ├──────────┴────┬──────────┴────────────┤     │ u64      │ utf-8, NULs │ i64     │ 12 u64   │ 32 of 5 u64   │
    │ in flight u64 │ lost versions u64     │     └──────────┴─────────────┴─────────┴──────────┴───────────────┘
    ├───────────────┼───────────────────────┘
    │ used u64      │
    └───────────────┘
Little-endian. Every number is stored as a whole word, by one instruction: a writer that is killed leaves each as it was
or as it should be. `sequence` is odd while a run is counted; a reader copies until it sees the same even number before
and after. The page outlives its worker (the supervisor owns it), so a restarted worker counts on from where it was and
no total ever falls. When all slots are taken, a new version gets the slot of one that is not served any more. While
`version` is 0 a slot belongs to none, so nothing is seen of the change.
A batch-size row is (rows, runs, input ns, run ns, output ns), and is free while `runs` is 0; sizes beyond the first 32
different ones are counted in the totals only.
"""

from __future__ import annotations

import struct

from runtime.shm.segment import Segment

MAGIC = b"DGSTATS\0"
LAYOUT_VERSION = 3
SLOTS = 512
MODEL_BYTES = 128
BATCH_SIZES = 32

HEADER = struct.Struct("<8sII")
HEADER_BYTES = 64
IN_FLIGHT, LOST, USED = 2, 3, 4  # words of the header
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
BATCH_WORDS = 5  # rows, runs, input ns, run ns, output ns

SEQUENCE = 0  # words of a slot, as all below
IDENTITY_AT = SEQUENCE + 1
COUNTERS_AT = IDENTITY_AT + IDENTITY.size // 8
VERSION_AT = COUNTERS_AT - 1
BATCHES_AT = COUNTERS_AT + len(COUNTERS)
SLOT_WORDS = BATCHES_AT + BATCH_SIZES * BATCH_WORDS
PAGE_BYTES = HEADER_BYTES + SLOTS * SLOT_WORDS * 8


def create_page(name: str) -> Segment:
    segment = Segment.create(name, PAGE_BYTES)
    HEADER.pack_into(segment.buffer, 0, MAGIC, LAYOUT_VERSION, SLOTS)
    return segment
