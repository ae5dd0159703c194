"""A summary as bytes, for the store, a profile and the wire.

    summary
    ┌───────────┬─────────────┬────────────┬───────────────────┬──────────┬───────────┬─────────┬───────────┐
    │ "DGSU" 4s │ version u16 │ parts u16  │ schema sha256 32s │ rows u64 │ parts ... │ sample  │ crc32 u32 │
    └───────────┴─────────────┴────────────┴───────────────────┴──────────┴───────────┴─────────┴───────────┘
    part, in the schema's order
    ┌─────────────┬────────────────────────────────────┬──────────────┬────────────────────────────────┐
    │ sketches u8 │ each: bytes u32, as docs/sketches  │ counts u8    │ each: numbers u8, i64[numbers] │
    └─────────────┴────────────────────────────────────┴──────────────┴────────────────────────────────┘
    ┌────────────────────────────────────────────────────────────────────────────────────────────────┐
    │ sample: bytes u32 (0: none), a sample of rows, as docs/sketches has it                         │
    └────────────────────────────────────────────────────────────────────────────────────────────────┘

Little-endian throughout. The checksum (zlib's CRC-32) is over all that comes before it.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

from runtime.sketch.codec import Sketch, decode, encode
from runtime.sketch.errors import Malformed
from runtime.sketch.rows import RowSample

if TYPE_CHECKING:
    from runtime.profile.summary import Summary

MAGIC = b"DGSU"
VERSION = 1
FRONT = struct.Struct("<4sHH32sQ")
LENGTH = struct.Struct("<I")
MOST_ROWS = (1 << 62) - 1
"""Sums of a few cannot overflow."""


def write_summary(summary: Summary) -> bytes:
    digest = bytes.fromhex(summary.schema.digest.removeprefix("sha256:"))
    parts = [FRONT.pack(MAGIC, VERSION, len(summary.measures), digest, summary.rows)]
    for measure in summary.measures:
        sketches = [encode(sketch) for sketch in measure.sketches()]
        parts.append(bytes([len(sketches)]))
        for data in sketches:
            parts += [LENGTH.pack(len(data)), data]
        counts = measure.counts()
        parts.append(bytes([len(counts)]))
        for numbers in counts:
            parts += [bytes([len(numbers)]), numbers.astype("<i8").tobytes()]
    sample = encode(summary.sampled) if summary.sampled is not None else b""
    parts += [LENGTH.pack(len(sample)), sample]
    body = b"".join(parts)
    return body + LENGTH.pack(zlib.crc32(body))


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise Malformed(f"expected {size} more bytes at byte {self._at}, got {len(self._data) - self._at}")
        self._at += size
        return self._data[self._at - size : self._at]

    def length(self) -> int:
        return int(LENGTH.unpack(self.take(LENGTH.size))[0])

    def end(self) -> None:
        if self._at != len(self._data):
            raise Malformed(f"expected the summary to end at byte {self._at}, got {len(self._data) - self._at} more")


def read_summary(summary: Summary, data: bytes) -> Summary:
    """Fills an empty summary."""
    if len(data) < FRONT.size + LENGTH.size:
        raise Malformed(f"expected {FRONT.size + LENGTH.size} bytes or more, got {len(data)}")
    body = data[: -LENGTH.size]
    if LENGTH.unpack_from(data, len(body))[0] != zlib.crc32(body):
        raise Malformed("the checksum is that of other bytes: they were changed on their way")
    reader = _Bytes(body)
    magic, version, parts, digest, rows = FRONT.unpack(reader.take(FRONT.size))
    if (magic, version) != (MAGIC, VERSION):
        raise Malformed(f"expected a summary of version {VERSION}, got {magic!r} of {version}")
    if "sha256:" + digest.hex() != summary.schema.digest or parts != len(summary.measures):
        raise Malformed("the summary is of another schema")
    if rows > MOST_ROWS:
        raise Malformed(f"expected {MOST_ROWS} rows or less, got {rows}")
    for measure in summary.measures:
        sketches: list[Sketch] = [decode(reader.take(reader.length())) for _ in range(reader.take(1)[0])]
        counts = [np.frombuffer(reader.take(8 * reader.take(1)[0]), "<i8") for _ in range(reader.take(1)[0])]
        if any((numbers < 0).any() for numbers in counts):
            raise Malformed("expected counts of 0 or more")
        measure.restore(sketches, counts)
    size = reader.length()
    if size:
        sample = decode(reader.take(size))
        mine = summary.sampled
        if mine is None or not isinstance(sample, RowSample):
            raise Malformed("expected no sample of rows")
        if (sample.size, sample.columns) != (mine.size, mine.columns):
            raise Malformed(f"expected a sample of {mine.size} rows of {mine.columns} columns, got {sample!r}")
        mine.fill(sample.keys[: sample.filled], sample.values[: sample.filled], sample.seen)
    elif summary.sampled is not None:
        raise Malformed("expected a sample of rows")
    reader.end()
    summary.set_rows(rows)
    return summary
