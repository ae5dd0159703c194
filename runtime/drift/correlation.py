"""Whether the correlation of two columns has moved, such as that of a feature with the prediction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from runtime.drift.binned import BinsMismatch
from runtime.drift.null import normal_quantile

MARGIN = 1e-9
"""Correlations of exactly ±1 have no finite transform."""


@dataclass(frozen=True)
class Correlation:
    """Pearson's r over `rows`.

    `spread` is the variance of arctanh(r) times the rows: 1 for normal columns, more with heavy tails (5 and above are
    common). A sketch of co-moments cannot tell it; rows can: `correlation_of`.
    """

    rows: int
    value: float
    spread: float = 1.0

    def __post_init__(self) -> None:
        if self.rows < 0 or not -1.0 <= self.value <= 1.0 or not self.spread > 0:
            raise BinsMismatch(f"expected rows >= 0, -1 <= value <= 1 and spread > 0, got {self}")

    @property
    def transformed(self) -> float:
        """Fisher's z = arctanh(r)."""
        return float(np.arctanh(np.clip(self.value, -1 + MARGIN, 1 - MARGIN)))

    @property
    def variance(self) -> float:
        """Of `transformed`: spread/(rows−3) (Fisher 1921)."""
        return self.spread / (self.rows - 3) if self.rows > 3 else np.inf


def correlation_of(x: ArrayLike, y: ArrayLike) -> Correlation:
    """From rows: r and the spread by its influence function, without any assumption of normality.

    Rows with a value that is not finite are left out. Constant columns have correlation 0.
    """
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = a[finite], b[finite]
    if a.size < 4 or a.std() == 0 or b.std() == 0:
        return Correlation(int(a.size), 0.0)
    u, v = (a - a.mean()) / a.std(), (b - b.mean()) / b.std()
    r = float(np.clip((u * v).mean(), -1 + MARGIN, 1 - MARGIN))
    influence = u * v - r * (u**2 + v**2) / 2
    return Correlation(int(a.size), r, max(float(influence.var()) / (1 - r**2) ** 2, 1e-6))


def moved(reference: Correlation, live: Correlation) -> float:
    """Cohen's q: |arctanh r − arctanh r′|. 0.1 is small, 0.3 medium, 0.5 large (Cohen 1988)."""
    return abs(reference.transformed - live.transformed)


def moved_tail(reference: Correlation, live: Correlation) -> float:
    """Two-sided p-value of "both have the same correlation", both samples."""
    variance = reference.variance + live.variance
    return float(2 * special.ndtr(-moved(reference, live) / np.sqrt(variance)))


def moved_floor(reference: Correlation, live: Correlation, level: float) -> tuple[float, float]:
    """Mean of Cohen's q without change, and the value passed with probability `level`."""
    deviation = float(np.sqrt(reference.variance + live.variance))
    return deviation * float(np.sqrt(2 / np.pi)), deviation * normal_quantile(level / 2)
