"""Where the reader of a ring cuts: between two runs."""

from __future__ import annotations

from numba import from_dtype, int64, types

from runtime.kernels import inline, kernel
from runtime.shm.record import RECORD

_RECORDS = types.Array(from_dtype(RECORD), 1, "C")


@inline
def _same_run(left, right):  # type: ignore[no-untyped-def]
    """Runs are told apart by their ids; zeros: it did not run."""
    some = False
    for byte in range(8):
        if left.run_id[byte] != right.run_id[byte]:
            return False
        some = some or left.run_id[byte] != 0
    return some


@kernel(int64(_RECORDS, int64, int64, int64))
def cut_at_run(ring, start, count, most):  # type: ignore[no-untyped-def]
    """How many of the `count` records from `start` to take: at most `most`, and no run ends in its middle.

    Where the first run is longer than `most`, the whole of it.
    """
    capacity = len(ring)
    cut = most
    while cut > 0 and _same_run(ring[(start + cut - 1) % capacity], ring[(start + cut) % capacity]):
        cut -= 1
    if cut > 0:
        return cut
    cut = most
    while cut < count and _same_run(ring[(start + cut - 1) % capacity], ring[(start + cut) % capacity]):
        cut += 1
    return cut
