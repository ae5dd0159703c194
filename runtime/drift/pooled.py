"""Panes put together: what several panes have counted, as if one had.

Evidence costs something for each pane, so those of a quiet model are pooled first. How many are pooled hangs on their
rows only and not on what is in them, as the guarantee of evidence asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from runtime.drift.binned import (
    Apart,
    Bins,
    BinsMismatch,
    CategoryBins,
    ExactMoments,
    NumericBins,
    RateCounts,
    align,
)

POOL_ROWS = 1_000
"""A pane of so many rows finds a change of one in twenty rows, and costs little."""


@dataclass(frozen=True)
class Pooled:
    """Immutable; `after` gives the next one. Bounded by what bins of `least_rows` rows and one pane more need."""

    least_rows: int = POOL_ROWS
    rows: int = 0
    subjects: Mapping[str, Bins] = field(default_factory=dict)

    def after(self, pane: Mapping[str, Bins], rows: int) -> tuple[Pooled, Mapping[str, Bins] | None]:
        """With a pane of so many rows; and all so far once that is enough, else None. BinsMismatch for other kinds."""
        subjects = dict(self.subjects)
        for name, bins in pane.items():
            subjects[name] = merged(subjects[name], bins) if name in subjects else bins
        together = self.rows + rows
        if together < self.least_rows:
            return Pooled(self.least_rows, together, subjects), None
        return Pooled(self.least_rows), subjects


def merged(one: Bins, other: Bins) -> Bins:
    """Counts of both; numeric ones in the finest bins that cut through no count of either."""
    match one, other:
        case NumericBins(), NumericBins():
            edges, ours, theirs = align(one, other)
            exact = _merged_moments(one, other)
            return NumericBins(edges, ours + theirs, apart=_merged_apart(one.apart, other.apart), exact=exact)
        case CategoryBins(), CategoryBins():
            names = dict.fromkeys([*one.counts, *other.counts])
            counts = {name: one.counts.get(name, 0) + other.counts.get(name, 0) for name in names}
            return CategoryBins(counts, one.other + other.other, _merged_apart(one.apart, other.apart))
        case RateCounts(), RateCounts():
            return RateCounts(one.hits + other.hits, one.rows + other.rows, max(one.burst, other.burst))
    raise BinsMismatch(f"expected bins of one kind, got {type(one).__name__} and {type(other).__name__}")


def _merged_apart(one: Apart, other: Apart) -> Apart:
    return Apart(**{name: count + getattr(other, name) for name, count in vars(one).items()})


def _merged_moments(one: NumericBins, other: NumericBins) -> ExactMoments | None:
    """Chan's formulas; None where one side's are not known."""
    if one.total == 0 or other.total == 0:
        return other.exact if one.total == 0 else one.exact
    a, b = one.exact, other.exact
    if a is None or b is None:
        return None
    count = a.count + b.count
    apart = b.mean - a.mean
    squares = a.variance * (a.count - 1) + b.variance * (b.count - 1) + apart * apart * a.count * b.count / count
    return ExactMoments(
        count,
        a.mean + apart * b.count / count,
        squares / (count - 1),
        min(a.least, b.least),
        max(a.greatest, b.greatest),
    )
