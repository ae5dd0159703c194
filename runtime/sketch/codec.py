"""Sketches as bytes, for the store and the wire. docs/sketches.md describes them byte by byte.

    envelope
    ┌───────────┬─────────────┬──────────┬──────────────────┬─────────┬───────────┐
    │ "DGSK" 4s │ version u16 │ kind u16 │ payload bytes u32│ payload │ crc32 u32 │   little-endian
    └───────────┴─────────────┴──────────┴──────────────────┴─────────┴───────────┘

The same state has the same bytes, and there is one way only to write it: what `decode` takes, `encode` gives back. The
checksum (zlib's CRC-32) is over all that comes before it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

from runtime.sketch.block import Block
from runtime.sketch.categories import CategoryCounts
from runtime.sketch.codec_block import read_block, write_block
from runtime.sketch.codec_keys import read_categories, read_frequent, write_categories, write_frequent
from runtime.sketch.codec_numbers import (
    read_distinct,
    read_histogram,
    read_moments,
    write_distinct,
    write_histogram,
    write_moments,
)
from runtime.sketch.codec_reader import Reader
from runtime.sketch.codec_rows import read_rows, write_rows
from runtime.sketch.distinct import DistinctCount
from runtime.sketch.errors import Malformed
from runtime.sketch.exponential import ExponentialHistogram
from runtime.sketch.frequent import FrequentValues
from runtime.sketch.moments import Moments
from runtime.sketch.rows import RowSample

MAGIC = b"DGSK"
VERSION = 1
ENVELOPE = struct.Struct("<4sHHI")
CHECKSUM = struct.Struct("<I")
MAX_PAYLOAD_BYTES = (1 << 32) - 1

Sketch = ExponentialHistogram | Moments | DistinctCount | FrequentValues | CategoryCounts | Block | RowSample

KINDS: dict[int, tuple[type[Any], Callable[[Any], bytes], Callable[[Reader], Sketch]]] = {
    1: (ExponentialHistogram, write_histogram, read_histogram),
    2: (Moments, write_moments, read_moments),
    3: (DistinctCount, write_distinct, read_distinct),
    4: (FrequentValues, write_frequent, read_frequent),
    5: (CategoryCounts, write_categories, read_categories),
    6: (Block, write_block, read_block),
    7: (RowSample, write_rows, read_rows),
}


def encode(sketch: Sketch) -> bytes:
    """Raises ValueError for a block of more than 4 GiB."""
    for kind, (type_, write, _) in KINDS.items():
        if isinstance(sketch, type_):
            payload = write(sketch)
            if len(payload) > MAX_PAYLOAD_BYTES:
                raise ValueError(f"expected a payload of {MAX_PAYLOAD_BYTES} bytes or less, got {len(payload)}")
            body = ENVELOPE.pack(MAGIC, VERSION, kind, len(payload)) + payload
            return body + CHECKSUM.pack(zlib.crc32(body))
    raise TypeError(f"expected a sketch, got {type(sketch).__name__}")


def decode(data: bytes) -> Sketch:
    """Raises Malformed for anything that `encode` has not written, or written in part, or in another version."""
    if len(data) < ENVELOPE.size + CHECKSUM.size:
        raise Malformed(f"expected {ENVELOPE.size + CHECKSUM.size} bytes or more, got {len(data)}")
    magic, version, kind, size = ENVELOPE.unpack_from(data)
    if magic != MAGIC:
        raise Malformed(f"expected a sketch, which begins with {MAGIC!r}, got {magic!r}")
    if version != VERSION:
        raise Malformed(f"expected version {VERSION} of the format, got {version}")
    if len(data) != ENVELOPE.size + size + CHECKSUM.size:
        raise Malformed(f"expected {ENVELOPE.size + size + CHECKSUM.size} bytes as said at the front, got {len(data)}")
    body = data[: -CHECKSUM.size]
    if CHECKSUM.unpack_from(data, len(body))[0] != zlib.crc32(body):
        raise Malformed("the checksum is that of other bytes: they were changed on their way")
    if kind not in KINDS:
        raise Malformed(f"expected a kind of {min(KINDS)} to {max(KINDS)}, got {kind}")
    reader = Reader(body, ENVELOPE.size)
    sketch = KINDS[kind][2](reader)
    reader.expect_end()
    return sketch
