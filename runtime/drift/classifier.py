"""Two-sample test by a classifier (Lopez-Paz and Oquab 2017): can a model tell live rows from the reference's?

A logistic regression on features, their squares and products learns from one half of the rows; on the other half its
AUC is measured. Drift = max(2·AUC−1, 0): 0 where it guesses, 1 where it is always right. Squares and products let it
see what no single feature shows: variances, and correlations that moved.

The p-value is that of the Mann-Whitney statistic on rows that were not learned from: if both samples have one
distribution, scores of either are exchangeable whatever was learned, so it holds for any classifier. The reference's
rows are a sample here too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from runtime.drift.binned import BinsMismatch, Floats
from runtime.yielding import let_others_run

TERMS = 512
"""At most so many terms: features, squares, products. All products up to 30 features, beyond that a seeded choice."""

CLIP = 5.0
"""Standardized values are cut here: one broken value must not decide what is learned from thousands."""

RIDGE = 0.05
"""Penalty on squared weights, a row: with hundreds of terms and some thousand rows, weights of noise stay small."""

STEPS = 4
"""Newton steps; on standardized terms with this penalty the AUC does not move after three."""

MIN_ROWS = 40
"""Of either side: with fewer rows in each half the normal tail of the statistic is not one."""


@dataclass(frozen=True)
class Separation:
    """How well live rows were told from the reference's. `auc` on held-out rows; `p` one-sided."""

    auc: float
    p: float
    held_out: tuple[int, int]
    weights: tuple[tuple[str, float], ...] = ()

    @property
    def drift(self) -> float:
        return max(2 * self.auc - 1, 0.0)


def auc_of(scores: ArrayLike, other_scores: ArrayLike) -> float:
    """P(score of the second sample > score of the first) + ½P(equal)."""
    return _mann_whitney(np.asarray(scores, np.float64), np.asarray(other_scores, np.float64))[0]


def auc_noise(n: int, m: int) -> float:
    """Standard deviation of the AUC without drift: √((n+m+1)/(12nm)), exact without ties (Hanley and McNeil 1982)."""
    return float(np.sqrt((n + m + 1) / (12 * n * m))) if n and m else np.inf


def _mann_whitney(scores: Floats, other: Floats) -> tuple[float, float]:
    """AUC, and its standard deviation without drift, ties counted."""
    n, m = scores.size, other.size
    _, at, times = np.unique(np.concatenate([scores, other]), return_inverse=True, return_counts=True)
    rank = np.cumsum(times) - (times - 1) / 2
    auc = (rank[at[n:]].sum() - m * (m + 1) / 2) / (n * m)
    size = n + m
    ties = float((times.astype(np.float64) ** 3 - times).sum()) / (size * (size - 1))
    return float(auc), float(np.sqrt(max(size + 1 - ties, 0.0) / (12 * n * m)))


