"""Counting into a version's slot of the statistics page: word by word, between two steps of its sequence."""

from __future__ import annotations

from numba import int64, types, uint64, void

from runtime.kernels import fence, kernel
from runtime.shm.statistics_layout import BATCH_SIZES, BATCH_WORDS, BATCHES_AT, COUNTERS, COUNTERS_AT, SEQUENCE

_AT = {name: COUNTERS_AT + index for index, name in enumerate(COUNTERS)}
SUCCESSES, SUCCESS, FAILURES, FAILURE = _AT["successes"], _AT["success_ns"], _AT["failures"], _AT["failure_ns"]
QUEUE, INPUT, RUN, OUTPUT = _AT["queue_ns"], _AT["input_ns"], _AT["run_ns"], _AT["output_ns"]
ROWS, RUNS, LAST, CANCELLED = _AT["rows"], _AT["runs"], _AT["last_ms"], _AT["cancelled"]

_WORDS = types.Array(uint64, 1, "C")


@kernel(void(_WORDS, int64, int64, int64, int64, int64, int64, int64, int64))
def add_run(slot, requests, rows, total_ns, queue_ns, input_ns, run_ns, output_ns, now_ms):  # type: ignore[no-untyped-def]
    """slot: uint64[SLOT_WORDS]. One writer at a time: the caller holds its lock."""
    one = uint64(1)
    slot[SEQUENCE] += one
    fence()
    slot[SUCCESSES] += uint64(requests)
    slot[SUCCESS] += uint64(total_ns)
    slot[QUEUE] += uint64(queue_ns)
    slot[INPUT] += uint64(input_ns)
    slot[RUN] += uint64(run_ns)
    slot[OUTPUT] += uint64(output_ns)
    slot[ROWS] += uint64(rows)
    slot[RUNS] += one
    slot[LAST] = uint64(now_ms)
    free = -1
    at = BATCHES_AT
    for _ in range(BATCH_SIZES):
        if slot[at + 1] == 0:
            if free < 0:
                free = at
        elif slot[at] == uint64(rows):
            slot[at + 2] += uint64(input_ns)
            slot[at + 3] += uint64(run_ns)
            slot[at + 4] += uint64(output_ns)
            slot[at + 1] += one
            free = -1
            break
        at += BATCH_WORDS
    if free >= 0:
        slot[free] = uint64(rows)
        slot[free + 2] = uint64(input_ns)
        slot[free + 3] = uint64(run_ns)
        slot[free + 4] = uint64(output_ns)
        fence()  # with `runs` the row is no longer free
        slot[free + 1] = one
    fence()
    slot[SEQUENCE] += one


@kernel(void(_WORDS, int64, int64, int64))
def add_failures(slot, requests, total_ns, cancelled):  # type: ignore[no-untyped-def]
    """slot: uint64[SLOT_WORDS]. `cancelled`: how many of the requests were. The caller holds its lock."""
    one = uint64(1)
    slot[SEQUENCE] += one
    fence()
    slot[FAILURES] += uint64(requests)
    slot[FAILURE] += uint64(total_ns)
    slot[CANCELLED] += uint64(cancelled)
    fence()
    slot[SEQUENCE] += one
