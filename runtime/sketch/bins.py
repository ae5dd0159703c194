"""Bins that a reference fixes, for comparing any histogram with it.

Guarantee: counts in bins are exact: every edge lies between two buckets of both histograms. Where the live one is
coarser, both are brought to its scale first, and the edges are chosen anew there; they depend on the reference and the
scale only.
Memory: a copy of the reference's histogram, 4,224 bytes.
Merge: none; histograms are merged before they are counted in bins.

Edges: after the cell of each of the reference's quantiles 1/bins, 2/bins, ...; and on both sides of a cell that alone
holds a bin's share or more, so that a constant or a frequent value has a bin of its own. At most 3 * bins bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.sketch.buckets import bounds
from runtime.sketch.exponential import FIRST_POSITION, Cells, ExponentialHistogram

Positions = npt.NDArray[np.int64]

DEFAULT_BINS = 10
MAX_BINS = 256


@dataclass(frozen=True, slots=True)
class BinCounts:
    """Of reference and live: int64[bins] each, beside what lies in no bin, by the names of `aside`.

    edges: float64[bins - 1], ascending, to float64's precision; bin i lies from edges[i - 1] to edges[i], the first and
    the last are open. An edge above 0 belongs to the bin below it, one below 0 to the bin above. Zero alone is a bin
    between two edges that are 0.
    """

    scale: int
    edges: npt.NDArray[np.float64]
    reference: npt.NDArray[np.int64]
    live: npt.NDArray[np.int64]
    reference_aside: dict[str, int]
    live_aside: dict[str, int]


class ReferenceBins:
    """Raises ValueError for a reference without finite values, or bins outside of 2 to 256."""

    def __init__(self, reference: ExponentialHistogram, bins: int = DEFAULT_BINS) -> None:
        if not 2 <= bins <= MAX_BINS:
            raise ValueError(f"expected 2 to {MAX_BINS} bins, got {bins}")
        if not reference.finite:
            raise ValueError("expected a reference with finite values, got none")
        self.bins = bins
        self._reference = reference.copy()

    def counts(self, live: ExponentialHistogram) -> BinCounts:
        """Both in the bins of the smaller of their scales."""
        scale = min(live.scale, self._reference.scale)
        reference = self._reference.coarsened(scale).cells()
        edges = self._edges(reference)
        return BinCounts(
            scale,
            _values(edges, scale),
            _in_bins(reference, edges),
            _in_bins(live.coarsened(scale).cells(), edges),
            self._reference.aside,
            live.aside,
        )

    def _edges(self, cells: Cells) -> Positions:
        """Ascending; an edge right after the cell at position p is 2 p + 1, one right before it 2 p - 1."""
        ends = np.cumsum(cells.counts)
        total = int(ends[-1])
        ranks = np.arange(1, self.bins) * (total - 1) // self.bins
        after = 2 * cells.positions[np.searchsorted(ends, ranks, side="right")] + 1
        heavy = 2 * cells.positions[cells.counts >= total / self.bins]
        return np.unique(np.concatenate([after, heavy - 1, heavy + 1]))


def _in_bins(cells: Cells, edges: Positions) -> Positions:
    counts = np.zeros(len(edges) + 1, np.int64)
    np.add.at(counts, np.searchsorted(edges, 2 * cells.positions), cells.counts)
    return counts


def _values(edges: Positions, scale: int) -> npt.NDArray[np.float64]:
    """An edge is the upper bound of the cell below it; on both sides of zero's cell it is 0."""
    below = (edges - 1) // 2
    indices = np.where(below > 0, below + 1, -below) - FIRST_POSITION
    magnitudes = bounds(indices, scale)
    return np.where((below == 0) | (below == -1), 0.0, np.copysign(magnitudes, below))
