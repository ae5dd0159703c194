"""`python -m bench.sketches`: what it costs to measure a value, beside other sketches on the same values."""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import click
import datasketches
import ddsketch
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from bench import cores
from runtime.shm.segment import Segment
from runtime.sketch.block import Block
from runtime.sketch.exponential import ExponentialHistogram
from runtime.sketch.layout import BlockShape

VALUES = 1_000_000
PEER_SHARE = 100
"""ddsketch takes a microsecond a value: it gets this part of the values, and its time is scaled."""

ROWS, FEATURES = 16, 30
CALLS = 500
"""Of a 16-row block in one measurement."""

MEMORY_FEATURES = (30, 1_000, 10_000)
TABLE_WIDTH = 120
OURS = "driftgate histogram"


@dataclass(frozen=True, slots=True)
class Case:
    """`run` treats `count` units: values, or rows."""

    title: str
    count: int
    run: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Row:
    """ns a unit: median, least and greatest of the rounds; the median of the rounds' ratios to the first case."""

    title: str
    median_ns: float
    least_ns: float
    greatest_ns: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes: of the block as laid out, and of the machine's memory that it takes once every feature has been seen."""

    features: int
    lg_k: int
    block_bytes: int
    resident_bytes_positive: int
    resident_bytes_both_signs: int


def _values_cases(values: np.ndarray, prediction: np.ndarray) -> list[Case]:
    column = values.reshape(-1, 1)
    block = Block.create(BlockShape(1))
    some = values[:: len(values) // (VALUES // PEER_SHARE)].tolist()

    def slow() -> None:
        peer = ddsketch.DDSketch(relative_accuracy=0.01)
        for value in some:
            peer.add(value)

    return [
        Case(OURS, len(values), lambda: ExponentialHistogram().observe(values)),
        Case("driftgate, all statistics", len(values), lambda: block.observe(column, prediction)),
        Case(
            "datasketches KLL (C++, vectorized)",
            len(values),
            lambda: datasketches.kll_floats_sketch(200).update(values),
        ),
        Case("ddsketch (Python)", len(some), slow),
        Case("np.histogram, 100 bins", len(values), lambda: np.histogram(values, 100)),
    ]


def _row_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for rows in (ROWS, 1):
        block = Block.create(BlockShape(FEATURES))
        values = rng.lognormal(size=(rows, FEATURES)).astype(np.float32)
        prediction = rng.normal(size=rows)

        def observe(block: Block = block, values: np.ndarray = values, prediction: np.ndarray = prediction) -> None:
            for _ in range(CALLS):
                block.observe(values, prediction)

        cases.append(Case(f"a row of {FEATURES} features, {rows} at a time", CALLS * rows, observe))
    return cases


def measure(cases: list[Case], rounds: int) -> list[Row]:
    """Each case once a round, so that what disturbs the machine disturbs all of them."""
    for case in cases:
        case.run()
    taken: dict[str, list[float]] = {case.title: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            start = time.perf_counter_ns()
            case.run()
            taken[case.title].append((time.perf_counter_ns() - start) / case.count)
    base = taken[cases[0].title]
    return [
        Row(title, median(ns), min(ns), max(ns), median(a / b for a, b in zip(ns, base, strict=True)))
        for title, ns in taken.items()
    ]


def _resident_bytes(sign: float, features: int, lg_k: int) -> int:
    """What a block takes of the machine's memory once every feature has had many magnitudes: shared memory, by page."""
    shape = BlockShape(features, lg_k)
    segment = Segment.create("bench-sketches", shape.size_bytes)
    block = Block.create(shape, memoryview(segment.buffer))
    rng = np.random.default_rng(1)
    for _ in range(8):
        values = rng.lognormal(0, 2, (64, features))
        block.observe(values * np.where(rng.random(values.shape) < 0.5, 1, sign))
    taken = os.fstat(segment.fd).st_blocks * 512
    del block
    gc.collect()  # the views hold the mapping
    segment.close()
    return taken


def memory() -> list[Memory]:
    rows = []
    for features in MEMORY_FEATURES:
        for lg_k in (12, 8):
            size = BlockShape(features, lg_k).size_bytes
            rows.append(
                Memory(features, lg_k, size, _resident_bytes(1, features, lg_k), _resident_bytes(-1, features, lg_k))
            )
    return rows


def _table(title: str, unit: str, rows: list[Row], against: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column("what", no_wrap=True)
    for heading in (f"ns a {unit}", "least", "greatest", f"to {against}"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        cells = (row.median_ns, row.least_ns, row.greatest_ns)
        table.add_row(row.title, *(f"{ns:,.2f}" for ns in cells), f"{row.ratio:,.2f}")
    return table


def _memory_table(rows: list[Memory]) -> Table:
    table = Table(title="Memory of a block, bytes a feature", box=box.SIMPLE_HEAD)
    for heading in ("features", "lg_k", "as laid out", "resident, values > 0", "resident, both signs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        sizes = (row.block_bytes, row.resident_bytes_positive, row.resident_bytes_both_signs)
        table.add_row(f"{row.features:,}", str(row.lg_k), *(f"{size / row.features:,.0f}" for size in sizes))
    return table


@click.command()
@click.option("--rounds", default=9, show_default=True, help="Times each is measured.", type=click.IntRange(1))
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures there.")
def main(*, rounds: int, json_file: Path | None) -> None:
    """Measure all in one run, on one core, and print the tables."""
    rng = np.random.default_rng(1)
    values = rng.lognormal(size=VALUES).astype(np.float32)
    with cores.pinned(cores.choose().server):
        by_value = measure(_values_cases(values, rng.normal(size=VALUES)), rounds)
        by_row = measure(_row_cases(rng), rounds)
        taken = memory()
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    console.print(_table(f"The same {VALUES:,} float32 values, lognormal", "value", by_value, OURS))
    console.print(
        _table("Histogram, moments, correlation with the prediction, distinct count", "row", by_row, "the first")
    )
    console.print(_memory_table(taken))
    console.print(
        f"medians of {rounds} interleaved rounds, one core; Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "datasketches", "ddsketch")),
        highlight=False,
    )
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "rounds": rounds,
            "values": [asdict(row) for row in by_value],
            "rows": [asdict(row) for row in by_row],
            "memory": [asdict(row) for row in taken],
        }
        json_file.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main(prog_name="python -m bench.sketches")
