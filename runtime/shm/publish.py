"""What happens to records once they are packed: counted into series, copied into the ring, published.

One call for all requests of a run, after their replies.
"""

from __future__ import annotations

import math
import struct

import numpy as np
from numba import from_dtype, int64, types, uint64, void

from runtime.kernels import fence, inline, kernel
from runtime.shm.record import RECORD
from runtime.shm.record_layout import OFFSETS, RECORD_BYTES
from runtime.shm.ring_layout import DROPPED_OTHER, DROPPED_SAMPLED, RELEASED, WRITTEN
from runtime.shm.series import bounds_rows, bounds_seconds
from runtime.shm.series_layout import (
    CLASSIC_AT,
    CLASSIC_SECONDS,
    COUNTERS,
    COUNTERS_AT,
    DURATION_AT,
    EXEMPLAR_WORDS,
    EXEMPLARS_AT,
    PER_OCTAVE,
    QUEUE_AT,
    ROWS_AT,
    ROWS_BUCKETS,
    RUN_AT,
    SEQUENCE,
    TIME_BUCKETS,
)

KEEP_NONE, KEEP_SAMPLED, KEEP_ERRORS, KEEP_ALL = 0, 1, 2, 4
"""What goes into the ring, as bits; the series count every request all the same."""

SAMPLED = 1  # of trace_flags
BEGUN = 0x80  # in marks, on the way to publish_run: `text` is a traceparent, and the ids stand in it
TIME_BOUNDS = bounds_seconds() * 1e9  # ns
ROWS_BOUNDS = bounds_rows()
CLASSIC_BOUNDS = np.array(CLASSIC_SECONDS) * 1e9

SHARED = struct.Struct("<8sqQQQQQQ")
"""What the requests of a run share: its id; what to add to the monotonic clock for Unix time; when it started,
gathered, ran and replied, on the monotonic clock; its rows; the number of its target.
"""
SHARED_WORDS = SHARED.size // 8

_AT = {name: COUNTERS_AT + index for index, name in enumerate(COUNTERS)}
REQUESTS, ROWS, BYTES_IN, BYTES_OUT = _AT["requests"], _AT["rows"], _AT["bytes_in"], _AT["bytes_out"]
DURATION, SHORTEST, LONGEST = _AT["duration_ns"], _AT["duration_min_ns"], _AT["duration_max_ns"]
QUEUE, RUN, RUNS, RUN_ROWS, RAN = _AT["queue_ns"], _AT["run_ns"], _AT["runs"], _AT["run_rows"], _AT["ran_requests"]
DURATION_ZERO, QUEUE_ZERO, RUN_ZERO, ROWS_ZERO = (
    _AT["duration_zero"], _AT["queue_zero"], _AT["run_zero"], _AT["rows_zero"],
)  # fmt: skip
TRACE_AT, SPAN_AT, RUN_ID_AT = OFFSETS["trace_id"] // 8, OFFSETS["span_id"] // 8, OFFSETS["run_id"] // 8
ID_AT, TEXT_AT, RECORD_WORDS = OFFSETS["request_id"] // 8, OFFSETS["text"] // 8, RECORD_BYTES // 8


_RECORDS = types.Array(from_dtype(RECORD), 1, "C")
_WORDS = types.Array(uint64, 1, "C")
_ROWS = types.Array(uint64, 2, "C")
_TIME_LAST, _ROWS_LAST = TIME_BUCKETS - 1, ROWS_BUCKETS - 1


@inline
def _bucket(value, bounds, last):  # type: ignore[no-untyped-def]
    """The k with bounds[k] < value <= bounds[k + 1]; -1 at or below the first bound, `last` beyond the last."""
    if value <= bounds[0]:
        return -1
    k = min(max(int(math.ceil(math.log2(value / bounds[0]) * PER_OCTAVE)) - 1, 0), last)  # noqa: RUF046
    while k > 0 and value <= bounds[k]:  # the logarithm is rounded; the bounds decide
        k -= 1
    while k < last and value > bounds[k + 1]:
        k += 1
    return k


@inline
def _digit(character):  # type: ignore[no-untyped-def]
    """Of a hexadecimal digit, in lower case."""
    return (character & 15) + 9 * (character >> 6)


@inline
def _read_ids(record):  # type: ignore[no-untyped-def]
    """`00-<trace id, 32 digits>-<span id, 16 digits>-..`"""
    for k in range(16):
        record.trace_id[k] = _digit(record.text[2 * k + 3]) << 4 | _digit(record.text[2 * k + 4])
    for k in range(8):
        record.span_id[k] = _digit(record.text[2 * k + 36]) << 4 | _digit(record.text[2 * k + 37])


@inline
def _copy(words, slot, start, stop):  # type: ignore[no-untyped-def]
    for k in range(start, stop):
        slot[k] = words[k]


