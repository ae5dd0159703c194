"""Whether the correlation of two columns has moved, such as that of a feature with the prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from runtime.drift.binned import BinsMismatch, Floats
from runtime.drift.null import normal_quantile
from runtime.yielding import let_others_run

MARGIN = 1e-9
"""Correlations of exactly ±1 have no finite transform."""

MIN_VARIED = 30
"""Of fewer, such as the hits of a rare class, the spread is not known: 5 hits in 200 rows make p-values of 1 in 1,000
nine times too often."""


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


def rank_correlation_of(x: ArrayLike, y: ArrayLike) -> Correlation:
    """From rows: Spearman's correlation, that of ranks, ties in the middle; the spread by its influence function.

    For columns with tails, such as money or durations: Pearson's r of them hangs on a few rows, and so does what can be
    known of its spread. Ranks have no tails. Rows with a value that is not finite are left out. Of columns in which
    fewer than MIN_VARIED rows differ from the commonest value nothing is told: no rows.
    """
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    return _of_ranks(_Ranks.of(a[finite]), _Ranks.of(b[finite]))


def _of_ranks(u: _Ranks, v: _Ranks) -> Correlation:
    if min(u.varied, v.varied) < MIN_VARIED:
        return Correlation(0, 0.0)
    scale = np.sqrt(u.square * v.square)
    r = float(np.clip((u.share @ v.share) / u.share.size / scale, -1 + MARGIN, 1 - MARGIN))
    both = u.influence(v) / scale
    own = u.own / u.square + v.own / v.square
    spread = float((both - r / 2 * own).var()) / (1 - r**2) ** 2
    return Correlation(int(u.share.size), r, max(spread, 1e-6))


@dataclass(frozen=True, eq=False)
class _Ranks:
    """`share`: float64[rows], ranks from -½ to ½; `at`: which of the distinct values each row has."""

    share: Floats
    at: NDArray[np.intp]
    times: NDArray[np.intp]

    @classmethod
    def of(cls, values: Floats) -> _Ranks:
        _, at, times = np.unique(values, return_inverse=True, return_counts=True)
        middle = (np.cumsum(times) - times / 2) / max(values.size, 1) - 0.5
        return cls(middle[at], at, times)

    @property
    def varied(self) -> int:
        """Rows beside the commonest value."""
        return self.share.size - int(self.times.max(initial=0))

    @cached_property
    def square(self) -> float:
        return float(self.share @ self.share) / max(self.share.size, 1)

    @cached_property
    def own(self) -> Floats:
        return self.influence(self)

    def influence(self, other: _Ranks) -> Floats:
        """float64[rows]: how much each row moves the mean product of ranks, by its own and by the others' ranks."""
        return self.share * other.share + self._above(other) + other._above(self)

    def _above(self, other: _Ranks) -> Floats:
        """Mean over rows of the other's rank where this one's is above, and half of it where it is equal."""
        here = np.bincount(self.at, other.share, self.times.size)
        above = here.sum() - np.cumsum(here) + here / 2
        mean: Floats = above[self.at] / self.share.size
        return mean


def rank_correlations(rows: ArrayLike, columns: Sequence[str], prediction: str) -> dict[str, Correlation]:
    """Of each column of float64[rows, columns] with the column named `prediction`; for `Sample`.

    BinsMismatch if that is none of the columns.
    """
    table = np.asarray(rows, np.float64)
    if table.ndim != 2 or table.shape[1] != len(columns) or prediction not in columns:
        raise BinsMismatch(f"expected rows of {len(columns)} columns, one of them {prediction!r}, got {table.shape}")
    beside = table[:, list(columns).index(prediction)]
    known = np.isfinite(beside)
    ranks = _Ranks.of(beside[known])
    told = {}
    for name, column in zip(columns, table.T, strict=True):
        if name != prediction and np.isfinite(column[known]).all():
            told[name] = _of_ranks(_Ranks.of(column[known]), ranks)
        elif name != prediction:
            told[name] = rank_correlation_of(column, beside)
        let_others_run()
    return told


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