def separation(
    reference: ArrayLike, live: ArrayLike, *, seed: int, names: tuple[str, ...] = (), terms: int = TERMS
) -> Separation:
    """`reference`, `live`: float64[rows, features]. A value that is not finite counts as
    the mean; those are measured apart.

    Rows are halved by the seed. With fewer than MIN_ROWS on a side: AUC ½, p 1. `weights` names the terms that tell
    most, for people.
    """
    sides = [np.asarray(rows, np.float64) for rows in (reference, live)]
    if any(rows.ndim != 2 for rows in sides) or sides[0].shape[1] != sides[1].shape[1]:
        raise BinsMismatch(f"expected rows of the same features, got {sides[0].shape} and {sides[1].shape}")
    random = np.random.default_rng(seed)
    halves = []
    for rows in sides:
        order = random.permutation(len(rows))
        halves.append((rows[order[: len(rows) // 2]], rows[order[len(rows) // 2 :]]))
    if min(len(rows) for rows in sides) < MIN_ROWS or sides[0].shape[1] == 0:
        return Separation(0.5, 1.0, (len(halves[0][1]), len(halves[1][1])))
    (a, a_test), (b, b_test) = halves
    expand = _Expansion(np.concatenate([a, b]), terms, random)
    let_others_run()
    x = np.concatenate([expand(a), expand(b)])
    let_others_run()
    center, scale = x.mean(0), x.std(0)
    scale[scale == 0] = 1.0
    labels = np.concatenate([np.full(len(a), -1.0), np.full(len(b), 1.0)])
    weights = _logistic((x - center) / scale, labels)
    scores = [((expand(test) - center) / scale) @ weights for test in (a_test, b_test)]
    auc, deviation = _mann_whitney(*scores)
    p = float(special.ndtr(-(auc - 0.5) / deviation)) if deviation > 0 else 1.0
    told = np.argsort(-np.abs(weights))[:5]
    return Separation(
        auc, p, (len(a_test), len(b_test)), tuple((expand.name(at, names), float(weights[at])) for at in told)
    )


class _Expansion:
    """Rows to terms: standardized features, squares, products of pairs."""

    def __init__(self, rows: Floats, terms: int, random: np.random.Generator) -> None:
        finite = np.where(np.isfinite(rows), rows, np.nan)
        known = np.isfinite(finite)
        seen = np.maximum(known.sum(0), 1)
        # median and quartiles, so that a broken value does not hide the others
        filled = np.where(known, finite, 0.0)
        self.center = np.array([np.median(c[k]) if k.any() else 0.0 for c, k in zip(filled.T, known.T, strict=True)])
        spread = np.sqrt((np.where(known, filled - self.center, 0.0) ** 2).sum(0) / seen)
        quartile = np.array(
            [
                np.median(np.abs(c[k])) * 1.4826 if k.any() else 0.0
                for c, k in zip((filled - self.center).T, known.T, strict=True)
            ]
        )
        self.scale = np.where(quartile > 0, quartile, np.where(spread > 0, spread, 1.0))
        features = rows.shape[1]
        self.single = np.sort(random.permutation(features)[: terms // 2])
        left, right = np.triu_indices(features)
        chosen = np.sort(random.permutation(left.size)[: terms - self.single.size])
        self.left, self.right = left[chosen], right[chosen]

    def __call__(self, rows: Floats) -> Floats:
        standard = (rows - self.center) / self.scale
        standard = np.clip(np.where(np.isnan(standard), 0.0, standard), -CLIP, CLIP)
        return np.concatenate([standard[:, self.single], standard[:, self.left] * standard[:, self.right]], axis=1)

    def name(self, term: int, names: tuple[str, ...]) -> str:
        def of(feature: int) -> str:
            return names[feature] if feature < len(names) else f"feature {feature}"

        if term < self.single.size:
            return of(int(self.single[term]))
        at = term - self.single.size
        left, right = int(self.left[at]), int(self.right[at])
        return f"{of(left)}²" if left == right else f"{of(left)} × {of(right)}"


def _logistic(x: Floats, labels: Floats) -> Floats:
    """Weights of a logistic regression with the intercept in column means; Newton's method, ridge penalty.

    `x`: float64[rows, terms], standardized; `labels`: −1 or 1. Rows of the two sides weigh the same in sum.
    """
    share = np.where(labels > 0, 0.5 / (labels > 0).sum(), 0.5 / (labels < 0).sum())
    weights, intercept = np.zeros(x.shape[1]), 0.0
    for _ in range(STEPS):
        probability = special.expit(x @ weights + intercept)
        slope = share * (probability - (labels > 0))
        curve = share * np.maximum(probability * (1 - probability), 1e-6)
        mean = (curve @ x) / curve.sum()
        hessian = (x * curve[:, None]).T @ x - curve.sum() * np.outer(mean, mean)
        hessian[np.diag_indices_from(hessian)] += RIDGE
        let_others_run()
        gradient = slope @ x - slope.sum() * mean + RIDGE * weights
        step = np.linalg.solve(hessian, gradient)
        intercept -= slope.sum() / curve.sum() - float(mean @ step)
        weights -= step
        let_others_run()
    return weights
