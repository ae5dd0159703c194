"""Whether mean and spread of a feature have moved, from exact moments: what bins do not tell of a feature that varies
by less than one of them is wide.

Welch's test takes the variance of each side for its own mean. With skewed tails that is wrong far out: a short window
without one of the rare large values has a low mean and a low variance at once (lognormal, σ 2: 100 rows against 50,000
are called moved 840 times too often at 1 in 10,000). The pooled variance errs at the other end, where the window has
one. So the larger of both is used, and Student's distribution with as many degrees of freedom as the smaller side:
by simulation at or under its level for lognormal, Pareto and Student tails and for rare flags, at 20 rows and more.

Spread is tested in the same way, as the mean of squared deviations. Moments do not tell the variance of these; it is at
most v·(R² − v), v the variance and R the largest deviation, which is known. That is several times too careful for
light tails, and never too small for heavy ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from runtime.drift.binned import ExactMoments
from runtime.drift.distance import LARGEST
from runtime.drift.null import noise, rate_detectable, rate_tail

MIN_ROWS = 20
"""Of either side: below, nothing is claimed."""

ROUNDING = 1e-12
"""Of a mean's magnitude: moments are within 1e-13, merged in any order."""

_LEAST_SHARE = 10
"""So many times the rounding a deviation needs for its ratio to be one."""


@dataclass(frozen=True)
class Move:
    """How far, in multiples of a unit, with its noise floor and two-sided p-value. See `Effect` for the words."""

    value: float
    floor: float
    critical: float
    p: float


NOTHING = Move(0.0, np.inf, np.inf, 1.0)
"""Where too few rows are known."""


def mean_moved(reference: ExactMoments, live: ExactMoments, level: float) -> Move:
    """In σ of the reference; of the live rows where the reference is constant."""
    if reference.constant and live.constant:
        differs = reference.mean != live.mean
        return _of_constants(LARGEST if differs else 0.0, live.count if differs else 0, reference, live, level)
    square = reference.variance or live.variance
    if not square > 0:
        return NOTHING  # squares too small for float64
    apart = max(abs(live.mean - reference.mean) - _rounding(reference, live), 0.0) / float(np.sqrt(square))
    return _tested(apart, reference.variance / square, live.variance / square, reference.count, live.count, level)


def spread_moved(reference: ExactMoments, live: ExactMoments, level: float) -> Move:
    """|ln(σ′/σ)|, where neither side is constant."""
    square = reference.variance
    least = min(reference.deviation, live.deviation)
    if not least > _LEAST_SHARE * _rounding(reference, live):
        return NOTHING
    ratio = live.variance / square
    a, b = _fourth(reference, square), _fourth(live, square)
    tested = _tested(abs(ratio - 1), a, b, reference.count, live.count, level)
    value = float(abs(np.log(ratio)) / 2)
    return Move(value, tested.floor / 2, float(np.log1p(tested.critical) / 2), tested.p)


def _rounding(reference: ExactMoments, live: ExactMoments) -> float:
    """What moments are off at most, beyond which two means differ."""
    return ROUNDING * max(abs(reference.mean), abs(live.mean))


def _fourth(side: ExactMoments, square: float) -> float:
    """At most the variance of squared deviations, in units of `square` squared."""
    reach = max(side.greatest - side.mean, side.mean - side.least) / float(np.sqrt(square))
    variance = side.variance / square
    return variance * max(reach * reach - variance, 0.0)


def beside_constant(reference: ExactMoments, live: ExactMoments, level: float) -> Move:
    """Where one side is constant: the share of the other's rows that are not that constant, at least."""
    still, other = (reference, live) if reference.constant else (live, reference)
    reach = max(other.greatest - still.mean, still.mean - other.least)
    apart = (other.mean - still.mean) / reach
    squares = (other.count - 1) / reach * (other.variance / reach) + other.count * apart * apart
    rows = min(max(int(squares * (1 - 1e-9)), 1), other.count)
    return _of_constants(rows / other.count, rows, still, other, level)


def _of_constants(value: float, rows: int, still: ExactMoments, other: ExactMoments, level: float) -> Move:
    """`rows` of the other side differ from what all of the one side are: the exact test of two shares."""
    p = rate_tail(0, still.count, rows, other.count)
    return Move(value, 0.0, rate_detectable(0, still.count, other.count, level), p)


def _tested(apart: float, a: float, b: float, n: int, m: int, level: float) -> Move:
    """`a`, `b`: variances of one row, in squares of the unit that `apart` is in."""
    apart = min(apart, LARGEST)
    if min(n, m) < MIN_ROWS:
        return Move(apart, np.inf, np.inf, 1.0)
    error = float(np.sqrt(max(a / n + b / m, (n * a + m * b) / (n + m) * noise(n, m))))
    degrees = min(n, m) - 1
    p = float(2 * special.stdtr(degrees, -apart / error)) if error > 0 else float(apart == 0)
    critical = -float(special.stdtrit(degrees, level / 2)) * error
    return Move(apart, error * float(np.sqrt(2 / np.pi)), critical, min(p, 1.0))
