"""Every subject's evidence against one reference, pane after pane, with one average run length for all.

A look of `evaluate` measures a window: how much, now. Evidence sums up: it finds what lasts, though too small for a
window, and its guarantee has no horizon. It is fed panes that share no row. Each costs evidence, so those of a quiet
model are put together first, to about a thousand rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from runtime.drift.anytime import ReferenceDetector
from runtime.drift.binned import Apart, Bins, BinsMismatch, CategoryBins, Counts, NumericBins, RateCounts
from runtime.drift.cells import NumericCells, category_cells, count_categories, numeric_cells

EVIDENCE_CELLS = 10
"""Fewer than a look has: evidence is spent on each cell in each pane."""

EVIDENCE_CATEGORIES = 20


@dataclass(frozen=True, eq=False)
class CellCounter:
    """Counts a subject's rows in the cells that its reference fixed; what lies in no bin has cells of its own."""

    subject: str
    cells: NumericCells | tuple[str, ...] | None

    @classmethod
    def of(cls, subject: str, reference: Bins) -> CellCounter:
        match reference:
            case NumericBins():
                return cls(subject, numeric_cells(reference, most=EVIDENCE_CELLS))
            case CategoryBins():
                return cls(subject, category_cells(reference, most=EVIDENCE_CATEGORIES))
            case RateCounts():
                return cls(subject, None)

    def __call__(self, bins: Bins) -> Counts:
        match self.cells, bins:
            case NumericCells(), NumericBins():
                return np.append(self.cells.count(bins), _apart(bins.apart))
            case tuple(), CategoryBins():
                return np.append(count_categories(bins, self.cells), _apart(bins.apart))
            case None, RateCounts():
                return np.array([bins.hits, bins.rows - bins.hits], np.int64)
        raise BinsMismatch(f"{self.subject}: expected the kind that the reference has, got {type(bins).__name__}")


def _apart(apart: Apart) -> Counts:
    return np.array([apart.missing, apart.nan, apart.infinite, apart.out_of_range], np.int64)


@dataclass(frozen=True, eq=False)
class Evidence:
    """Immutable; `after` gives the next one. Subjects are fixed by the reference; a pane may lack some."""

    counters: Mapping[str, CellCounter]
    detectors: Mapping[str, ReferenceDetector]

    @classmethod
    def of(cls, reference: Mapping[str, Bins]) -> Evidence:
        counters = {subject: CellCounter.of(subject, bins) for subject, bins in reference.items()}
        return cls(counters, {name: ReferenceDetector(count(reference[name])) for name, count in counters.items()})

    def after(self, pane: Mapping[str, Bins]) -> Evidence:
        """With a pane that shares no row with those before. Raises BinsMismatch for a subject of another kind."""
        seen = {
            name: self.detectors[name].after(self.counters[name](bins))
            for name, bins in pane.items()
            if name in self.detectors
        }
        return replace(self, detectors={**self.detectors, **seen})

    def log_e(self, subject: str) -> float:
        """Logarithm of the evidence that this subject has changed."""
        return self.detectors[subject].evidence.log_m

    def alarms(self, run_length_panes: float) -> tuple[str, ...]:
        """Who has changed, by evidence. Without drift the first of all false alarms comes, on average, not before
        `run_length_panes`; within T panes, with a probability of at most T/`run_length_panes`.
        """
        raised = [name for name, d in self.detectors.items() if d.alarm(1 / run_length_panes, len(self.detectors))]
        return tuple(sorted(raised, key=lambda name: -self.log_e(name)))
