"""A reference and a live window as the two samples that runtime.drift compares, and a pane as its evidence.

What is compared: features and outputs that both have; the rate of rejected predictions; correlations with the
prediction where the reference knows their spread; and of the rows that both keep, sums of a few features each and the
classifier. The prediction is a column of these rows, and no feature: it is left out there.

Rows that are kept are a uniform sample of all rows, so they are as many for a long window as for a short one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from runtime.drift.binned import Bins, CategoryBins, NumericBins, RateCounts, grid_bins
from runtime.drift.correlation import Correlation
from runtime.drift.evaluate import Sample
from runtime.drift.evidence import Evidence
from runtime.drift.of_sketches import category_bins, correlation_of_moments, frequent_pair, numeric_bins
from runtime.drift.projection import Projections, projections
from runtime.drift.verdict import Role
from runtime.profile.matching import Match, Sketch, match
from runtime.profile.schema import PREDICTION, Schema
from runtime.profile.summary import Summary
from runtime.sketch.buckets import MAX_SCALE
from runtime.sketch.categories import CategoryCounts
from runtime.sketch.exponential import ExponentialHistogram

Floats = npt.NDArray[np.float64]

FEWEST_COLUMNS = 2
"""Of the rows kept: with one column there is nothing to go together."""

FEWEST_ROWS = 40
"""Of either side's rows that are kept, for projections and the classifier (classifier.MIN_ROWS)."""

SEED = 1
"""Of projections: the same features go together in every process and after every restart."""


@dataclass(frozen=True, eq=False)
class Compared:
    """`left_out`: what is not compared, each with why."""

    reference: Sample
    live: Sample
    left_out: tuple[str, ...]