@kernel(void(_RECORDS, _ROWS, int64, _WORDS, _ROWS, _WORDS, _ROWS, int64))
def publish(records, words, count, header, series, ring_words, ring, keep):  # type: ignore[no-untyped-def]
    """Counts `count` records and puts those that `keep` asks for into the ring.

    records: RECORD[>= count], with words: uint64[., RECORD_BYTES / 8], the same memory; requests of one run next to
    each other. header: uint64[8] and series: uint64[MAX_SERIES, SERIES_WORDS] of the page; ring_words: uint64[WORDS]
    and ring: uint64[capacity, RECORD_BYTES / 8]. One writer at a time: the caller holds its lock.

    What a record's lengths leave out is not written: a slot was last used a whole ring ago, so each of its lines comes
    from memory, and of most records only the first three of six are needed.
    """
    one = uint64(1)
    capacity = uint64(len(ring))
    written = ring_words[WRITTEN]
    released = ring_words[RELEASED]
    header[SEQUENCE] += one
    fence()
    for i in range(count):
        record = records[i]
        row = series[record.series]
        duration = record.replied_ns
        row[REQUESTS] += one
        row[ROWS] += record.rows
        row[BYTES_IN] += record.bytes_in
        row[BYTES_OUT] += record.bytes_out
        row[DURATION] += duration
        if row[SHORTEST] == 0 or duration < row[SHORTEST]:
            row[SHORTEST] = duration
        row[LONGEST] = max(row[LONGEST], duration)
        k = _bucket(float(duration), TIME_BOUNDS, _TIME_LAST)
        if k < 0:
            row[DURATION_ZERO] += one
        else:
            row[DURATION_AT + k] += one
        classic = np.searchsorted(CLASSIC_BOUNDS, float(duration))
        row[CLASSIC_AT + classic] += one
        sampled = record.trace_flags & SAMPLED
        if sampled:
            exemplar = EXEMPLARS_AT + classic * EXEMPLAR_WORDS
            row[exemplar] = words[i, TRACE_AT]
            row[exemplar + 1] = words[i, TRACE_AT + 1]
            row[exemplar + 2] = words[i, SPAN_AT]
            row[exemplar + 3] = duration
            row[exemplar + 4] = record.received_unix_ns + duration
        if record.ran_ns:
            queued = record.started_ns - record.decoded_ns
            run = record.ran_ns - record.gathered_ns
            row[RAN] += one
            row[QUEUE] += queued
            k = _bucket(float(queued), TIME_BOUNDS, _TIME_LAST)
            if k < 0:
                row[QUEUE_ZERO] += one
            else:
                row[QUEUE_AT + k] += one
            if i == 0 or words[i, RUN_ID_AT] != words[i - 1, RUN_ID_AT]:
                row[RUNS] += one
                row[RUN_ROWS] += record.run_rows
                row[RUN] += run
                k = _bucket(float(run), TIME_BOUNDS, _TIME_LAST)
                if k < 0:
                    row[RUN_ZERO] += one
                else:
                    row[RUN_AT + k] += one
                k = _bucket(float(record.run_rows), ROWS_BOUNDS, _ROWS_LAST)
                if k < 0:
                    row[ROWS_ZERO] += one
                else:
                    row[ROWS_AT + k] += one
        if keep & KEEP_ALL or (keep & KEEP_SAMPLED and sampled) or (keep & KEEP_ERRORS and record.code):
            if written - released >= capacity:
                ring_words[DROPPED_SAMPLED if sampled else DROPPED_OTHER] += one
            else:
                slot = ring[int64(written % capacity)]
                _copy(words[i], slot, 0, ID_AT)
                if record.request_id_bytes:
                    _copy(words[i], slot, ID_AT, TEXT_AT)
                if record.state_bytes or record.extra_bytes:
                    _copy(words[i], slot, TEXT_AT, RECORD_WORDS)
                written += one
    fence()
    header[SEQUENCE] += one
    ring_words[WRITTEN] = written


@kernel(void(_RECORDS, _ROWS, int64, _WORDS, _WORDS, _ROWS, _WORDS, _ROWS, int64))
def publish_run(records, words, count, run, header, series, ring_words, ring, keep):  # type: ignore[no-untyped-def]
    """Completes the records of one run with what they share (SHARED, as uint64[SHARED_WORDS]), and publishes them.

    A record marked BEGUN has a traceparent for its `text`, which gives its ids and is no text of the record.
    In the records `received_unix_ns`, `decoded_ns` and `queued_ns` come as times of the monotonic clock, and all fields
    that SHARED holds come as anything.
    """
    for i in range(count):
        record = records[i]
        received = record.received_unix_ns
        if record.marks & BEGUN:
            record.marks ^= BEGUN
            _read_ids(record)
        words[i, RUN_ID_AT] = run[0]
        record.received_unix_ns = received + run[1]
        record.decoded_ns -= received
        record.queued_ns -= received
        record.started_ns = run[2] - received
        record.gathered_ns = run[3] - received
        record.ran_ns = run[4] - received
        record.replied_ns = run[5] - received
        record.run_rows = run[6]
        record.run_requests = count
        record.target = run[7]
    publish(records, words, count, header, series, ring_words, ring, keep)
