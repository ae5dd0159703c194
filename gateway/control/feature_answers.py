"""The features of a window, for people and plots: counts, moments, quantiles, frequent values, bins of both samples.

Bins end at bounds of the sketches' buckets, so that each value is in one and no count is estimated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.drift.binned import CategoryBins
from runtime.drift.of_sketches import category_bins, category_pair, frequent_pair
from runtime.profile.matching import Measured, Sketch, match, measured_by
from runtime.profile.summary import Summary
from runtime.sketch.exponential import Cells, ExponentialHistogram, aligned
from runtime.sketch.moments import Moments

MAX_BINS = 40
"""Of a numeric feature: what a plot shows well."""

MAX_VALUES = 30
"""Of a categorical one; the others are together."""

OTHER = "(other)"

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)

TAIL = 0.005
"""Of either side: bins of equal width lie between, and one each beyond."""

REACH = 2.5
"""Nor do bins of equal width go further than so many times the middle half's width beyond it: tails may be endless."""

LOGARITHMIC = 50.0
"""Where values are positive and the upper end is so many times the lower one, widths are equal in the logarithm."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class FeatureAnswers:
    """Of one window, and a reference where there is one. One thread."""

    def __init__(self, live: Summary, reference: Summary | None) -> None:
        self._features = measured_by(live.schema)
        self._compared = match(reference.schema, live.schema).features if reference is not None else {}
        self._live = _Sketches(live)
        self._reference = _Sketches(reference) if reference is not None else None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._features)

    def summary(self, name: str) -> pb.Feature:
        """Without bins. KeyError for a feature that there is not."""
        measured = self._features[name]
        feature = pb.Feature(name=name, role=measured.feature.role, kind=measured.feature.kind.value)
        feature.live.CopyFrom(self._live.summary(name, measured.sketch))
        if self._reference is not None and name in self._compared:
            feature.reference.CopyFrom(self._reference.summary(name, measured.sketch))
        return feature

    def bins(self, name: str) -> list[pb.FeatureBin]:
        measured = self._features[name]
        reference = self._reference if name in self._compared else None
        if measured.sketch is Sketch.HISTOGRAM:
            return numeric_bins(
                self._live.histograms[name], reference.histograms[name] if reference is not None else None
            )
        return _category_bins(*self._categories(name, measured, reference))

    def _categories(
        self, name: str, measured: Measured, reference: _Sketches | None
    ) -> tuple[CategoryBins, CategoryBins | None]:
        live = self._live
        if measured.sketch is Sketch.RATE:
            return _rate(live.rates[name]), _rate(reference.rates[name]) if reference is not None else None
        if reference is None:
            return live.categories(name, measured.sketch), None
        if measured.sketch is Sketch.CATEGORIES:
            before, now = category_pair(reference.counts[name], live.counts[name])
        else:
            before, now = frequent_pair(reference.frequent[name][0], live.frequent[name][0])
        return now, before


class _Sketches:
    """A summary's, by name."""

    def __init__(self, summary: Summary) -> None:
        self.histograms = summary.histograms()
        self.moments = summary.moments()
        self.counts = summary.categories()
        self.frequent = summary.frequent()
        self.rates = summary.rates()
        self._distinct = summary.distinct()

    def categories(self, name: str, sketch: Sketch) -> CategoryBins:
        if sketch is Sketch.CATEGORIES:
            return category_bins(self.counts[name])
        if sketch is Sketch.RATE:
            return _rate(self.rates[name])
        values, missing = self.frequent[name]
        return frequent_pair(values, values, missing=(missing, missing))[0]

    def summary(self, name: str, sketch: Sketch) -> pb.FeatureSummary:
        if sketch is not Sketch.HISTOGRAM:
            bins = self.categories(name, sketch)
            values, other = top_values(bins)
            return pb.FeatureSummary(rows=bins.rows, missing=bins.apart.missing, values=values, other=other)
        found = _numeric_summary(self.histograms[name], self.moments[name])
        if name in self._distinct:
            found.distinct = self._distinct[name].estimate()
        return found


def _numeric_summary(histogram: ExponentialHistogram, moments: Moments) -> pb.FeatureSummary:
    aside, told = histogram.aside, moments.summary()
    summary = pb.FeatureSummary(
        rows=histogram.total,
        missing=aside["missing"],
        nan=aside["nan"],
        infinite=aside["plus_infinity"] + aside["minus_infinity"],
        out_of_range=aside["below"] + aside["above"],
        zero=histogram.zero,
        relative_error=histogram.relative_error,
    )
    if math.isfinite(told.mean):
        summary.mean = told.mean
    if math.isfinite(told.variance):
        summary.deviation = math.sqrt(told.variance)
    if math.isfinite(told.correlation):
        summary.correlation = told.correlation
    if histogram.finite:
        summary.least, summary.greatest = histogram.minimum, histogram.maximum
        values = histogram.quantiles(QUANTILES).tolist()
        summary.quantiles.extend(pb.Quantile(q=q, value=v) for q, v in zip(QUANTILES, values, strict=True))
    return summary


