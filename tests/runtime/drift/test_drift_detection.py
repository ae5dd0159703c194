"""Six changes in a stream: how many rows after the change each is found, beside detectors that know nothing.

Thirty features; one changes. A reference of 50,000 rows, a look every 250 rows at sliding windows, the level shared by
all features and a day of looks. Always-fire alarms at the first look after the change, and at every look before it;
never-fire is never wrong before it and never finds it.

The delay counts the rows from the change to the look at which the feature alone is named as drifted. Run with -s to see
the table.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import pytest
from drift_samples import BinnedDistribution, CategoryDistribution, together
from scipy import stats

from runtime.drift.anytime import ReferenceDetector
from runtime.drift.binned import Bins, CategoryBins, grid_bins
from runtime.drift.cells import category_cells, count_categories, numeric_cells
from runtime.drift.evaluate import JOINT, Sample, evaluate
from runtime.drift.projection import projections

REFERENCE_ROWS = 50_000
PANE_ROWS = 250
WINDOWS_ROWS = (1_000, 10_000)
CALM_LOOKS = 45
MOST_ROWS = 40_000
ROTATED_STEP_ROWS = 500

NORMAL = BinnedDistribution.of(stats.norm.cdf)
COLOURS = CategoryDistribution(("red", "green", "blue"), (0.6, 0.3, 0.1))


@dataclass(frozen=True)
class Source:
    """One feature, before or after the change."""

    distribution: BinnedDistribution | CategoryDistribution
    missing: float = 0.0

    def draw(self, random: np.random.Generator, rows: int) -> Bins:
        if isinstance(self.distribution, CategoryDistribution):
            return self.distribution.draw(random, rows)
        return self.distribution.draw(random, rows, self.missing)


CHANGES = {
    "mean shift of 0.25σ": (Source(NORMAL), Source(BinnedDistribution.of(stats.norm(0.25, 1).cdf))),
    "variance × 1.5": (Source(NORMAL), Source(BinnedDistribution.of(stats.norm(0, np.sqrt(1.5)).cdf))),
    "5 % missing": (Source(NORMAL), Source(NORMAL, missing=0.05)),
    "new category at 2 %": (
        Source(COLOURS),
        Source(CategoryDistribution(("red", "green", "blue", "mauve"), (0.588, 0.294, 0.098, 0.02))),
    ),
    "unit × 1000": (
        Source(BinnedDistribution.of(stats.lognorm(0.5).cdf)),
        Source(BinnedDistribution.of(stats.lognorm(0.5, scale=1000).cdf)),
    ),
}


def delay_of_windows(name: str, window_rows: int, seed: int) -> tuple[int | None, int]:
    """Rows from the change to the verdict; false alarms before it."""
    random = np.random.default_rng([seed, window_rows])
    before, after = CHANGES[name]
    others = {f"other {i}": Source(NORMAL) for i in range(29)}
    reference = {"changed": before.draw(random, REFERENCE_ROWS)}
    reference |= {other: source.draw(random, REFERENCE_ROWS) for other, source in others.items()}
    kept: deque[dict[str, Bins]] = deque(maxlen=window_rows // PANE_ROWS)
    false_alarms, rows = 0, -CALM_LOOKS * PANE_ROWS
    while rows < MOST_ROWS:
        source = before if rows < 0 else after
        pane = {"changed": source.draw(random, PANE_ROWS)}
        pane |= {other: source.draw(random, PANE_ROWS) for other, source in others.items()}
        kept.append(pane)
        rows += PANE_ROWS
        if len(kept) < (kept.maxlen or 0):
            continue
        window = {subject: together([each[subject] for each in kept]) for subject in reference}
        drifted = evaluate(Sample("reference", reference), Sample("window", window)).drifted
        if rows <= 0:
            false_alarms += bool(drifted)
        elif drifted:
            assert drifted == ("changed",)
            return rows, false_alarms
    return None, false_alarms


def delay_of_evidence(name: str, seed: int, alpha: float = 1 / 8640 / 20) -> int | None:
    """Rows from the change to the alarm of the evidence, a look every 1,000 rows, at an average run length of 172,800.

    That is for thirty features together.
    """
    random = np.random.default_rng([seed, 1])
    before, after = CHANGES[name]
    reference = before.draw(random, REFERENCE_ROWS)
    if isinstance(reference, CategoryBins):
        names = category_cells(reference)

        def count(bins: Bins) -> np.ndarray:
            return count_categories(bins, names)
    else:
        cells = numeric_cells(reference, most=10)

        def count(bins: Bins) -> np.ndarray:
            return np.append(cells.count(bins), bins.apart.missing)

    detector, rows = ReferenceDetector(count(reference)), -CALM_LOOKS * 1_000
    while rows < MOST_ROWS:
        source = before if rows < 0 else after
        detector = detector.after(count(source.draw(random, 1_000)))
        rows += 1_000
        if detector.alarm(alpha, 30):
            assert rows > 0
            return rows
    return None


def always_fire() -> tuple[int, int]:
    return PANE_ROWS, CALM_LOOKS


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_one_feature_in_thirty_is_found_and_named(name: str) -> None:
    shortest = []
    for window_rows in WINDOWS_ROWS:
        delay, false_alarms = delay_of_windows(name, window_rows, seed=1)
        print(f"{name:22} window {window_rows:6}: {delay} rows, {false_alarms} false alarms in {CALM_LOOKS} looks")
        assert false_alarms == 0
        shortest.append(delay)
    evidence = delay_of_evidence(name, seed=1)
    print(f"{name:22} evidence of panes: {evidence} rows; always-fire {always_fire()}, never-fire (None, 0)")
    assert shortest[-1] is not None  # the long window finds every one
    assert shortest[-1] <= WINDOWS_ROWS[-1]
    assert evidence is not None


def rotated_rows(random: np.random.Generator, rows: int, correlation: float) -> np.ndarray:
    x = random.normal(size=(rows, 30))
    x[:, 1] = correlation * x[:, 0] + np.sqrt(1 - correlation**2) * x[:, 1]
    return x


def test_a_rotated_correlation_with_unchanged_marginals_is_found() -> None:
    """One of 435 pairs turns from 0.6 to −0.6: no feature drifts, all features together do."""
    random = np.random.default_rng(9)
    columns = tuple(f"x{i}" for i in range(30))
    reference = rotated_rows(random, 10_000, 0.6)
    project = projections(reference.mean(0), reference.std(0), seed=0)

    def summary(x: np.ndarray, source: str) -> Sample:
        subjects = {column: grid_bins(values) for column, values in zip(columns, x.T, strict=True)}
        subjects |= {f"projection {i}": grid_bins(values) for i, values in enumerate(project(x).T)}
        return Sample(source, subjects, rows=x[:: max(len(x) // 4_000, 1)], columns=columns)

    whole, stream = summary(reference, "reference"), rotated_rows(random, 4_000, 0.6)
    assert not evaluate(whole, summary(stream, "window")).drifted
    found: dict[str, int] = {}
    for rows in range(ROTATED_STEP_ROWS, 4_001, ROTATED_STEP_ROWS):
        stream = np.concatenate([stream[ROTATED_STEP_ROWS:], rotated_rows(random, ROTATED_STEP_ROWS, -0.6)])
        for subject in evaluate(whole, summary(stream, "window")).drifted:
            found.setdefault(subject.split()[0], rows)
    print(f"rotated correlation: {found} rows; always-fire {ROTATED_STEP_ROWS}, never-fire None")
    assert not set(found) & set(columns)
    assert "all" in found
    assert JOINT.startswith("all")
