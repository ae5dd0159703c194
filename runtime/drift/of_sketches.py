"""What drift evaluation sees, made from sketches. The rest of runtime.drift knows no sketch.

Two sketches are made comparable together, not each alone: histograms are brought to the coarser of their scales, and
of frequent values those are named that both sketches can tell. Else a sample would differ for having been summarized
more coarsely.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from runtime.drift.binned import (
    Apart,
    Bins,
    BinsMismatch,
    CategoryBins,
    ExactMoments,
    NumericBins,
    RateCounts,
    bins_of_cells,
)
from runtime.drift.cells import CATEGORY_ROWS
from runtime.drift.correlation import Correlation
from runtime.sketch.block import Block
from runtime.sketch.buckets import MAX_SCALE
from runtime.sketch.categories import CategoryCounts
from runtime.sketch.exponential import ExponentialHistogram
from runtime.sketch.frequent import FrequentValues
from runtime.sketch.moments import Moments
from runtime.yielding import let_others_run

CERTAIN = 2
"""Values that make up more than this many times the share that a sketch may miss of each are kept in it, and their
counts are near to exact."""

Pair = tuple[NumericBins, NumericBins]
CategoryPair = tuple[CategoryBins, CategoryBins]


def exact_moments(histogram: ExponentialHistogram, moments: Moments) -> ExactMoments | None:
    """None without values, and where their squares are beyond float64."""
    count, mean, squares, *_ = moments.row[0].tolist()
    variance = squares / (count - 1) if count > 1 else 0.0
    if not count or not math.isfinite(mean) or not math.isfinite(variance):
        return None
    return ExactMoments(int(count), mean, variance, histogram.minimum, histogram.maximum)


def numeric_bins(
    histogram: ExponentialHistogram, moments: Moments | None = None, *, scale: int = MAX_SCALE
) -> NumericBins:
    """At `scale`, or the histogram's own where that is coarser. `moments`: of the same values; BinsMismatch for others.

    Two that are to be compared are better made by `numeric_pair`.
    """
    at_scale = histogram if histogram.scale <= scale else histogram.coarsened(scale)
    cells, aside = at_scale.cells(), at_scale.aside
    let_others_run()
    apart = Apart(
        missing=aside["missing"],
        nan=aside["nan"],
        positive_infinity=aside["plus_infinity"],
        negative_infinity=aside["minus_infinity"],
        out_of_range=aside["below"] + aside["above"],
    )
    exact = None if moments is None else exact_moments(histogram, moments)
    return bins_of_cells(cells.lower, cells.upper, cells.counts, apart=apart, exact=exact)


def numeric_pair(
    reference: ExponentialHistogram, live: ExponentialHistogram, moments: tuple[Moments, Moments] | None = None
) -> Pair:
    """Both at the coarser of their scales, so that every bin of one lies within a cell of the other.

    `moments`: of the reference's values and of the live ones; what moves inside of a bucket shows only in them.
    """
    scale = min(reference.scale, live.scale)
    ours, theirs = moments or (None, None)
    return numeric_bins(reference, ours, scale=scale), numeric_bins(live, theirs, scale=scale)


class PreparedReference:
    """A reference's histograms, and moments where it has them, by subject; bins are kept for each scale that a live
    histogram has asked for, and with them what is computed from them. At most nine scales of each; one thread.
    """

    def __init__(
        self, histograms: Mapping[str, ExponentialHistogram], moments: Mapping[str, Moments] | None = None
    ) -> None:
        self.histograms = histograms
        self.moments = moments or {}
        self._kept: dict[tuple[str, int], NumericBins] = {}

    def pair(self, subject: str, live: ExponentialHistogram, moments: Moments | None = None) -> Pair:
        """As `numeric_pair`. KeyError for a subject that the reference lacks."""
        reference = self.histograms[subject]
        scale = min(reference.scale, live.scale)
        bins = self._kept.get((subject, scale))
        if bins is None:
            bins = numeric_bins(reference, self.moments.get(subject), scale=scale)
            self._kept[subject, scale] = bins
        return bins, numeric_bins(live, moments, scale=scale)

    def pairs(
        self, live: Mapping[str, ExponentialHistogram], moments: Mapping[str, Moments] | None = None
    ) -> tuple[dict[str, NumericBins], dict[str, NumericBins]]:
        """Of all subjects that both have, and those that one has alone: for two `Sample`s."""
        theirs = moments or {}
        ours_by, theirs_by = {}, {}
        for subject, histogram in live.items():
            if subject in self.histograms:
                ours_by[subject], theirs_by[subject] = self.pair(subject, histogram, theirs.get(subject))
            else:
                theirs_by[subject] = numeric_bins(histogram, theirs.get(subject))
        for subject in self.histograms.keys() - live.keys():
            ours_by[subject] = numeric_bins(self.histograms[subject], self.moments.get(subject))
        return ours_by, theirs_by


def subjects_of_blocks(
    reference: Block, live: Block, names: Sequence[str]
) -> tuple[dict[str, NumericBins], dict[str, NumericBins]]:
    """The features of two blocks by name, each pair at its own scale; for `Sample`. BinsMismatch for other features."""
    _check(reference, names)
    _check(live, names)
    pairs = {
        name: numeric_pair(reference.histogram(at), live.histogram(at), (reference.moments_of(at), live.moments_of(at)))
        for at, name in enumerate(names)
    }
    return {name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()}


def category_bins(counts: CategoryCounts) -> CategoryBins:
    """Declared categories, exactly; what was not declared is `other`."""
    by_name = {str(name): count for name, count in counts.by_category().items()}
    return CategoryBins(by_name, counts.other, Apart(missing=counts.missing))


def category_pair(reference: CategoryCounts, live: CategoryCounts) -> CategoryPair:
    """Exactly, where both declare the same categories.

    What only one declares is `other` on both sides: the other sketch has counted it so.
    """
    pair = category_bins(reference), category_bins(live)
    common = pair[0].counts.keys() & pair[1].counts.keys()
    return _common(pair[0], common), _common(pair[1], common)


def _common(bins: CategoryBins, names: AbstractSet[str]) -> CategoryBins:
    if bins.counts.keys() == names:
        return bins
    kept = {name: count for name, count in bins.counts.items() if name in names}
    return CategoryBins(kept, bins.total - sum(kept.values()), bins.apart)


def frequent_pair(
    reference: FrequentValues, live: FrequentValues, *, missing: tuple[int, int] = (0, 0)
) -> CategoryPair:
    """Frequent values of both; rows of what is not named are `other`. `missing`: of either, since sketches count none.

    While both sketches told all values apart (offset 0), all are named and counts are exact. Beyond, those are that the
    larger sample has in so many of its rows that either sketch would have kept them, and that luck did not choose them;
    they count as the most that they can have been, which is near to exact for what came from the beginning on. Texts
    that were cut to the same beginning are one category.
    """
    least_share = CERTAIN * max(side.offset / max(side.total, 1) for side in (reference, live))
    ours, theirs = _by_name(reference), _by_name(live)
    if least_share:
        larger, rows = (ours, reference.total) if reference.total >= live.total else (theirs, live.total)
        names = {name for name, most in larger.items() if most >= max(least_share * rows, CATEGORY_ROWS)}
        ours, theirs = ({name: most for name, most in side.items() if name in names} for side in (ours, theirs))
    return _of_names(ours, reference, missing[0]), _of_names(theirs, live, missing[1])


def evidence_bins(
    *,
    histograms: Mapping[str, ExponentialHistogram] | None = None,
    categories: Mapping[str, CategoryCounts] | None = None,
    frequent: Mapping[str, tuple[FrequentValues, int]] | None = None,
    rates: Mapping[str, tuple[int, int]] | None = None,
    reference: bool = False,
) -> dict[str, Bins]:
    """For `Evidence`: of the reference, and of each pane. Each sample alone, at its own scale: a pane that is coarser
    than the reference is noticed there.

    `frequent`: with the rows that are missing; `rates`: hits and rows. Of the `reference` only such frequent values are
    named as any pane's sketch would have.
    """
    subjects: dict[str, Bins] = {name: numeric_bins(histogram) for name, histogram in (histograms or {}).items()}
    subjects |= {name: category_bins(counts) for name, counts in (categories or {}).items()}
    subjects |= {
        name: _frequent_alone(values, missing, reference) for name, (values, missing) in (frequent or {}).items()
    }
    return subjects | {name: RateCounts(*counted) for name, counted in (rates or {}).items()}


def _frequent_alone(values: FrequentValues, missing: int, reference: bool) -> CategoryBins:
    """The reference names what makes up so large a share that any such sketch of the same values has it, and nearly all
    of its rows. A pane names what it has, as long as upper bounds do not add up to more rows than there are.
    """
    share = CERTAIN / (2 ** (values.lg_slots - 1) + 1) if reference and values.offset else 0.0
    counts, room = {}, values.total
    for name, most in sorted(_by_name(values).items(), key=lambda item: (-item[1], item[0])):
        if most > room or most < share * values.total:
            break
        counts[name] = most
        room -= most
    return CategoryBins(counts, room, Apart(missing=missing))


def _by_name(values: FrequentValues) -> dict[str, int]:
    most: dict[str, int] = {}
    for frequent in values.top():
        name = f"{frequent.value}…" if frequent.cut else str(frequent.value)
        most[name] = most.get(name, 0) + frequent.at_most
    return most


def _of_names(most: dict[str, int], values: FrequentValues, missing: int) -> CategoryBins:
    """Upper bounds can add up to more rows than there are: then all are lowered alike."""
    part = min(1.0, values.total / (sum(most.values()) or 1))
    counts = most if part == 1 else {name: math.floor(count * part) for name, count in most.items()}
    return CategoryBins(counts, values.total - sum(counts.values()), Apart(missing=missing))


def correlation_of_moments(moments: Moments, *, spread: float) -> Correlation | None:
    """With the prediction. None where magnitudes are too large for their squares.

    Moments cannot tell `spread`: take it from rows (`correlation_of`); 1 is for columns near to normal only.
    """
    summary = moments.summary()
    if math.isfinite(summary.correlation):
        return Correlation(summary.pairs, summary.correlation, spread)
    return Correlation(summary.pairs, 0.0, spread) if _constant(moments) else None


def _constant(moments: Moments) -> bool:
    _, _, _, pairs, _, _, m2_x, m2_y, _ = moments.row[0].tolist()
    return pairs < 2 or (math.isfinite(m2_x) and math.isfinite(m2_y))


def correlations_of_block(block: Block, names: Sequence[str], spreads: Mapping[str, float]) -> dict[str, Correlation]:
    """Of each feature with the prediction, where `spreads` has a spread for it and it can be told; for `Sample`."""
    _check(block, names)
    told = {
        name: correlation_of_moments(block.moments_of(at), spread=spreads[name])
        for at, name in enumerate(names)
        if name in spreads
    }
    return {name: correlation for name, correlation in told.items() if correlation is not None}


def _check(block: Block, names: Sequence[str]) -> None:
    if len(names) != block.shape.features or len(set(names)) != len(names):
        raise BinsMismatch(f"expected a name of its own for each of {block.shape.features} features, got {names}")
