"""What may be shown beside a decision at every look: intervals that hold at all looks at once, for rows alike.

    share      {p : Beta-binomial mixture / p^k(1−p)^(n−k) < 1/α}, a confidence sequence of a proportion
    quantile   the same for the rank of the q-quantile: the bounds of the buckets that it can be in (Howard 2022)
    mean       asymptotic: mean ± `mean_radius` (Waudby-Smith et al. 2024)

They are for people. Gates decide by e-processes, which bear rates that change with time.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from runtime.drift.sequential import log_dirichlet_multinomial, mean_radius
from runtime.rollout.counts import Mean
from runtime.rollout.latency import Histogram, upper_bound_seconds

RHO = 0.05
"""Makes a mean's interval narrowest near 3,000 rows."""


def share_interval(hits: int, rows: int, alpha: float) -> tuple[float, float]:
    """(low, high) of a share that contains it at all looks at once with probability ≥ 1−α."""
    if rows == 0:
        return 0.0, 1.0
    mixture = log_dirichlet_multinomial([hits, rows - hits], [0.5, 0.5])

    def outside(p: float) -> bool:
        return mixture - _log_likelihood(hits, rows, p) >= -math.log(alpha)

    best = hits / rows
    low = 0.0 if hits == 0 else _edge(0.0, best, outside)
    high = 1.0 if hits == rows else _edge(1.0, best, outside)
    return low, high


def _edge(outer: float, inner: float, outside: Callable[[float], bool]) -> float:
    for _ in range(50):
        middle = (outer + inner) / 2
        outer, inner = (middle, inner) if outside(middle) else (outer, middle)
    return outer


def _log_likelihood(hits: int, rows: int, p: float) -> float:
    if p <= 0 or p >= 1:
        return 0.0 if hits == rows * p else -math.inf
    return hits * math.log(p) + (rows - hits) * math.log(1 - p)


def quantile_band(histogram: Histogram, q: float, alpha: float) -> tuple[float, float | None]:
    """(low, high) in seconds, of the q-quantile; None: no bound from above yet."""
    rows = sum(count for _, count in histogram)
    if rows == 0:
        return 0.0, None

    def outside(rank: float) -> bool:
        mixture = log_dirichlet_multinomial([rank, rows - rank], [0.5, 0.5])
        return mixture - rank * math.log(q) - (rows - rank) * math.log(1 - q) >= -math.log(alpha)

    least, most = _edge(0.0, q * rows, outside), _edge(float(rows), q * rows, outside)
    low, below = None, 0
    for bucket, count in histogram:
        below += count
        if low is None and below >= least > 0:
            low = upper_bound_seconds(bucket - 1) if bucket else 0.0
        if below > most:
            return low or 0.0, upper_bound_seconds(bucket)
    return low or 0.0, None


def mean_interval(mean: Mean, alpha: float) -> tuple[float, float] | None:
    """(low, high) in the values' unit, or None with fewer than two rows."""
    if mean.rows < 2:
        return None
    radius = mean_radius(mean.rows, mean.deviation, rho=RHO, alpha=alpha)
    return mean.mean - radius, mean.mean + radius
