"""How far apart two samples are, from their counts. Functions of values; nothing here knows what is far.

Counts are of the same bins in the same order. Natural logarithms, so divergences are in nats; where a base-2 value is
usual, `base` says so. `smoothing` adds that many rows to every bin: (c + s) / (N + s·B); ½ is what verdicts use, 0
takes shares as they are and needs counts above 0 for logarithms.

Every function raises BinsMismatch for counts of different length, without rows, or negative.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from runtime.drift.binned import BinsMismatch, Counts, Floats, NumericBins

LARGEST = sys.float_info.max

SMOOTHING = 0.5
"""Half a row in each bin (Jeffreys): a bin that is empty on one side gives a large value, not an infinite one."""


@dataclass(frozen=True)
class Bracket:
    """Where a distance lies that bins do not tell exactly."""

    low: float
    high: float


@dataclass(frozen=True)
class TwoSample:
    """A statistic of a contingency table, with its degrees of freedom after pooling."""

    value: float
    degrees: int


def shares(counts: ArrayLike, *, smoothing: float = 0.0) -> Floats:
    """(c + s) / (N + s·B)."""
    rows: Floats = np.asarray(counts, np.float64)
    if rows.ndim != 1 or not rows.size or rows.min() < 0 or not (counted := float(rows.sum())) > 0:
        raise BinsMismatch("expected one row of counts of 0 or more, with at least one row counted")
    total = counted + smoothing * rows.size
    smoothed: Floats = (rows + smoothing) / total if smoothing else rows / total
    return smoothed


def _both(reference: ArrayLike, live: ArrayLike, smoothing: float) -> tuple[Floats, Floats]:
    p, q = shares(reference, smoothing=smoothing), shares(live, smoothing=smoothing)
    if p.size != q.size:
        raise BinsMismatch(f"expected the same bins on both sides, got {p.size} and {q.size}")
    return p, q


def _relative_entropy(p: Floats, q: Floats) -> float:
    return float(special.rel_entr(p, q).sum())


def psi(reference: ArrayLike, live: ArrayLike, *, smoothing: float = SMOOTHING) -> float:
    """Population stability index Σ(q−p)·ln(q/p), in nats: KL both ways (Jeffreys 1946). 0 to ∞."""
    p, q = _both(reference, live, smoothing)
    return max(_relative_entropy(p, q) + _relative_entropy(q, p), 0.0)


def kl(reference: ArrayLike, live: ArrayLike, *, smoothing: float = SMOOTHING) -> float:
    """KL(reference‖live) = Σp·ln(p/q), in nats. ∞ where live lacks a bin and nothing is smoothed."""
    return _relative_entropy(*_both(reference, live, smoothing))


def js_divergence(reference: ArrayLike, live: ArrayLike, *, smoothing: float = 0.0, base: float = np.e) -> float:
    """½KL(p‖m) + ½KL(q‖m), m = (p+q)/2 (Lin 1991). 0 to ln 2 nats; of binned samples, a lower bound."""
    p, q = _both(reference, live, smoothing)
    middle = (p + q) / 2
    nats = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return max(nats, 0.0) / float(np.log(base))


def js_distance(reference: ArrayLike, live: ArrayLike, *, smoothing: float = 0.0, base: float = np.e) -> float:
    """Square root of the divergence in the same base: a metric. In base 2, 0 to 1."""
    return float(np.sqrt(js_divergence(reference, live, smoothing=smoothing, base=base)))


def hellinger(reference: ArrayLike, live: ArrayLike) -> float:
    """√(½Σ(√p−√q)²), 0 to 1."""
    p, q = _both(reference, live, 0.0)
    return float(np.sqrt(((np.sqrt(p) - np.sqrt(q)) ** 2).sum() / 2))


def total_variation(reference: ArrayLike, live: ArrayLike) -> float:
    """½Σ|p−q|: the largest difference in probability of any set of bins, 0 to 1."""
    p, q = _both(reference, live, 0.0)
    return float(np.abs(p - q).sum() / 2)


def l_infinity(reference: ArrayLike, live: ArrayLike) -> float:
    """max|p−q|: the largest difference in one bin, 0 to 1."""
    p, q = _both(reference, live, 0.0)
    return float(np.abs(p - q).max())


def ks_bracket(reference: ArrayLike, live: ArrayLike) -> Bracket:
    """Between which values the Kolmogorov–Smirnov distance of the values in these bins lies; deterministic.

    low = max over edges |F−G|, which the values reach; high = max_b max(F_b − G_{b−1}, G_b − F_{b−1}), which is reached
    when in bin b all of one sample lie below all of the other.
    """
    p, q = _both(reference, live, 0.0)
    f, g = np.cumsum(p), np.cumsum(q)
    f_before, g_before = f - p, g - q
    low = float(np.abs(f - g).max())
    high = float(np.maximum(f - g_before, g - f_before).max())
    return Bracket(low=min(low, 1.0), high=min(max(low, high), 1.0))


@dataclass(frozen=True, eq=False)
class Steps:
    """Distribution functions of two samples, `f` and `g`: float64[points], at the points of both, ascending.

    Counted once for all that is read from them.
    """

    points: Floats
    f: Floats
    g: Floats
    largest: float

    @classmethod
    def of(cls, reference: NumericBins, live: NumericBins) -> Steps:
        """BinsMismatch where a side has no rows."""
        if reference.total == 0 or live.total == 0:
            raise BinsMismatch("expected at least one row on both sides")
        held = [side.points[side.held] for side in (reference, live)]
        points = np.union1d(*held)
        f, g = (
            np.cumsum(np.bincount(np.searchsorted(points, own), side.counts[side.held], points.size)) / side.total
            for own, side in zip(held, (reference, live), strict=True)
        )
        return cls(points, f, g, max(reference.largest, live.largest))

    @cached_property
    def widths(self) -> Floats:
        """float64[points - 1], as shares of `largest`."""
        return np.diff(self.points / self.largest)


def wasserstein(reference: NumericBins, live: NumericBins, *, unit: float = 1.0, steps: Steps | None = None) -> float:
    """W1 = ∫|F−G|dx with each bin's rows at its point, in the unit of the values or in multiples of `unit`."""
    steps = steps or Steps.of(reference, live)
    return in_units(float(np.abs(steps.f - steps.g)[:-1] @ steps.widths), steps.largest, unit)


