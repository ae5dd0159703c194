"""`python -m bench.drift`: what a look costs, from a live window's sketches to its verdicts, without the classifier."""

from __future__ import annotations

import os
import time
from statistics import median

import click
import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.table import Table

from bench import cores
from runtime.drift.binned import Bins
from runtime.drift.evaluate import Sample, evaluate
from runtime.drift.of_sketches import PreparedReference, category_bins
from runtime.sketch.categories import CategoryCounts
from runtime.sketch.exponential import ExponentialHistogram
from runtime.sketch.keys import Keys
from runtime.sketch.moments import Moments

FEATURES = (30, 300, 1_000)
CATEGORICAL_SHARE = 0.2
REFERENCE_ROWS, LIVE_ROWS = 50_000, 5_000
DIFFERENT = 40
"""Columns that are drawn; of more features they are taken again."""

Numbers = npt.NDArray[np.float64]


def column(at: int, rows: int, random: np.random.Generator) -> Numbers:
    """One of eight kinds; the last varies within a bucket, so that its moments are tested."""
    drawn = (
        random.normal(0, 1, rows),
        random.normal(100, 15, rows),
        random.lognormal(0, 1.5, rows),
        random.exponential(3, rows),
        random.poisson(4, rows),
        np.where(random.random(rows) < 0.7, 0, random.gamma(2, 3, rows)),
        random.uniform(0, 1, rows),
        random.normal(293, 0.5, rows),
    )
    return np.asarray(drawn[at % len(drawn)], np.float64)


class Window:
    """Sketches of some rows of so many features."""

    def __init__(self, features: int, rows: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        categorical = int(features * CATEGORICAL_SHARE)
        drawn = [column(at, rows, random) for at in range(min(DIFFERENT, features - categorical))]
        self.histograms: dict[str, ExponentialHistogram] = {}
        self.moments: dict[str, Moments] = {}
        self.categories: dict[str, CategoryCounts] = {}
        for at in range(features - categorical):
            self.histograms[f"number {at}"] = ExponentialHistogram.of(drawn[at % len(drawn)])
            moments = self.moments[f"number {at}"] = Moments()
            moments.observe(drawn[at % len(drawn)])
        for at in range(categorical):
            names = [f"c{i}" for i in range(3 + at % 18)]
            counts = self.categories[f"category {at}"] = CategoryCounts(names)
            counts.observe(Keys.of_texts(list(random.choice(names, 2_000))))


def seconds_of_a_look(prepared: PreparedReference, reference: Window, live: Window) -> tuple[float, float]:
    """To make bins of the sketches, and to evaluate them."""
    began = time.perf_counter()
    ours: dict[str, Bins] = {}
    theirs: dict[str, Bins] = {}
    pairs = prepared.pairs(live.histograms, live.moments)
    ours.update(pairs[0])
    theirs.update(pairs[1])
    for side, window in ((ours, reference), (theirs, live)):
        side.update({name: category_bins(counts) for name, counts in window.categories.items()})
    made = time.perf_counter()
    evaluate(Sample("reference", ours), Sample("window", theirs))
    return made - began, time.perf_counter() - made


def medians(features: int, rounds: int) -> tuple[float, float, float]:
    """Seconds to bins, to verdicts, and together. The reference's side is kept from the first look on."""
    reference, live = Window(features, REFERENCE_ROWS, 0), Window(features, LIVE_ROWS, 1)
    prepared = PreparedReference(reference.histograms, reference.moments)
    seconds_of_a_look(prepared, reference, live)
    taken = [seconds_of_a_look(prepared, reference, live) for _ in range(rounds)]
    return median(t[0] for t in taken), median(t[1] for t in taken), median(sum(t) for t in taken)


@click.command(help=__doc__)
@click.option("--rounds", default=15, show_default=True)
def main(rounds: int) -> None:
    table = Table(box=box.SIMPLE, title=f"one look, ms, median of {rounds} rounds, one core")
    for name in ("features", "to bins", "to verdicts", "together"):
        table.add_column(name, justify="right")
    with cores.pinned(min(os.sched_getaffinity(0))):
        for features in FEATURES:
            table.add_row(f"{features:,}", *(f"{seconds * 1e3:.1f}" for seconds in medians(features, rounds)))
    Console(width=100).print(table)


if __name__ == "__main__":
    main(prog_name="python -m bench.drift")
