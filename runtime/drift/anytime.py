"""Evidence against one reference, window after window, without an end: looking at every tick is safe.

Windows that are compared with one reference are not independent: each is also compared with the reference's own noise,
and a product of their two-sample e-values would add this noise up and alarm one day. So the null hypothesis here is not
"live is distributed as the reference's rows lie" but "as some distribution does that the reference does not rule out":

    ball       C = {θ : KL(p̂‖θ) ≤ r/N + tolerance}, p̂ the reference's shares. Without drift the true θ is in C with
               probability of at least 1 − `miss`, for any N and B. What is within the tolerance is no drift.
    e-value    of a window with counts c:  mixture(c) / max over C of Πθ^c.  For every θ in C its mean is ≤ 1 given the
               past, since the mixture is fixed before the window is seen.
    detector   Shiryaev-Roberts over windows, one for each feature.

Guarantee: if the reference is not one of the `miss` unlucky ones, windows are disjoint, rows independent, and bins not
chosen by the reference's counts, then the average run length to the first false alarm is at least 1/α windows. For K
features that alarm at K/α it is at least 1/α for all together, whatever their dependence: the mean of K detectors is a
detector. Bins cut at quantiles of the reference keep it by simulation, not by proof.

The price: changes that the reference is too small to tell from its own noise, KL below about r/N, are never
found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from runtime.drift.binned import BinsMismatch, Counts, Floats
from runtime.drift.distance import shares
from runtime.drift.sequential import ShiryaevRoberts, log_dirichlet_multinomial

CONCENTRATIONS = (30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0)
"""Rows that the mixture's priors around the reference are worth: large ones look for small changes in large windows."""

TOLERANCE_NATS = 0.002
"""KL that is of no consequence, about a PSI of 0.004: else windows of a million rows would alarm of anything."""

MEMORIES = (0.5, 0.9, 0.98)
"""Of what earlier windows counted, these parts are kept at each: priors that follow a change within 2, 10, 50."""

SHARE = 0.02
"""Part of the priors' weight that is dealt out evenly at each window, so that another may be best tomorrow."""


def ball_radius(bins: int, miss: float) -> float:
    """The r with P(N·KL(p̂‖θ) > r) ≤ `miss`, in nats, for any N: exp(−r)(er/(B−1))^(B−1) (Agrawal 2020)."""
    k = bins - 1
    if k <= 0:
        return 0.0
    low, high = float(k), k + 40.0 * (k + math.log(1 / miss))
    for _ in range(60):
        middle = (low + high) / 2
        if middle - k * math.log(middle / k) - k < math.log(1 / miss):
            low = middle
        else:
            high = middle
    return high


def log_likelihood_bound(counts: Counts, reference: Counts, radius: float) -> float:
    """The maximum of Σc·lnθ over N·KL(p̂‖θ) ≤ radius.

    The maximum lies on the path θ = (c + λ·p̂)/(M + λ) from the window's shares (λ = 0) to the reference's (λ → ∞).
    """
    c, p, n = counts.astype(np.float64), shares(reference), float(reference.sum())
    total, there, seen = c.sum(), p > 0, c > 0

    def outside(strength: float) -> bool:
        theta = (c + strength * p) / (total + strength)
        if (theta[there] <= 0).any():
            return True
        return n * float((p[there] * np.log(p[there] / theta[there])).sum()) > radius

    if not outside(0.0):
        low = high = 0.0
    else:
        low, high = 0.0, 1.0
        while outside(high) and high < 1e18:
            low, high = high, high * 4
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if outside(middle) else (low, middle)
    theta = (c + low * p) / (total + low)  # the end outside the ball: the bound is never too small
    if (theta[seen] <= 0).any():
        theta = (c + high * p) / (total + high)
    return float((c[seen] * np.log(theta[seen])).sum())


@dataclass(frozen=True, eq=False)
class ReferenceDetector:
    """The evidence of all windows so far that one feature's distribution has left the reference's.

    `reference`: int64[bins], the reference's counts. `miss`: probability that the reference is an unlucky one. `past`:
    float64[memories, bins], what earlier windows counted, faded. `weights`: float64[priors], how well each prior has
    foretold the windows; fixed before a window is seen. Memory: bins · (memories + 1) · 8 bytes.
    """

    reference: Counts
    miss: float = 1e-4
    tolerance_nats: float = TOLERANCE_NATS
    past: Floats = field(default_factory=lambda: np.empty((0, 0)))
    weights: Floats = field(default_factory=lambda: np.empty(0))
    evidence: ShiryaevRoberts = field(default_factory=ShiryaevRoberts)
    windows: int = 0
    last_log_e: float = 0.0

    def after(self, counts: ArrayLike) -> ReferenceDetector:
        """The state after a window that shares no row with those before. An empty one says nothing."""
        live = np.asarray(counts, np.int64)
        if live.shape != self.reference.shape:
            raise BinsMismatch(f"expected counts of {self.reference.size} bins, got {live.size}")
        if live.sum() == 0 or self.reference.sum() == 0 or self.reference.size < 2:
            return self
        base = shares(self.reference, smoothing=0.5)
        past = self.past if self.past.size else np.zeros((len(MEMORIES), live.size))
        priors = [*(base * rows for rows in CONCENTRATIONS), *(past + base)]
        weights = self.weights if self.weights.size else np.full(len(priors), 1 / len(priors))
        foretold = np.log(weights) + [log_dirichlet_multinomial(live, prior) for prior in priors]
        mixture = float(special.logsumexp(foretold))
        radius = ball_radius(self.reference.size, self.miss) + self.tolerance_nats * float(self.reference.sum())
        log_e = mixture - log_likelihood_bound(live, self.reference, radius)
        return replace(
            self,
            past=np.array(MEMORIES)[:, None] * past + live,
            weights=(1 - SHARE) * np.exp(foretold - mixture) + SHARE / len(priors),
            evidence=self.evidence.after(log_e),
            windows=self.windows + 1,
            last_log_e=log_e,
        )

    def restarted(self) -> ReferenceDetector:
        """Without the evidence so far; what was foretold and how well is kept, since it is fixed before the next."""
        return replace(self, evidence=ShiryaevRoberts(), last_log_e=0.0)

    def alarm(self, alpha: float, features: int = 1) -> bool:
        """Whether this feature alarms, one of `features` that share an average run length of 1/α windows."""
        return self.evidence.alarm(alpha / features)
