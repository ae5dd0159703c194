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
    │ released u64 │ logged u64            │   the reader's line
    └──────────────┴───────────────────────┘
Little-endian. `written` and `released` count records since the ring was made, and never fall: record n lies at place
n % records. The writer fills a record and then raises `written`; when `written - released` reaches `records` it drops
the record and counts it. The reader raises `released` when it needs the records no more: what it has taken and not
released is there again for the next reader, should this one be killed. `logged` is how far the access log has come. A
name, cut at the end of a character, is written once, then `named` is raised: it is the number of the last.
Before each raise there is a fence, and one behind each look at what the other side has raised.
The ring outlives both processes: the supervisor owns it.
"""

from __future__ import annotations

import struct

from runtime.shm.record_layout import LAYOUT_VERSION, RECORD_BYTES
from runtime.shm.segment import Segment

MAGIC = b"DGRING\0\0"
HEADER = struct.Struct("<8sIIQQ")
HEADER_BYTES = 192
WORDS = HEADER_BYTES // 8
WRITTEN, NAMED, DROPPED_SAMPLED, DROPPED_OTHER = 8, 9, 10, 11  # words of the writer's line
RELEASED, LOGGED = 16, 17  # of the reader's
NAMES = 16_384
NAME_BYTES = 256
NAME_LENGTH = struct.Struct("<H")
MAX_NAME_BYTES = NAME_BYTES - NAME_LENGTH.size
NAMES_OFFSET = HEADER_BYTES
RECORDS_OFFSET = NAMES_OFFSET + NAMES * NAME_BYTES
SEPARATOR = "\x1f"


def create_ring(name: str, records: int) -> Segment:
    """`records`: how many it holds; each is RECORD_BYTES. Pages that were never written take no memory."""
    segment = Segment.create(name, RECORDS_OFFSET + records * RECORD_BYTES)
    HEADER.pack_into(segment.buffer, 0, MAGIC, LAYOUT_VERSION, RECORD_BYTES, records, NAMES)
    return segment
