"""Quantiles of a base-2 exponential histogram.

The value of rank floor(q (n - 1)), counted from 0 in ascending order, lies in a bucket (low, high] with
high = low * base and base = 2^(2^-scale). The estimate 2 low high / (low + high) is off by at most
(base - 1) / (base + 1) of the exact value: 2.17 % at scale 4, whatever the values are and however many.
Histograms of the same scale and offset can be added and subtracted first: the guarantee holds for what they count then.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.uint64] | npt.NDArray[np.int64]


def quantile(counts: Counts, zero: int, scale: int, offset: int, q: float) -> float | None:
    """None where nothing is counted; 0.0 where the value is one of the `zero`, at or below the first bound.

    counts: [buckets]; bucket k is (2^((offset+k)/2^scale), 2^((offset+k+1)/2^scale)]. Raises ValueError for a `q`
    outside of 0 to 1.
    """
    if not 0 <= q <= 1:
        raise ValueError(f"expected a quantile from 0 to 1, got {q}")
    cumulative = zero + np.cumsum(counts.astype(np.int64))
    count = int(cumulative[-1]) if len(cumulative) else zero
    if not count:
        return None
    rank = int(q * (count - 1))
    if rank < zero:
        return 0.0
    bucket = int(np.searchsorted(cumulative, rank, side="right"))
    per_octave = 1 << scale
    low, high = 2.0 ** ((offset + bucket) / per_octave), 2.0 ** ((offset + bucket + 1) / per_octave)
    return float(2 * low * high / (low + high))


def relative_error(scale: int) -> float:
    """The bound of an estimate's relative error."""
    base = 2.0 ** (2.0**-scale)
    return float((base - 1) / (base + 1))
