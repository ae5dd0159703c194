"""Every subject's evidence against one reference, pane after pane, with one average run length for all.

A look of `evaluate` measures a window: how much, now. Evidence sums up: it finds what lasts, though too small for a
window, and its guarantee has no horizon. It is fed panes that share no row. Each costs evidence, so those of a quiet
model are put together first, to about a thousand rows (`Pooled`).

A pane whose bins cut through a subject's cells, because they are coarser than the reference's, cannot be counted in
them, and says nothing. Nor may it just be left out: what brought the coarse bins, such as one tiny value, is chance
too. So the subject's evidence starts again from nothing, which can only make a false alarm later; after three such
panes its cells are made anew, of the reference in bins as coarse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from runtime.drift.anytime import ReferenceDetector
from runtime.drift.binned import Apart, Bins, BinsMismatch, CategoryBins, Counts, NumericBins, RateCounts, align
from runtime.drift.cells import NumericCells, category_cells, count_categories, numeric_cells
from runtime.drift.distance import LARGEST
from runtime.yielding import let_others_run

EVIDENCE_CELLS = 10
"""Fewer than a look has: evidence is spent on each cell in each pane."""

EVIDENCE_CATEGORIES = 20

COARSE_PANES = 3
"""One odd value costs a subject the evidence so far; so many panes with some cost it resolution, for good."""


@dataclass(frozen=True, eq=False)
class CellCounter:
    """Counts a subject's rows in the cells that its reference fixed; what lies in no bin has cells of its own."""

    subject: str
    reference: Bins
    cells: NumericCells | tuple[str, ...] | None

    @classmethod
    def of(cls, subject: str, reference: Bins) -> CellCounter:
        match reference:
            case NumericBins():
                return cls(subject, reference, numeric_cells(reference, most=EVIDENCE_CELLS))
            case CategoryBins():
                return cls(subject, reference, category_cells(reference, most=EVIDENCE_CATEGORIES))
            case RateCounts():
                return cls(subject, reference, None)

    def __call__(self, bins: Bins) -> Counts:
        match self.cells, bins:
            case NumericCells(), NumericBins():
                return np.append(self.cells.count(bins), _apart(bins.apart))
            case tuple(), CategoryBins():
                return np.append(count_categories(bins, self.cells), _apart(bins.apart))
            case None, RateCounts():
                return np.array([int(rows / bins.burst) for rows in (bins.hits, bins.rows - bins.hits)], np.int64)
        raise BinsMismatch(f"{self.subject}: expected the kind that the reference has, got {type(bins).__name__}")

    def cut_by(self, bins: Bins) -> bool:
        """Whether a bin with rows lies in two cells."""
        if not isinstance(bins, NumericBins) or not isinstance(self.cells, NumericCells):
            return False
        return self.cells.cut_by(bins)

    def coarsened(self, bins: Bins) -> CellCounter:
        """With cells that `bins` do not cut, of the reference in bins that are as coarse."""
        if not isinstance(bins, NumericBins) or not isinstance(self.reference, NumericBins):
            return self
        edges, counts, _ = align(self.reference, bins)
        known = np.union1d(bins.edges[:-1][bins.held], bins.edges[1:][bins.held])
        # Other edges may lie inside of bins that are as coarse and have rows only in another pane.
        kept = np.isin(edges, known)
        kept[[0, -1]] = True
        starts = np.flatnonzero(kept)[:-1]
        edges = edges[kept]
        edges[0], edges[-1] = -LARGEST, LARGEST
        return CellCounter.of(
            self.subject, NumericBins(edges, np.add.reduceat(counts, starts), apart=self.reference.apart)
        )

    def detector(self) -> ReferenceDetector:
        return ReferenceDetector(self(self.reference))


def _apart(apart: Apart) -> Counts:
    return np.array([apart.missing, apart.nan, apart.infinite, apart.out_of_range], np.int64)


@dataclass(frozen=True, eq=False)
class Evidence:
    """Immutable; `after` gives the next one. Subjects are fixed by the reference; a pane may lack some."""

    counters: Mapping[str, CellCounter]
    detectors: Mapping[str, ReferenceDetector]
    coarse: Mapping[str, int] = field(default_factory=dict)
    """Panes, by subject, that were coarser than its cells: after each its evidence started again."""

    @classmethod
    def of(cls, reference: Mapping[str, Bins]) -> Evidence:
        counters = {subject: CellCounter.of(subject, bins) for subject, bins in reference.items()}
        return cls(counters, {name: counter.detector() for name, counter in counters.items()})

    def after(self, pane: Mapping[str, Bins]) -> Evidence:
        """With a pane that shares no row with those before. Raises BinsMismatch for a subject of another kind."""
        counters, detectors, coarse = dict(self.counters), dict(self.detectors), dict(self.coarse)
        for name, bins in pane.items():
            if name not in counters:
                continue
            let_others_run()
            if not counters[name].cut_by(bins):
                detectors[name] = detectors[name].after(counters[name](bins))
                continue
            coarse[name] = coarse.get(name, 0) + 1
            if coarse[name] % COARSE_PANES:
                detectors[name] = detectors[name].restarted()
            else:
                counters[name] = counters[name].coarsened(bins)
                detectors[name] = counters[name].detector()
        return Evidence(counters, detectors, coarse)

    def log_e(self, subject: str) -> float:
        """Logarithm of the evidence that this subject has changed."""
        return self.detectors[subject].evidence.log_m

    def alarms(self, run_length_panes: float) -> tuple[str, ...]:
        """Who has changed, by evidence. Without drift the first of all false alarms comes, on average, not before
        `run_length_panes`; within T panes, with a probability of at most T/`run_length_panes`.
        """
        raised = [name for name, d in self.detectors.items() if d.alarm(1 / run_length_panes, len(self.detectors))]
        return tuple(sorted(raised, key=lambda name: -self.log_e(name)))