def in_units(share: float, largest: float, unit: float) -> float:
    """`share` of the largest magnitude, in multiples of `unit`; at most the largest number there is."""
    return min(share * (largest / unit), LARGEST) if share > 0 else 0.0


def wasserstein_error(reference: NumericBins, live: NumericBins, *, unit: float = 1.0) -> float:
    """At most this far is `wasserstein` from the W1 of the values: what both samples move when snapped to points.

    On the base-2 grid it is close to α(E|X|+E|Y|).
    """
    return min(sum(in_units(side.snapped, side.largest, unit) for side in (reference, live)), LARGEST)


def cramer_von_mises(reference: NumericBins, live: NumericBins) -> float:
    """T of the two-sample test (Anderson 1962): ranks of the points with ties at their middle rank."""
    steps = Steps.of(reference, live)
    f, g = steps.f, steps.g
    n, m = reference.total, live.total
    in_f, in_g = np.diff(f, prepend=0) * n, np.diff(g, prepend=0) * m
    middle_rank = np.cumsum(in_f + in_g) - (in_f + in_g - 1) / 2
    u = 0.0
    for inside, size in ((in_f, n), (in_g, m)):
        # Σ(rank − i)² over the i-th values of one sample, those of one point together
        last = np.cumsum(inside)
        first = last - inside + 1
        with_i = (first + last) / 2 * inside
        with_i2 = (last * (last + 1) * (2 * last + 1) - (first - 1) * first * (2 * first - 1)) / 6
        u += size * float((inside * middle_rank**2 - 2 * middle_rank * with_i + with_i2).sum())
    t: float = u / (n * m * (n + m)) - (4 * n * m - 1) / (6 * (n + m))
    return t


def energy(reference: NumericBins, live: NumericBins) -> float:
    """√(2E|X−Y| − E|X−X′| − E|Y−Y′|) = √(2∫(F−G)²dx) (Székely), in the root of the values' unit."""
    steps = Steps.of(reference, live)
    return float(np.sqrt(2 * ((steps.f - steps.g)[:-1] ** 2 @ steps.widths)) * np.sqrt(steps.largest))


def pooled(reference: ArrayLike, live: ArrayLike, *, expected: float = 5.0) -> tuple[Counts, Counts]:
    """Bins joined until each has `expected` rows expected on both sides; ordered bins keep their order.

    Neighbours are joined from the left; what is left over joins the last. Without enough rows there is one bin.
    """
    reference, live = np.asarray(reference, np.int64), np.asarray(live, np.int64)
    if reference.shape != live.shape or reference.ndim != 1:
        raise BinsMismatch(f"expected the same bins on both sides, got {reference.shape} and {live.shape}")
    n, m = int(reference.sum()), int(live.sum())
    if n == 0 or m == 0:
        raise BinsMismatch("expected at least one row on both sides")
    needed = expected * (n + m) / min(n, m)  # of both together, so that the smaller side has its share
    starts, waiting = [0], 0
    together = (reference + live).tolist()
    for at, rows in enumerate(together):
        waiting += rows
        if waiting >= needed and at + 1 < len(together):
            starts.append(at + 1)
            waiting = 0
    if waiting < needed and len(starts) > 1:
        starts.pop()
    return np.add.reduceat(reference, starts), np.add.reduceat(live, starts)


def chi_square(reference: ArrayLike, live: ArrayLike, *, expected: float = 5.0) -> TwoSample:
    """Pearson's Σ(observed−expected)²/expected of the 2×B table: both sides are samples. Pools as `pooled`."""
    return chi_square_and_g(reference, live, expected=expected)[0]


def g_statistic(reference: ArrayLike, live: ArrayLike, *, expected: float = 5.0) -> TwoSample:
    """2Σ observed·ln(observed/expected) of the 2×B table, the likelihood ratio. Pools as `pooled`."""
    return chi_square_and_g(reference, live, expected=expected)[1]


def chi_square_and_g(reference: ArrayLike, live: ArrayLike, *, expected: float = 5.0) -> tuple[TwoSample, TwoSample]:
    """Both of one table."""
    table = np.array(pooled(reference, live, expected=expected), np.float64)
    together = table.sum(0)
    table, together = table[:, together > 0], together[together > 0]
    should_be = np.multiply.outer(table.sum(1), together / together.sum())
    degrees = table.shape[1] - 1
    chi = float(((table - should_be) ** 2 / should_be).sum())
    g = float(2 * special.rel_entr(table, should_be).sum())
    return TwoSample(chi, degrees), TwoSample(g, degrees)
