"""Counters of every version a worker has served, in a page that only this worker writes.

    header, 64 bytes                            slot, SLOT_WORDS u64 each
    ┌──────────┬───────────────┬────────────┐   ┌──────────┬─────────────┬─────────┬──────────┬───────────────┐
    │ magic 8s │ layout u32    │ slots u32  │   │ sequence │ model 128s  │ version │ counters │ loaded u64    │
    ├──────────┴────┬──────────┴────────────┤   │ u64      │ utf-8, NULs │ i64     │ 12 u64   │               │
    │ in flight u64 │ lost versions u64     │   ├──────────┴──┬──────────┴────┬────┴──────────┴───────────────┤
    ├───────────────┼───────────────────────┘   │ crashes u64 │ under way     │ batch sizes                   │
    │ used u64      │                           │             │ 16 of u64     │ 32 of 5 u64                   │
    └───────────────┘                           └─────────────┴───────────────┴───────────────────────────────┘
Little-endian. Every number is stored as a whole word, by one instruction: a writer that is killed leaves each as it was
or as it should be. `sequence` is odd while a run is counted; a reader copies until it sees the same even number before
and after. The page outlives its worker (the supervisor owns it), so a restarted worker counts on from where it was and
no total ever falls. When all slots are taken, a new version gets the slot of one that is not served any more. While
`version` is 0 a slot belongs to none, so nothing is seen of the change.
A batch-size row is (rows, runs, input ns, run ns, output ns), and is free while `runs` is 0; sizes beyond the first 32
different ones are counted in the totals only.
`loaded` is 1 once the version has been in memory: the counters of one whose loads all failed are nobody's business.
`under way`: its runs, loads and warm-ups that have begun and not ended, each a 1 in a word that no other thread writes
meanwhile; the last word counts those that found none. `crashes`: how many processes died while any was not 0; only the
supervisor writes it, when the process that writes the rest has ended (crashes.py). These are not under the sequence.
"""

from __future__ import annotations

import struct

from runtime.shm.segment import Segment

MAGIC = b"DGSTATS\0"
LAYOUT_VERSION = 4
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
MARKS = 16  # more than the runs that most versions make at once
BATCH_WORDS = 5  # rows, runs, input ns, run ns, output ns

SEQUENCE = 0  # words of a slot, as all below
IDENTITY_AT = SEQUENCE + 1
COUNTERS_AT = IDENTITY_AT + IDENTITY.size // 8
VERSION_AT = COUNTERS_AT - 1
LOADED_AT = COUNTERS_AT + len(COUNTERS)
CRASHES_AT = LOADED_AT + 1
UNDER_WAY_AT = CRASHES_AT + 1
BATCHES_AT = UNDER_WAY_AT + MARKS
SLOT_WORDS = BATCHES_AT + BATCH_SIZES * BATCH_WORDS
PAGE_BYTES = HEADER_BYTES + SLOTS * SLOT_WORDS * 8


def create_page(name: str) -> Segment:
    segment = Segment.create(name, PAGE_BYTES)
    HEADER.pack_into(segment.buffer, 0, MAGIC, LAYOUT_VERSION, SLOTS)
    return segment
