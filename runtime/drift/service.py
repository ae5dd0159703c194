"""The service itself as a sample: how long requests took, and how many failed.

Requests are not independent rows: a slow second is slow for all that came in it. So many go together as
`burst_requests` says, and only one of them counts when it is asked whether chance explains a change. Thresholds for a
service are higher than those for features, too (`Parameters.service_thresholds`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from runtime.drift.binned import Apart, Bins, BinsMismatch, NumericBins, RateCounts, bins_of_cells
from runtime.drift.evaluate import Sample
from runtime.drift.verdict import Role

LATENCY = "latency"
ERRORS = "errors"

BURST_REQUESTS = 10
"""Requests that say as much as one that is alone: what a batch takes, or a pause of some milliseconds delays."""


def service_sample(
    source: str,
    bounds: ArrayLike,
    counts: ArrayLike,
    *,
    zero: int,
    errors: int,
    requests: int,
    start_seconds: float = 0.0,
    end_seconds: float = 0.0,
    burst_requests: int = BURST_REQUESTS,
) -> Sample:
    """From a histogram with fixed bounds, of one span of time: of totals that only grow, the difference.

    `bounds`: float64[buckets + 1], ascending and above 0: bucket k is (bounds[k], bounds[k + 1]] seconds. `counts`:
    uint64[buckets]. `zero`: how many were at or below the first bound. `errors` of `requests` failed.

    BinsMismatch for counts of other buckets, or numbers below 0.
    """
    edges, counted = np.asarray(bounds, np.float64), np.asarray(counts).astype(np.int64)
    if edges.ndim != 1 or edges.size != counted.size + 1 or zero < 0 or (counted < 0).any() or burst_requests < 1:
        raise BinsMismatch(
            f"expected {max(edges.size - 1, 0)} counts of 0 or more for {edges.size} bounds, and bursts of 1 or more, "
            f"got {counted.size} with {zero} below and {burst_requests}"
        )
    used = np.flatnonzero(counted)
    low, high, rows = edges[:-1][used], edges[1:][used], counted[used]
    if zero:
        low, high, rows = np.append(0.0, low), np.append(edges[0], high), np.append(zero, rows)
    subjects: dict[str, Bins] = {
        LATENCY: _thinned(bins_of_cells(low, high, rows), burst_requests),
        ERRORS: RateCounts(errors, requests, burst_requests),
    }
    return Sample(source, subjects, start_seconds, end_seconds, dict.fromkeys(subjects, Role.SERVICE))


def _thinned(bins: NumericBins, burst: int) -> NumericBins:
    """Every `burst`-th value in ascending order: the shares stay, up to one row."""
    reached = np.cumsum(bins.counts) // burst
    return NumericBins(bins.edges, np.diff(reached, prepend=0), bins.points, Apart())
