"""What distances are between two samples of the same distribution: noise floors and p-values at the sizes at hand.

The reference is a sample too. `n` is its rows, `m` those of the live window; everything here is symmetric in them, so
a short reference widens the null as a short window does. A reference taken as exact would make alarms of its own noise.

p-values hold for independent rows. They are meant to be small where many hypotheses and looks share a level, so each is
chosen for its far tail (10^-6 and beyond), not for the last percent of power at 0.05.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from runtime.drift.binned import Counts, Floats, NumericBins
from runtime.drift.distance import Steps, chi_square_and_g

EXACT_HITS = 2_000
"""Up to so many hits on both sides, two rates are compared by the exact conditional test; beyond, by likelihood."""

WEI_DUDLEY = 2.16863
"""Constant with which the Dvoretzky-Kiefer-Wolfowitz-Massart bound holds for two samples (Wei and Dudley 2012)."""

EXACT_KS_CELLS = 10_000
"""Up to so many pairs n·m the p-value of KS is counted path by path."""


@dataclass(frozen=True)
class Floor:
    """What identical distributions give: the mean, and the value that is passed with probability `level`."""

    mean: float
    critical: float


def noise(n: float, m: float) -> float:
    """1/n + 1/m: the variance of a difference of two means, in variances of a row."""
    return 1 / n + 1 / m if n > 0 and m > 0 else np.inf


def chi_square_tail(value: float, degrees: float) -> float:
    """P(χ²_degrees ≥ value); 1 without degrees of freedom."""
    return float(special.chdtrc(degrees, value)) if degrees > 0 else 1.0


@lru_cache(maxsize=1024)
def chi_square_quantile(level: float, degrees: float) -> float:
    """The value that χ²_degrees passes with probability `level`; 0 without degrees of freedom."""
    return float(special.chdtri(degrees, level)) if degrees > 0 else 0.0


@lru_cache(maxsize=64)
def normal_quantile(level: float) -> float:
    """The value that a standard normal passes with probability `level`."""
    return -float(special.ndtri(level))


def psi_floor(n: float, m: float, bins: int, level: float) -> Floor:
    """PSI ≈ (1/n+1/m)·χ²_{B−1} (Yurdakul 2018)."""
    return Floor(noise(n, m) * (bins - 1), noise(n, m) * chi_square_quantile(level, bins - 1))


def js_floor(n: float, m: float, bins: int, level: float) -> Floor:
    """JS divergence ≈ PSI/8, so its mean is (B−1)/8·(1/n+1/m) nats."""
    floor = psi_floor(n, m, bins, level)
    return Floor(floor.mean / 8, floor.critical / 8)


def ks_floor(n: float, m: float, level: float) -> Floor:
    """Mean of the Kolmogorov distribution √(π/2)·ln 2, times √(1/n+1/m); the critical value from `ks_tail`."""
    scale = float(np.sqrt(noise(n, m)))
    return Floor(float(np.sqrt(np.pi / 2) * np.log(2)) * scale, float(np.sqrt(np.log(WEI_DUDLEY / level) / 2)) * scale)


def ks_tail(distance: float, n: int, m: int) -> float:
    """P(KS ≥ distance) at most: exact for small samples, else Wei and Dudley's two-sample DKW bound.

    The bound is about twice the true p-value at 0.3 and within 9 % below 0.01. Ties and bins make KS smaller, so they
    make this p-value too large, never too small.
    """
    if distance <= 0:
        return 1.0
    if n * m <= EXACT_KS_CELLS:
        return _ks_exact(round(distance * n * m), n, m)
    return min(1.0, WEI_DUDLEY * float(np.exp(-2 * distance**2 / noise(n, m))))


@lru_cache(maxsize=256)
def _ks_exact(reach: int, n: int, m: int) -> float:
    """1 - P(a random path from (0, 0) to (n, m) keeps |x·m − y·n| < reach); counted as probabilities."""
    y = np.arange(m + 1)
    inside = np.abs(-y * n) < reach
    row = np.cumprod(inside).astype(np.float64)
    for x in range(1, n + 1):
        inside = np.abs(x * m - y * n) < reach
        # weights keep each sum a probability: a path at (x, y) came from the left with x/(x+y)
        kept = np.zeros(m + 1)
        running = 0.0
        for at in range(m + 1):
            running = (row[at] * x + running * at) / (x + at) if inside[at] else 0.0
            kept[at] = running
        row = kept
    return float(min(max(1 - row[m], 0.0), 1.0))


def wasserstein_floor(
    reference: NumericBins, live: NumericBins, level: float, *, unit: float = 1.0, steps: Steps | None = None
) -> Floor:
    """E W1 ≈ √(2/π)·√(1/n+1/m)·∫√(F(1−F))dx with F of both samples together; for the critical value the Borell-TIS
    bound of the Gaussian limit: P(W1 ≥ mean + z·σ√(1/n+1/m)) ≤ exp(−z²/2), in which σ is exact (Hoeffding's formula).
    """
    n, m = reference.total, live.total
    if not (n and m):
        return Floor(np.inf, np.inf)
    steps = steps or Steps.of(reference, live)
    f = (n * steps.f + m * steps.g) / (n + m)
    points = steps.points / steps.largest
    weights = np.diff(f, prepend=0.0)
    scale = float(np.sqrt(noise(n, m)))
    within = np.clip(f[:-1], 0, 1)
    mean = float(np.sqrt(2 / np.pi)) * scale * float(np.sqrt(within * (1 - within)) @ steps.widths)
    sigma = float(np.sqrt(weights @ (points - weights @ points) ** 2))
    critical = mean + scale * sigma * float(np.sqrt(-2 * np.log(level)))
    return Floor(mean * (steps.largest / unit), critical * (steps.largest / unit))


def cramer_von_mises_tail(reference: NumericBins, live: NumericBins) -> float:
    """p-value of `distance.cramer_von_mises`: exact up to 20 rows on each side, asymptotic beyond.

    It unfolds the rows again, so it is for small samples and for people; verdicts do without.
    """
    from scipy import stats  # takes a second to import

    rows = [np.repeat(side.points, side.counts) for side in (reference, live)]
    return float(stats.cramervonmises_2samp(*rows).pvalue)


def counts_tail(reference: ArrayLike, live: ArrayLike, *, expected: float = 5.0) -> float:
    """p-value of "both rows of counts are samples of one distribution": the larger of Pearson's and G's.

    Each errs in another tail: Pearson's makes far too much of many rows in a bin where few were expected (17 for 5: 500
    times too small), G of none where some were expected. The larger of the two keeps its level far out.
    """
    pearson, g = chi_square_and_g(reference, live, expected=expected)
    return max(chi_square_tail(pearson.value, pearson.degrees), chi_square_tail(g.value, g.degrees))


def rate_tail(hits: int, rows: int, live_hits: int, live_rows: int) -> float:
    """Two-sided p-value of "hits have the same probability on both sides".

    Up to EXACT_HITS hits: the exact conditional test, twice the smaller tail of the hypergeometric distribution (Fisher
    1935): never too small at any sizes. Beyond: as `counts_tail`.
    """
    if rows == 0 or live_rows == 0:
        return 1.0
    together = hits + live_hits
    misses = rows + live_rows - together
    if misses < together:
        hits, live_hits, together = rows - hits, live_rows - live_hits, misses
    if together == 0:
        return 1.0
    if together > EXACT_HITS:
        table = (np.array([hits, rows - hits]), np.array([live_hits, live_rows - live_hits]))
        return counts_tail(*table, expected=0.0)
    first = max(0, together - rows)
    possible = np.arange(first, min(together, live_rows) + 1)
    log_mass = _log_choose(live_rows, possible) + _log_choose(rows, together - possible)
    mass = np.exp(log_mass - log_mass.max())
    mass /= mass.sum()
    at = live_hits - first
    return float(min(1.0, 2 * min(mass[: at + 1].sum(), mass[at:].sum())))


def _log_choose(n: int, k: Counts) -> Floats:
    logs: Floats = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return logs


def rate_detectable(hits: int, rows: int, live_rows: int, level: float) -> float:
    """The smallest rise of a rate that `live_rows` could show at `level`: about three times in four, or more.

    Normal quantile of the level and ⅔ of a deviation, and never less than the hits that the exact test needs.
    """
    if rows == 0 or live_rows == 0:
        return 1.0
    share = live_rows / (rows + live_rows)
    fewest = np.ceil(np.log(level / 2) / np.log(share)) / live_rows
    rate = hits / rows
    for _ in range(8):  # the variance is that at the risen rate
        between = (rate * rows + min(rate + fewest, 1.0) * live_rows) / (rows + live_rows)
        deviation = float(np.sqrt(between * (1 - between) * noise(rows, live_rows)))
        fewest = max(fewest, (normal_quantile(level / 2) + 0.67) * deviation)
    return float(min(fewest, 1.0))
