"""Changes in how features go together, seen by a few random projections.

A projection is a weighted sum of standardized features, and is then measured like a feature. If two of its features
have correlation r, they add ±2r/s to its variance, s the number of features in it: a correlation that moves shows as a
wider or narrower projection, though no feature itself has changed. With many features in a projection each pair counts
little; so projections are sparse, and features are dealt out like cards, so that all are in about as many.

What they do not see: a pair of features that no projection has together. For p features, c projections of s see a
share of about 1 − exp(−c·s²/p²) of the pairs. The classifier sees every pair up to its limit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from runtime.drift.binned import BinsMismatch, Floats, NumericBins, exact_pair
from runtime.yielding import let_others_run

PROJECTIONS = 16
MIXED = 8
"""Features in a projection: enough that 16 projections see two thirds of 30 features' pairs, few enough that a pair's
correlation moves a projection's variance by a quarter of what it moved itself."""


@dataclass(frozen=True, eq=False)
class Projections:
    """Fixed once, from the reference: `mean`, `scale`: float64[features]; `weights`: float64[features, projections]."""

    mean: Floats
    scale: Floats
    weights: Floats

    def __call__(self, rows: ArrayLike) -> Floats:
        """float64[rows, projections]. A value that is not finite counts as the reference's mean."""
        rows = np.asarray(rows, np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.mean.size:
            raise BinsMismatch(f"expected rows of {self.mean.size} features, got shape {rows.shape}")
        standard = (rows - self.mean) / self.scale
        standard[~np.isfinite(standard)] = 0.0
        return standard @ self.weights


def projections(
    mean: ArrayLike, deviation: ArrayLike, *, seed: int, count: int = PROJECTIONS, mixed: int = MIXED
) -> Projections:
    """`count` sums of `mixed` features with signs ±1/√mixed; the same seed gives the same projections everywhere."""
    mean, scale = np.asarray(mean, np.float64), np.asarray(deviation, np.float64)
    if mean.shape != scale.shape or mean.ndim != 1 or mean.size == 0:
        raise BinsMismatch(f"expected a mean and a deviation for each feature, got {mean.shape} and {scale.shape}")
    scale = np.where(np.isfinite(scale) & (scale > 0), scale, 1.0)
    random = np.random.default_rng(seed)
    mixed = min(mixed, mean.size)
    weights = np.zeros((mean.size, count))
    deck: list[int] = []
    for column in range(count):
        hand: list[int] = []
        while len(hand) < mixed:
            if not deck:
                deck = random.permutation(mean.size).tolist()
            at = next((i for i, feature in enumerate(deck) if feature not in hand), None)
            if at is None:
                deck = random.permutation(mean.size).tolist()
            else:
                hand.append(deck.pop(at))
        weights[hand, column] = random.choice([-1.0, 1.0], mixed) / np.sqrt(mixed)
    return Projections(mean, scale, weights)


def projection_bins(
    reference: ArrayLike, live: ArrayLike, *, seed: int, count: int = PROJECTIONS, mixed: int = MIXED
) -> tuple[dict[str, NumericBins], dict[str, NumericBins]]:
    """Projections of two samples' rows, float64[rows, features], by name; standardized by the reference's rows.

    For two `Sample`s, with Role.PROJECTION. Bins are exact: both samples' values are told apart. Empty without rows or
    features on either side.
    """
    ours, theirs = np.asarray(reference, np.float64), np.asarray(live, np.float64)
    if min(ours.shape) == 0 or len(theirs) == 0:
        return {}, {}
    known = np.where(np.isfinite(ours), ours, np.nan)
    counted = np.maximum(np.isfinite(known).sum(0), 1)
    mean = np.nansum(known, 0) / counted
    deviation = np.sqrt(np.nansum((known - mean) ** 2, 0) / counted)
    project = projections(mean, deviation, seed=seed, count=count, mixed=mixed)
    pairs = []
    for both in zip(project(ours).T, project(theirs).T, strict=True):
        pairs.append(exact_pair(*both))
        let_others_run()
    names = [f"projection {at}" for at in range(len(pairs))]
    return (
        {name: pair[0] for name, pair in zip(names, pairs, strict=True)},
        {name: pair[1] for name, pair in zip(names, pairs, strict=True)},
    )
