"""A reference and a live window as the two samples that runtime.drift compares, and a pane as its evidence.

What is compared: features and outputs that both have; the rate of rejected predictions; correlations with the
prediction where the reference knows their spread; and of the rows that both keep, sums of a few features each and the
classifier. The prediction is a column of these rows, and no feature: it is left out there.

Rows that are kept are a uniform sample of all rows, so they are as many for a long window as for a short one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.drift.binned import Bins, RateCounts
from runtime.drift.correlation import Correlation, rank_correlations
from runtime.drift.evaluate import Sample
from runtime.drift.evidence import Evidence
from runtime.drift.of_sketches import PreparedReference as PreparedHistograms
from runtime.drift.of_sketches import category_pair, evidence_bins, frequent_pair
from runtime.drift.projection import projection_bins
from runtime.drift.verdict import Role
from runtime.profile.matching import Match, Sketch, match
from runtime.profile.schema import PREDICTION, Schema
from runtime.profile.summary import SampledRows, Summary
from runtime.yielding import let_others_run

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
    """A reference, and what follows from it alone, such as its bins at each scale that was asked for.

    source: what verdicts call it: its digest. One thread at a time. Memory: about twice that of
    the summary.
    """

    def __init__(self, summary: Summary, source: str) -> None:
        self.summary = summary
        self.source = source
        self._moments = summary.moments()
        self._histograms = PreparedHistograms(summary.histograms(), self._moments)
        self._frequent = summary.frequent()
        self._categories = summary.categories()
        self._rates = {name: RateCounts(*counts) for name, counts in summary.rates().items()}
        self._sample = summary.sample()
        self._correlated: dict[str, Correlation] | None = None
        self._match: Match | None = None
        self._matched = ""

    @property
    def rows(self) -> int:
        return self.summary.rows

    def match(self, schema: Schema) -> Match:
        """With a live schema; kept, since a version has one."""
        if self._match is None or self._matched != schema.digest:
            self._match, self._matched = match(self.summary.schema, schema), schema.digest
        return self._match

    def compare(self, live: Summary, start_seconds: float, end_seconds: float, *, together: bool = True) -> Compared:
        """Both samples, by name of subject. `together`: with the rows for the classifier."""
        matched = self.match(live.schema)
        pairs = self._pairs(live, matched)
        roles = {name: Role.OUTPUT for name in pairs if matched.features[name].feature.role == "output"}
        columns, rows, live_rows = self._rows(live, matched)
        if columns:
            before, now = projection_bins(rows, live_rows, seed=SEED)
            for name in before.keys() - pairs.keys():
                pairs[name], roles[name] = (before[name], now[name]), Role.PROJECTION
        correlations = self._correlations(live, matched)
        reference = Sample(
            self.source,
            {name: pair[0] for name, pair in pairs.items()},
            roles=roles,
            correlations={name: pair[0] for name, pair in correlations.items()},
        )
        window = Sample(
            f"{end_seconds - start_seconds:.0f} s",
            {name: pair[1] for name, pair in pairs.items()},
            start_seconds,
            end_seconds,
            roles,
            {name: pair[1] for name, pair in correlations.items()},
        )
        if together and columns:
            reference = replace(reference, rows=rows, columns=columns)
            window = replace(window, rows=live_rows, columns=columns)
        return Compared(reference, window, matched.left_out)

    def evidence(self, schema: Schema) -> Evidence:
        """None so far, of all features that the reference has rows of."""
        found = evidence_bins(**self._by_sketch(self.summary, self.match(schema)), reference=True)
        return Evidence.of({name: bins for name, bins in found.items() if bins.rows})

    def pane(self, live: Summary) -> dict[str, Bins]:
        """Of a pane, what `evidence` counts."""
        return evidence_bins(**self._by_sketch(live, self.match(live.schema)))

    def _by_sketch(self, summary: Summary, matched: Match) -> dict[str, Any]:
        """What `evidence_bins` takes. Of other declared categories than the reference's nothing adds up over panes."""
        declared = {name for name, told in matched.features.items() if not told.redeclared}
        found: dict[str, Mapping[str, Any]] = {
            "histograms": summary.histograms(),
            "categories": {n: counts for n, counts in summary.categories().items() if n in declared},
            "frequent": summary.frequent(),
            "rates": summary.rates(),
        }
        return {kind: {n: each for n, each in by.items() if n in matched.features} for kind, by in found.items()}

    def _pairs(self, live: Summary, matched: Match) -> dict[str, tuple[Bins, Bins]]:
        pairs: dict[str, tuple[Bins, Bins]] = {}
        histograms, moments = live.histograms(), live.moments()
        for name in matched.of(Sketch.HISTOGRAM):
            pairs[name] = self._histograms.pair(name, histograms[name], moments[name])
            let_others_run()
        categories, frequent, rates = live.categories(), live.frequent(), live.rates()
        for name in matched.of(Sketch.CATEGORIES):
            pairs[name] = category_pair(self._categories[name], categories[name])
        for name in matched.of(Sketch.FREQUENT):
            (before, gone), (now, missing) = self._frequent[name], frequent[name]
            pairs[name] = frequent_pair(before, now, missing=(gone, missing))
        for name in matched.of(Sketch.RATE):
            pairs[name] = self._rates[name], RateCounts(*rates[name])
        return pairs

    def _correlations(self, live: Summary, matched: Match) -> dict[str, tuple[Correlation, Correlation]]:
        if not matched.same_prediction:
            return {}
        now = _rank_correlations(live.sample())
        if self._correlated is None:
            self._correlated = _rank_correlations(self._sample)
        compared = self._correlated.keys() & now.keys() & set(matched.of(Sketch.HISTOGRAM))
        return {name: (self._correlated[name], now[name]) for name in sorted(compared)}

    def _rows(self, live: Summary, matched: Match) -> tuple[tuple[str, ...], Floats, Floats]:
        """Columns that both keep, and the rows; no columns where there are too few of either."""
        before, now = self._sample, live.sample()
        common = tuple(
            name for name in before.columns if name in now.columns and name in matched.features and name != PREDICTION
        )
        if len(common) < FEWEST_COLUMNS or min(len(before.rows), len(now.rows)) < FEWEST_ROWS:
            return (), before.rows, now.rows
        rows, live_rows = (side.rows[:, [side.columns.index(name) for name in common]] for side in (before, now))
        return common, rows, live_rows


def _rank_correlations(sample: SampledRows) -> dict[str, Correlation]:
    """Of ranks, from rows: the moments' correlation of columns with heavy tails hangs on a few values of millions."""
    if PREDICTION not in sample.columns or len(sample.rows) < FEWEST_ROWS:
        return {}
    return rank_correlations(sample.rows, sample.columns, PREDICTION)
