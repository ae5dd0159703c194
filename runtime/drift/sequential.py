"""Tests that may be looked at after every row, for two streams that run side by side: a canary and its baseline.

Each is an immutable state: `after(...)` gives the next one. E-values are kept as logarithms, so none overflows.

    e-process   E[e] ≤ 1 at any stopping time: P(e ever ≥ 1/α) ≤ α (Ville). Reject at ≥ 1/α.
    e-detector  E[M_τ] ≤ E[τ] at any stopping time τ: alarm at ≥ 1/α gives an average run length ≥ 1/α between false
                alarms (Shin, Ramdas and Rinaldo 2023). It never stops, and restarts by itself. Within T looks the
                probability of a false alarm is at most αT (Doob, for Shiryaev-Roberts).

For windows against one reference see `anytime`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike
from scipy import special


@dataclass(frozen=True)
class MixtureSprt:
    """Mixture sequential probability ratio test of a difference of two means (Johari et al. 2022).

    V = σx²/n + σy²/m; Λ = √(V/(V+τ²))·exp(τ²Δ²/(2V(V+τ²))); p = min over the looks so far of 1/Λ. Valid at every look
    for means that are near normal; `tau2` is the variance of the differences that one expects, in squared units.
    """

    tau2: float
    p: float = 1.0

    def likelihood_ratio(self, difference: float, variance: float) -> float:
        """Λ for the difference of the two means and its variance V."""
        if not variance > 0:
            return 1.0  # without variance known there is no evidence
        total = variance + self.tau2
        exponent = self.tau2 * difference**2 / (2 * variance * total)
        return math.exp(min(0.5 * math.log(variance / total) + exponent, 700.0))

    def after(self, difference: float, variance: float) -> MixtureSprt:
        return replace(self, p=min(self.p, 1 / self.likelihood_ratio(difference, variance)))


@dataclass(frozen=True)
class BernoulliProcess:
    """E-process of "both streams have the same rate" (Turner, Ly and Grünwald 2024), block by block.

    A block with a of n and b of m hits multiplies by pθa(a)·pθb(b)/(pθ0(a)·pθ0(b)), θ0 = (nθa+mθb)/(n+m). θa and θb are
    the shares of past blocks with half a hit and half a miss added, so the first block is neutral.
    """

    hits: tuple[int, int] = (0, 0)
    rows: tuple[int, int] = (0, 0)
    log_e: float = 0.0

    def after(self, a_hits: int, a_rows: int, b_hits: int, b_rows: int) -> BernoulliProcess:
        """The state after one block; sizes of blocks must not depend on what is in them."""
        if not (0 <= a_hits <= a_rows and 0 <= b_hits <= b_rows):
            raise ValueError("expected 0 <= hits <= rows on both sides")
        log_e = self.log_e
        if a_rows and b_rows:
            theta_a, theta_b = ((h + 0.5) / (r + 1) for h, r in zip(self.hits, self.rows, strict=True))
            theta_0 = (a_rows * theta_a + b_rows * theta_b) / (a_rows + b_rows)
            for hits, rows, theta in ((a_hits, a_rows, theta_a), (b_hits, b_rows, theta_b)):
                log_e += hits * math.log(theta / theta_0) + (rows - hits) * math.log((1 - theta) / (1 - theta_0))
        return BernoulliProcess(
            (self.hits[0] + a_hits, self.hits[1] + b_hits), (self.rows[0] + a_rows, self.rows[1] + b_rows), log_e
        )


def log_dirichlet_multinomial(counts: ArrayLike, prior: ArrayLike) -> float:
    """Logarithm of the probability of one sequence with these counts, its shares drawn from Dirichlet(prior)."""
    s, a = np.asarray(counts, np.float64), np.asarray(prior, np.float64)
    parts = special.gammaln(a + s) - special.gammaln(a)
    return float(special.gammaln(a.sum()) - special.gammaln(a.sum() + s.sum()) + parts.sum())


def counts_e_value(counts: ArrayLike, shares: ArrayLike, prior: ArrayLike) -> float:
    """Logarithm of the e-value of "rows fall to categories with these shares" against a Dirichlet mixture (Lindon
    and Malek 2022).

    Of cumulative counts it is an e-process. Example: did a canary get the share of the traffic that it should?
    """
    s, theta = np.asarray(counts, np.float64), np.asarray(shares, np.float64)
    there = s > 0
    with np.errstate(divide="ignore"):
        under_null = float((s[there] * np.log(theta[there])).sum())
    return log_dirichlet_multinomial(s, prior) - under_null


def mean_radius(rows: int, deviation: float, *, rho: float, alpha: float) -> float:
    """Radius of the asymptotic confidence sequence of a mean (Waudby-Smith et al. 2024), in the values' unit.

    σ̂√(2(nρ²+1)/(n²ρ²)·ln(√(nρ²+1)/α)): contains the mean at all n at once with probability → 1−α. `rho` chooses at
    which n it is narrowest.
    """
    if rows <= 0:
        return math.inf
    grown = rows * rho**2 + 1
    return deviation * math.sqrt(2 * grown / (rows**2 * rho**2) * math.log(math.sqrt(grown) / alpha))


@dataclass(frozen=True)
class ShiryaevRoberts:
    """M = (M+1)·L, as ln M: sums the evidence of all starts of a change. E[M_t] ≤ t, so ARL ≥ 1/α at 1/α."""

    log_m: float = -math.inf

    def after(self, log_e: float) -> ShiryaevRoberts:
        return ShiryaevRoberts(float(np.logaddexp(self.log_m, 0.0)) + log_e)

    def alarm(self, alpha: float) -> bool:
        return self.log_m >= -math.log(alpha)


@dataclass(frozen=True)
class Cusum:
    """M = max(M, 1)·L, as ln M: the best start of a change. At most Shiryaev-Roberts, so the same ARL holds."""

    log_m: float = -math.inf

    def after(self, log_e: float) -> Cusum:
        return Cusum(max(self.log_m, 0.0) + log_e)

    def alarm(self, alpha: float) -> bool:
        return self.log_m >= -math.log(alpha)


def log_mean_exp(values: ArrayLike) -> float:
    """Logarithm of the mean of e-values given as logarithms: an e-value too, whatever their dependence."""
    logs = np.asarray(values, np.float64)
    return float(reduce(np.logaddexp, logs, -np.inf)) - math.log(logs.size)
