"""Runs of counts as variable-length integers (LEB128: 7 bits a byte, low ones first, the top bit: more follow)."""

from __future__ import annotations

from numba import int64, types, uint8, uint32, uint64

from runtime.kernels import kernel
from runtime.sketch.keys_kernels import BYTES_IN

COUNTS = types.Array(uint32, 1, "C")
BYTES = types.Array(uint8, 1, "C")

MOST_BYTES = 5  # of one count
MALFORMED = -1


@kernel(int64(COUNTS, BYTES))
def write_counts(counts, out):  # type: ignore[no-untyped-def]
    """out: uint8[5 n]. Returns how many bytes were written."""
    at = 0
    for i in range(len(counts)):
        left = counts[i]
        while left >= 128:
            out[at] = (left & 127) | 128
            left >>= 7
            at += 1
        out[at] = left
        at += 1
    return at


@kernel(int64(BYTES_IN, int64, COUNTS))
def read_counts(data, at, counts):  # type: ignore[no-untyped-def]
    """Fills counts from data[at:]. Returns where they end; MALFORMED if cut off, too large, or longer than need be."""
    for i in range(len(counts)):
        value = uint64(0)
        for byte in range(MOST_BYTES):
            if at >= len(data):
                return MALFORMED
            part = uint64(data[at])
            at += 1
            value |= (part & uint64(127)) << uint64(7 * byte)
            if part < 128:
                if (byte and part == 0) or value > uint64(0xFFFFFFFF):
                    return MALFORMED
                break
            if byte == MOST_BYTES - 1:
                return MALFORMED
        counts[i] = value
    return at
