"""Which template a record's span is made with: a hash table that compiled code reads and Python fills."""

from __future__ import annotations

from typing import Any

from numba import from_dtype, int32, int64, types, uint64, void

from gateway.telemetry.sampler import SAMPLED
from gateway.telemetry.span_bytes import Array, Int
from runtime.kernels import inline, kernel
from runtime.shm.record import RECORD
from runtime.shm.record_layout import Mark

STREAM = int(Mark.STREAM)
NO_TEMPLATE = -1

ONE_RECORD = from_dtype(RECORD)
RECORDS = types.Array(ONE_RECORD, 1, "C", readonly=True)
CHOSEN = types.Array(int32, 1, "C")
_TABLE = types.Array(uint64, 2, "C")


@inline
def record_at(first: Array, second: Array, i: Int) -> Any:
    """Record i of `first` and `second` together."""
    return first[i] if i < len(first) else second[i - len(first)]


@inline
def _slot(table: Array, low: Int, high: Int) -> Int:
    """Where the two words stand in the table, or the free place where they belong. The table is never full."""
    mask = uint64(len(table) - 1)
    mixed = (low ^ (high * uint64(0x9E3779B97F4A7C15))) * uint64(0xBF58476D1CE4E5B9)
    slot = (mixed ^ (mixed >> uint64(32))) & mask
    while table[slot, 2] != 0 and (table[slot, 0] != low or table[slot, 1] != high):
        slot = (slot + uint64(1)) & mask
    return int64(slot)


@kernel(int64(RECORDS, RECORDS, int64, _TABLE, CHOSEN), nogil=True)
def find(first: Array, second: Array, start: Int, table: Array, out: Array) -> Int:
    """out[i] = the template of record i, from `start` on, by the table: uint64[2^k, 3].

    Returns the number of records, or that of the first record without a template: then its two words stand in the
    table's row out[i], and the caller puts the new template's number + 1 behind them.
    """
    count = len(first) + len(second)
    for i in range(start, count):
        record = record_at(first, second, i)
        if not record.trace_flags & SAMPLED:
            out[i] = NO_TEMPLATE
            continue
        low = uint64(record.target) | uint64(record.variant) << uint64(32) | uint64(record.authority) << uint64(48)
        high = uint64(record.refusal) | uint64(record.code) << uint64(16) | uint64(record.reason) << uint64(24)
        high |= uint64(record.marks & STREAM) << uint64(32)
        slot = _slot(table, low, high)
        if table[slot, 2] == 0:
            table[slot, 0] = low
            table[slot, 1] = high
            out[i] = slot
            return i
        out[i] = int64(table[slot, 2]) - 1
    return count


@kernel(void(_TABLE, _TABLE))
def rehash(table: Array, larger: Array) -> None:
    for row in range(len(table)):
        if table[row, 2] != 0:
            slot = _slot(larger, table[row, 0], table[row, 1])
            for word in range(3):
                larger[slot, word] = table[row, word]