def _rate(counts: tuple[int, int]) -> CategoryBins:
    hits, rows = counts
    return CategoryBins({"yes": hits, "no": rows - hits})


def top_values(bins: CategoryBins) -> tuple[list[pb.ValueCount], int]:
    """The most frequent ones, and how many rows have another."""
    ranked = sorted(bins.counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_VALUES]
    values = [pb.ValueCount(value=name, count=count) for name, count in ranked if count]
    return values, bins.total - sum(value.count for value in values)


def _category_bins(live: CategoryBins, reference: CategoryBins | None) -> list[pb.FeatureBin]:
    """By the larger share of both; the last bin has all others."""
    before = reference if reference is not None else CategoryBins({})

    def share(name: str) -> float:
        return max(side.counts.get(name, 0) / max(side.total, 1) for side in (live, before))

    names = sorted({*live.counts, *before.counts}, key=lambda name: (-share(name), name))
    names = [name for name in names if share(name) > 0][:MAX_VALUES]
    bins = [
        pb.FeatureBin(category=name, live=live.counts.get(name, 0), reference=before.counts.get(name, 0))
        for name in names
    ]
    rest = [side.total - sum(side.counts.get(name, 0) for name in names) for side in (live, before)]
    if any(rest):
        bins.append(pb.FeatureBin(category=OTHER, live=rest[0], reference=rest[1]))
    return bins


def numeric_bins(live: ExponentialHistogram, reference: ExponentialHistogram | None) -> list[pb.FeatureBin]:
    """Of all finite values. Each bin begins where the one before ends; the first at the least value of both, the last
    ends at the greatest.
    """
    other = reference if reference is not None else ExponentialHistogram()
    cells, before = aligned(live, other)
    if not len(cells.counts):
        return []
    ends = _ends(cells, before)
    starts = np.concatenate([[0], ends[:-1]])
    least = min(side.minimum for side in (live, other) if side.finite)
    greatest = max(side.maximum for side in (live, other) if side.finite)
    highs = np.minimum(cells.upper[ends - 1], greatest)
    highs[-1] = greatest
    lows = np.concatenate([[least], highs[:-1]])
    counts = [np.add.reduceat(side.counts, starts).tolist() for side in (cells, before)]
    return [
        pb.FeatureBin(low=low, high=high, live=now, reference=then)
        for low, high, now, then in zip(lows.tolist(), highs.tolist(), *counts, strict=True)
    ]


def _ends(live: Cells, reference: Cells) -> Integers:
    """Of each bin, the number of cells up to its end; ascending, the last is all."""
    size = len(live.counts)
    if size <= MAX_BINS:
        return np.arange(1, size + 1)
    weights = sum((side.counts / max(int(side.counts.sum()), 1) for side in (live, reference)), np.zeros(size))
    reached = np.cumsum(weights) / weights.sum()
    places = np.minimum(np.searchsorted(reached, (TAIL, 0.25, 0.75, 1 - TAIL)), size - 1)
    low, first, third, high = live.values[places].tolist()
    if low > 0 and high / low > LOGARITHMIC:
        goals = np.geomspace(low, high, MAX_BINS - 1)
    else:
        if third > first:
            low = max(low, first - REACH * (third - first))
            high = min(high, third + REACH * (third - first))
        goals = np.linspace(low, high, MAX_BINS - 1)
    ends = np.searchsorted(live.upper, goals, side="left") + 1
    return np.unique(np.append(ends[ends < size], size))


def within(
    most_bytes: int, names: Sequence[str], answers: FeatureAnswers, order: Callable[[str], float]
) -> tuple[list[pb.Feature], list[str]]:
    """As many features as fit, and bins of as many as fit beside them; notes say what did not.

    `order`: who goes first has the least. Features come in the order of `names`.
    """
    first = sorted(names, key=order)
    features: dict[str, pb.Feature] = {}
    room = most_bytes
    for name in first:
        feature = answers.summary(name)
        room -= feature.ByteSize() + FRAME_BYTES
        if room < 0:
            break
        features[name] = feature
    bare = 0
    for name, feature in features.items():
        bins = answers.bins(name) if room > 0 else []
        size = sum(each.ByteSize() + FRAME_BYTES for each in bins)
        if bare or size > room or room <= 0:
            bare += 1
            continue
        feature.bins.extend(bins)
        room -= size
    return [features[name] for name in names if name in features], list(_notes(len(names), len(features), bare))


FRAME_BYTES = 6
"""Tag and length before an embedded message."""


def _notes(wanted: int, given: int, bare: int) -> Iterable[str]:
    if given < wanted:
        yield f"{wanted - given} of {wanted} features find no room in this answer: ask for one by its name"
    if bare:
        yield f"bins of {bare} features find no room in this answer: ask for one by its name"


def ranks(effects: Mapping[str, float]) -> Callable[[str], float]:
    """The larger an effect, the earlier its feature."""
    return lambda name: -effects.get(name, 0.0)