class PreparedReference:
    """A reference, and what follows from it alone: its bins at each scale that was asked for, its projections.

    source: what verdicts call it, such as its digest. spreads: of each feature's correlation with the prediction (see
    Correlation.spread); correlations without one are not compared. One thread at a time. Memory: that of the summary,
    and some KiB for each feature.
    """

    def __init__(self, summary: Summary, source: str, spreads: Mapping[str, float] | None = None) -> None:
        self.summary = summary
        self.source = source
        self.spreads = dict(spreads or {})
        self._histograms = summary.histograms()
        self._bins: dict[tuple[str, int], NumericBins] = {}
        self._frequent = {name: values for name, (values, _) in summary.frequent().items()}
        self._missing = {name: missing for name, (_, missing) in summary.frequent().items()}
        self._categories = summary.categories()
        self._rates = {name: RateCounts(hits, rows) for name, (hits, rows) in summary.rates().items()}
        self._moments = summary.moments()
        self._matches: dict[str, Match] = {}
        self._projection: tuple[tuple[str, ...], Projections, list[NumericBins]] | None = None

    @property
    def rows(self) -> int:
        return self.summary.rows

    def match(self, schema: Schema) -> Match:
        """With a live schema; kept, since it is the same from look to look."""
        found = self._matches.get(schema.digest)
        if found is None:
            found = match(self.summary.schema, schema)
            self._matches = {schema.digest: found}  # one version has one schema
        return found

    def compare(self, live: Summary, start_seconds: float, end_seconds: float, *, together: bool = True) -> Compared:
        """Both samples, by name of subject. `together`: also the rows for the classifier."""
        matched = self.match(live.schema)
        pairs = self._pairs(live, matched)
        roles = {
            name: Role.OUTPUT if matched.features[name].feature.role == "output" else Role.FEATURE for name in pairs
        }
        columns, rows, live_rows = self._rows(live, matched)
        if columns:
            for name, pair in self._projected(columns, rows, live_rows).items():
                pairs[name], roles[name] = pair, Role.PROJECTION
        correlations = self._correlations(live, matched)
        reference = Sample(
            self.source,
            {name: pair[0] for name, pair in pairs.items()},
            roles=roles,
            correlations={name: pair[0] for name, pair in correlations.items()},
        )
        window = Sample(
            f"the {end_seconds - start_seconds:.0f} s to {end_seconds:.0f}",
            {name: pair[1] for name, pair in pairs.items()},
            start_seconds,
            end_seconds,
            roles=roles,
            correlations={name: pair[1] for name, pair in correlations.items()},
        )
        if together and columns:
            reference = replace(reference, rows=rows, columns=columns)
            window = replace(window, rows=live_rows, columns=columns)
        return Compared(reference, window, matched.left_out)

    def evidence(self, schema: Schema) -> Evidence:
        """None so far, of everything that both schemas have."""
        matched = self.match(schema)
        found: dict[str, Bins] = {name: self._numeric(name, MAX_SCALE) for name in matched.of(Sketch.HISTOGRAM)}
        for name in matched.of(Sketch.FREQUENT):
            values = self._frequent[name]
            found[name] = frequent_pair(values, values, missing=(self._missing[name],) * 2)[0]
        found |= {name: category_bins(self._categories[name]) for name in matched.of(Sketch.CATEGORIES)}
        found |= {name: self._rates[name] for name in matched.of(Sketch.RATE)}
        return Evidence.of({name: bins for name, bins in found.items() if bins.rows})

    def pane(self, live: Summary) -> dict[str, Bins]:
        """Of a pane, what `evidence` counts."""
        return {name: pair[1] for name, pair in self._pairs(live, self.match(live.schema)).items()}

    def _numeric(self, name: str, scale: int) -> NumericBins:
        scale = min(scale, self._histograms[name].scale)
        if (name, scale) not in self._bins:
            self._bins[name, scale] = numeric_bins(self._histograms[name], scale=scale)
        return self._bins[name, scale]

    def _pairs(self, live: Summary, matched: Match) -> dict[str, tuple[Bins, Bins]]:
        pairs: dict[str, tuple[Bins, Bins]] = {}
        histograms = live.histograms()
        for name in matched.of(Sketch.HISTOGRAM):
            pairs[name] = self._numeric_pair(name, histograms[name])
        categories, frequent, rates = live.categories(), live.frequent(), live.rates()
        for name in matched.of(Sketch.CATEGORIES):
            pairs[name] = categories_pair(self._categories[name], categories[name])
        for name in matched.of(Sketch.FREQUENT):
            values, missing = frequent[name]
            pairs[name] = frequent_pair(self._frequent[name], values, missing=(self._missing[name], missing))
        for name in matched.of(Sketch.RATE):
            pairs[name] = self._rates[name], RateCounts(*rates[name])
        return pairs

    def _numeric_pair(self, name: str, live: ExponentialHistogram) -> tuple[NumericBins, NumericBins]:
        scale = min(self._histograms[name].scale, live.scale)
        return self._numeric(name, scale), numeric_bins(live, scale=scale)

    def _correlations(self, live: Summary, matched: Match) -> dict[str, tuple[Correlation, Correlation]]:
        if not matched.same_prediction:
            return {}
        moments = live.moments()
        found = {}
        for name in matched.of(Sketch.HISTOGRAM):
            spread = self.spreads.get(name)
            if spread is None:
                continue
            pair = [correlation_of_moments(side[name], spread=spread) for side in (self._moments, moments)]
            if pair[0] is not None and pair[1] is not None:
                found[name] = pair[0], pair[1]
        return found

    @cached_property
    def _kept(self) -> tuple[tuple[str, ...], Floats]:
        sample = self.summary.sample()
        return sample.columns, sample.rows

    def _rows(self, live: Summary, matched: Match) -> tuple[tuple[str, ...], Floats, Floats]:
        """Columns that both keep, and the rows; no columns where there are too few of either."""
        columns, rows = self._kept
        now = live.sample()
        common = tuple(
            name for name in columns if name != PREDICTION and name in now.columns and name in matched.features
        )
        if len(common) < FEWEST_COLUMNS or min(len(rows), len(now.rows)) < FEWEST_ROWS:
            return (), rows, now.rows
        ours, theirs = ([names.index(name) for name in common] for names in (columns, now.columns))
        return common, rows[:, ours], now.rows[:, theirs]

    def _projected(self, columns: tuple[str, ...], rows: Floats, live: Floats) -> dict[str, tuple[Bins, Bins]]:
        if self._projection is None or self._projection[0] != columns:
            project = _projections(rows)
            self._projection = columns, project, [grid_bins(column) for column in project(rows).T]
        _, project, bins = self._projection
        return {
            f"(projection {at + 1})": (before, grid_bins(column))
            for at, (before, column) in enumerate(zip(bins, project(live).T, strict=True))
        }


def _projections(rows: Floats) -> Projections:
    finite = np.where(np.isfinite(rows), rows, np.nan)
    known = np.isfinite(rows).any(axis=0)
    mean, deviation = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
    mean[known] = np.nanmean(finite[:, known], axis=0)
    deviation[known] = np.nanstd(finite[:, known], axis=0)
    return projections(mean, deviation, seed=SEED)


def categories_pair(reference: CategoryCounts, live: CategoryCounts) -> tuple[CategoryBins, CategoryBins]:
    """Where other categories are declared than in the reference, only those that both have are told apart."""
    if reference.declared == live.declared:
        return category_bins(reference), category_bins(live)
    common = set(map(str, reference.declared)) & set(map(str, live.declared))
    return _only(category_bins(reference), common), _only(category_bins(live), common)


def _only(bins: CategoryBins, names: set[str]) -> CategoryBins:
    counts = {name: count for name, count in bins.counts.items() if name in names}
    return CategoryBins(counts, bins.total - sum(counts.values()), bins.apart)
