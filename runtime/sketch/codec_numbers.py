"""Histogram, moments and distinct count as bytes.

    histogram
    ┌───────────────┬────────────────────────────────────────────────────────────────────┐
    │ coarsening u8 │ positive, negative, zero, nan, +inf, -inf, missing, below, above:  │
    │               │ 9 u64                                                              │
    ├───────────────┴──────┬──────────────┬──────────────────────────────────────────────┤
    │ positive:  least f64 │ greatest f64 │ counts, u32 as LEB128, from least's bucket   │   only if positive > 0
    │                      │              │ to greatest's                                │
    ├──────────────────────┴──────────────┴──────────────────────────────────────────────┤
    │ negative:  the same, of magnitudes                                                 │   only if negative > 0
    └────────────────────────────────────────────────────────────────────────────────────┘
    moments: 9 f64, as in a block
    distinct count
    ┌─────────┬─────────┬─────────────────────────────────────────────────────┐
    │ lg_k u8 │ form u8 │ 0: 2^lg_k registers u8                              │
    │         │         │ 1: n u16, then n times place u16, register u8       │   where that is shorter
    └─────────┴─────────┴─────────────────────────────────────────────────────┘
LEB128: 7 bits a byte, low ones first; the top bit says that more follow.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from runtime.sketch.buckets import MAX_SCALE, MIN_SCALE
from runtime.sketch.codec_kernels import MOST_BYTES, write_counts
from runtime.sketch.codec_reader import Reader, require
from runtime.sketch.distinct import DistinctCount, greatest_rank
from runtime.sketch.exponential import ExponentialHistogram
from runtime.sketch.exponential_kernels import index_of
from runtime.sketch.layout import (
    BUCKETS,
    COARSENING,
    COUNT,
    GREATEST_LG_K,
    LEAST_LG_K,
    M2,
    M2_X,
    M2_Y,
    MOMENT_WORDS,
    MOST_COUNTED,
    PAIRS,
    POSITIVE,
    POSITIVE_LEAST,
)
from runtime.sketch.moments import Moments

HEAD = struct.Struct("<B9Q")
EXTREMES = struct.Struct("<dd")
MOMENTS = struct.Struct(f"<{MOMENT_WORDS}d")
DISTINCT = struct.Struct("<BB")
SPARSE = struct.Struct("<H")
ENTRY = np.dtype([("place", "<u2"), ("register", "u1")])
DENSE_FORM, SPARSE_FORM = 0, 1
MOST_IN_COUNTER = (1 << 62) - 1  # sums of a few cannot overflow
MOST_EXACT = 1 << 53


def write_histogram(histogram: ExponentialHistogram) -> bytes:
    head = histogram.heads[0]
    parts = [HEAD.pack(int(head[COARSENING]), *head[:COARSENING].tolist())]
    for sign in (0, 1):
        if head[POSITIVE + sign]:
            _, run = histogram.run(sign)
            out = np.empty(MOST_BYTES * len(run), np.uint8)
            parts += [EXTREMES.pack(*histogram.magnitudes(sign)), out[: write_counts(run, out)].tobytes()]
    return b"".join(parts)


def read_histogram(reader: Reader) -> ExponentialHistogram:
    coarsening, *counts = reader.fields(HEAD)
    require(coarsening <= MAX_SCALE - MIN_SCALE, f"a coarsening of {MAX_SCALE - MIN_SCALE} or less, got {coarsening}")
    require(max(counts) <= MOST_IN_COUNTER, f"counts of {MOST_IN_COUNTER} or less, got {max(counts)}")
    histogram = ExponentialHistogram()
    head = histogram.heads[0]
    head[:COARSENING] = counts
    head[COARSENING] = coarsening
    for sign in (0, 1):
        if counts[POSITIVE + sign]:
            _read_sign(reader, histogram, sign)
    return histogram


def _read_sign(reader: Reader, histogram: ExponentialHistogram, sign: int) -> None:
    head = histogram.heads[0]
    extremes = reader.fields(EXTREMES)
    least, greatest = extremes
    require(0 < least <= greatest < np.inf, f"magnitudes 0 < least <= greatest, got {least} and {greatest}")
    at = POSITIVE_LEAST + 2 * sign
    head[at : at + 2] = np.array(extremes).view(np.int64)
    low, high = (int(index_of(int(bits))) >> int(head[COARSENING]) for bits in head[at : at + 2])
    require(high - low < BUCKETS, f"{BUCKETS} buckets or less at coarsening {head[COARSENING]}, got {high - low + 1}")
    run = reader.counts(high - low + 1)
    require(run[0] and run[-1], "counts in the buckets of least and greatest")
    counted, total = int(run.sum(dtype=np.int64)), int(head[POSITIVE + sign])
    require(counted == total or (counted < total and run.max() == MOST_COUNTED), f"{total} in buckets, got {counted}")
    histogram.buckets[sign, 0, np.arange(low, high + 1) % BUCKETS] = run


def write_moments(moments: Moments) -> bytes:
    return MOMENTS.pack(*moments.row[0].tolist())


def read_moments(reader: Reader) -> Moments:
    moments = Moments()
    row = moments.row[0]
    row[:] = np.frombuffer(reader.take(MOMENTS.size), "<f8")
    count, pairs = float(row[COUNT]), float(row[PAIRS])
    require(0 <= pairs <= count <= MOST_EXACT, f"counts 0 <= pairs <= count, got {pairs} and {count}")
    require(count.is_integer() and pairs.is_integer(), f"whole counts, got {count} and {pairs}")
    require(not (row[[M2, M2_X, M2_Y]] < 0).any(), "no negative sum of squares")
    require(count or not row[:PAIRS].any(), "zeros where nothing was counted")
    require(pairs or not row[PAIRS:].any(), "zeros where no pairs were counted")
    return moments


def write_distinct(distinct: DistinctCount) -> bytes:
    form, registers = _registers_form(distinct)
    return DISTINCT.pack(distinct.lg_k, form) + registers


def _registers_form(distinct: DistinctCount) -> tuple[int, bytes]:
    registers = distinct.registers[0]
    used = np.flatnonzero(registers)
    if SPARSE.size + ENTRY.itemsize * len(used) >= len(registers):
        return DENSE_FORM, registers.tobytes()
    entries: npt.NDArray[np.void] = np.empty(len(used), ENTRY)
    entries["place"], entries["register"] = used, registers[used]
    return SPARSE_FORM, SPARSE.pack(len(used)) + entries.tobytes()


def read_distinct(reader: Reader) -> DistinctCount:
    lg_k, form = reader.fields(DISTINCT)
    require(LEAST_LG_K <= lg_k <= GREATEST_LG_K, f"an lg_k of {LEAST_LG_K} to {GREATEST_LG_K}, got {lg_k}")
    require(form in (DENSE_FORM, SPARSE_FORM), f"a form of 0 or 1, got {form}")
    distinct = DistinctCount(lg_k)
    registers = distinct.registers[0]
    if form == DENSE_FORM:
        registers[:] = np.frombuffer(reader.take(len(registers)), np.uint8)
    else:
        (count,) = reader.fields(SPARSE)
        entries = np.frombuffer(reader.take(ENTRY.itemsize * count), ENTRY)
        places = entries["place"].astype(np.int64)
        require((np.diff(places) > 0).all() and (places < len(registers)).all(), "ascending places of registers")
        require(entries["register"].all(), "no register of 0 among those that are listed")
        registers[places] = entries["register"]
    require(registers.max() <= greatest_rank(lg_k), f"registers of {greatest_rank(lg_k)} or less")
    require(_registers_form(distinct)[0] == form, "registers in the shorter of their two forms")
    return distinct
