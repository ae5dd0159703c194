"""Latencies as counts in fixed buckets, and how a quantile of one is compared with a multiple of another's.

Bucket i holds the seconds in (2^((FIRST+i)/16), 2^((FIRST+i+1)/16)]; the first also all below, the last all above.
These are the buckets that workers count durations in, and counts of several workers add up. A multiple of a bound is a
bound some buckets further on, so an allowed ratio is taken as a power of 2^(1/16): rounded up where harm is to be
shown, down where its absence is.

"The candidate's q-quantile is at most R times the baseline's" is tested where it can be seen: at a bound v near the
baseline's q-quantile so far, is P(candidate > R·v) ≤ P(baseline > v)? At the quantile itself the two sentences are the
same. Only rows before the block choose v, so the level does not rest on how well the quantile is known, nor on
latencies that stay as they are: a candidate that is never more than R times slower is stopped with probability ≤ α.
"""

from __future__ import annotations

import math

from runtime.rollout.rates import PairedRows, Side

PER_OCTAVE = 16
FIRST = -20 * PER_OCTAVE
BUCKETS = 32 * PER_OCTAVE

Histogram = tuple[tuple[int, int], ...]
"""(bucket, count), by bucket, counts above 0."""


def upper_bound_seconds(bucket: int) -> float:
    return float(2.0 ** ((FIRST + bucket + 1) / PER_OCTAVE))


def bucket_of(seconds: float) -> int:
    if seconds <= 0:
        return 0
    return min(max(math.ceil(math.log2(seconds) * PER_OCTAVE) - FIRST - 1, 0), BUCKETS - 1)


def rows_of(histogram: Histogram) -> int:
    return sum(count for _, count in histogram)


def above(histogram: Histogram, bucket: int) -> int:
    """How many are above the bucket's upper bound."""
    return sum(count for at, count in histogram if at > bucket)


def quantile_bucket(histogram: Histogram, q: float) -> int | None:
    """The bucket that the q-quantile is in; None of no rows."""
    needed, below = q * rows_of(histogram), 0
    for bucket, count in histogram:
        below += count
        if below >= needed:
            return bucket
    return None


def shift_of(ratio: float, side: Side) -> int:
    """Buckets that `ratio` is worth."""
    buckets = math.log2(ratio) * PER_OCTAVE
    nearest = round(buckets)
    if abs(buckets - nearest) < 1e-9:
        return nearest
    return math.ceil(buckets) if side is Side.HARM else math.floor(buckets)


def exceedances(candidate: Histogram, baseline: Histogram, bucket: int, shift: int) -> PairedRows:
    """Rows above the bucket's bound, the candidate's above the bound `shift` buckets further on."""
    return PairedRows(above(candidate, bucket + shift), rows_of(candidate), above(baseline, bucket), rows_of(baseline))


def place(baseline: Histogram, q: float, shift: int) -> int | None:
    """The bucket at whose bound the next block is compared; None where the buckets do not reach."""
    bucket = quantile_bucket(baseline, q)
    if bucket is None or bucket + max(shift, 0) >= BUCKETS - 1:
        return None
    return bucket
