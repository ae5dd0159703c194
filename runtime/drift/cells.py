"""Few cells, fixed by the reference, in which two samples are counted for PSI, Jensen-Shannon and χ².

A histogram of hundreds of bins says little of each. The reference is cut into about equal shares; below its smallest
and above its largest value there is a cell each, so what it never had is not counted with what it had. A reference of
few distinct values (integers, flags) has a cell for each, and one for everything between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from runtime.drift.binned import CategoryBins, Counts, Floats, NumericBins

MOST = 20
"""Cells of a numeric feature: each 5 % of the reference. More see finer changes later, fewer coarser ones sooner."""

MOST_CATEGORIES = 50
"""Categories with a cell of their own, the most frequent first; the others share one."""

CATEGORY_ROWS = 20
"""Rows of the reference that a category needs for a cell of its own. Rare ones have one only if they came often by
chance, which live rows would then not do again."""

DISTINCT_ROWS = 5
"""A value of a discrete reference has a cell of its own only where every value has so many rows: else what the
reference has not seen would be common among what it is compared with, and no change."""


@dataclass(frozen=True, eq=False)
class NumericCells:
    """Interval i is (boundaries[i-1], boundaries[i]], open at both ends; `cell` says to which cell it counts."""

    boundaries: Floats
    cell: NDArray[np.intp]

    def count(self, bins: NumericBins) -> Counts:
        """int64[cells]. Exact for bins of the reference's grid; others are counted where their points lie."""
        at = np.searchsorted(self.boundaries, bins.points, side="left")
        size = int(self.cell.max()) + 1
        return np.bincount(self.cell[at], weights=bins.counts, minlength=size).astype(np.int64)

    def cut_by(self, bins: NumericBins) -> bool:
        """Whether a bin with rows lies on both sides of a boundary."""
        above_low = np.searchsorted(self.boundaries, bins.edges[:-1][bins.held], side="right")
        below_high = np.searchsorted(self.boundaries, bins.edges[1:][bins.held], side="left")
        return bool((below_high > above_low).any())


def numeric_cells(reference: NumericBins, *, most: int = MOST) -> NumericCells:
    """Cells for a reference of at least one row; an empty one has a single cell."""
    full = np.flatnonzero(reference.counts)
    if full.size == 0:
        return NumericCells(np.empty(0), np.zeros(1, np.intp))
    low, high = reference.edges[:-1][full], reference.edges[1:][full]
    counts = reference.counts[full]
    if full.size <= most and counts.min() >= DISTINCT_ROWS:
        boundaries = np.union1d(low, high)
        cell = np.full(boundaries.size + 1, full.size, np.intp)  # everything between and around
        cell[np.searchsorted(boundaries, high)] = np.arange(full.size)
        return NumericCells(boundaries, cell)
    reached = np.cumsum(counts)
    goals = reached[-1] * np.arange(1, most) / most
    cuts = np.unique(high[np.searchsorted(reached, goals)])
    boundaries = np.union1d(cuts, [low[0], high[-1]])
    return NumericCells(boundaries, np.arange(boundaries.size + 1))


_KEPT: WeakKeyDictionary[NumericBins, tuple[NumericCells, Counts]] = WeakKeyDictionary()


def own_cells(reference: NumericBins) -> tuple[NumericCells, Counts]:
    """`numeric_cells` and the reference's counts in them, kept as long as the reference: it is compared with many."""
    kept = _KEPT.get(reference)
    if kept is None:
        cells = numeric_cells(reference)
        kept = _KEPT[reference] = cells, cells.count(reference)
    return kept


def category_cells(reference: CategoryBins, *, most: int = MOST_CATEGORIES) -> tuple[str, ...]:
    """The categories that have a cell, by rows in the reference; the last cell is for all others."""
    ranked = sorted(reference.counts, key=lambda name: (-reference.counts[name], name))
    return tuple(name for name in ranked[:most] if reference.counts[name] >= CATEGORY_ROWS)


def count_categories(bins: CategoryBins, cells: Sequence[str]) -> Counts:
    """int64[cells + 1]; the last one is for categories without a cell."""
    own = [bins.counts.get(name, 0) for name in cells]
    return np.array([*own, bins.total - sum(own)], np.int64)


@dataclass(frozen=True)
class NewCategories:
    """Rows on either side whose category the other rows of the reference do not show.

    `surplus`: by which factor their number varies more than that of independent rows.
    """

    reference: int
    live: int
    surplus: float


def new_categories(reference: CategoryBins, live: CategoryBins) -> NewCategories:
    """Rows on either side whose category the other rows of the reference do not show.

    Of the live rows: those of categories that the reference lacks, and `other`. Of the reference: `other`, and those
    that are alone in their category, since each would have been new if it had come later (Good and Turing). So a
    feature with endless categories, such as a user's name, is not new at every look. The variance of that estimate is
    (alone + 2·in pairs)/N² (Esty 1983): rare categories come in heaps or not at all. And one that
    N rows missed by chance comes in a heap of M/N where it comes once in N.
    """
    alone = sum(count == 1 for count in reference.counts.values())
    in_pairs = sum(count == 2 for count in reference.counts.values())
    hits = reference.other + alone
    new = sum(count for name, count in live.counts.items() if reference.counts.get(name, 0) == 0)
    surplus = 1.0
    if new or alone or in_pairs:
        surplus = (hits + 2 * in_pairs + 1) / (hits + 1) * max(1.0, live.total / max(reference.total, 1))
    return NewCategories(hits, live.other + new, surplus)
