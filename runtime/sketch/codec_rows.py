"""Samples of rows as bytes: the sketch whose keys ascend.

sample of rows
┌──────────┬─────────────┬──────────┬──────────┬───────────────────────┬───────────────────────────┐
│ size u32 │ columns u32 │ seen u64 │ rows u32 │ keys u64[rows], asc.  │ values f32[rows, columns] │
└──────────┴─────────────┴──────────┴──────────┴───────────────────────┴───────────────────────────┘
"""

from __future__ import annotations

import struct

import numpy as np

from runtime.sketch.codec_reader import Reader, require
from runtime.sketch.rows import MAX_COLUMNS, MAX_ROWS, RowSample

FRONT = struct.Struct("<IIQI")


def write_rows(sample: RowSample) -> bytes:
    order = np.argsort(sample.keys[: sample.filled], kind="stable")
    front = FRONT.pack(sample.size, sample.columns, sample.seen, sample.filled)
    return front + sample.keys[order].tobytes() + sample.values[order].tobytes()


def read_rows(reader: Reader) -> RowSample:
    size, columns, seen, rows = reader.fields(FRONT)
    require(1 <= size <= MAX_ROWS and 1 <= columns <= MAX_COLUMNS, "a sample within its bounds")
    require(rows == min(seen, size), "as many rows as were seen, or as have room")
    reader.need(rows * (8 + 4 * columns))
    keys = np.frombuffer(reader.take(8 * rows), "<u8")
    values = np.frombuffer(reader.take(4 * rows * columns), "<f4").reshape(rows, columns)
    require((keys[1:] >= keys[:-1]).all(), "keys that ascend")
    sample = RowSample(size, columns)
    sample.fill(keys, values, seen)
    return sample
