"""Quantiles of the loop's histograms, in milliseconds: buckets of 2^-10 of a value, read at their middles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.generator.layout import HISTOGRAM_BITS

Counts = npt.NDArray[np.int64]


def middle_ns(bucket: Any) -> Any:
    """Of a bucket, or of each of an array of them: below 2^11 ns each value has its own."""
    shift = np.maximum(bucket >> HISTOGRAM_BITS, 1) - 1
    least = (bucket - (shift << HISTOGRAM_BITS)) << shift
    return least + ((1 << shift) - 1) / 2


def bucket_of(value_ns: int) -> int:
    """Where a value is counted, as the kernels have it."""
    shift = max(value_ns.bit_length() - HISTOGRAM_BITS - 1, 0)
    return (shift << HISTOGRAM_BITS) + (value_ns >> shift)


def quantile_ms(counts: Counts, share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed, within 0.05 %; NaN of none."""
    total = int(counts.sum())
    if not total:
        return math.nan
    rank = max(math.ceil(share * total), 1)
    bucket = int(np.searchsorted(np.cumsum(counts), rank))
    return float(middle_ns(bucket)) / 1e6
