"""`python -m bench.comparisons`: what comparing a shadow's answers costs, in µs a run: median and least of rounds."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from runtime.repository.statistics_settings import StatisticsSettings
from runtime.shadow.comparison import PairComparison
from runtime.shadow.outputs import comparable_outputs
from runtime.shadow.pair import Copy, PairKey, PairSettings
from runtime.types import ANY, Signature, TensorSpec

KEY = PairKey("model", 1, "sha256:1", 2, "sha256:2")
FEATURES = 30
RUNS = 500
ROUNDS = 9
REQUEST_ROWS = 8

Outputs = dict[str, Any]


def classifier(rows: int, noise: float, random: np.random.Generator) -> tuple[Outputs, Outputs]:
    """A label and two scores. `noise`: by how much the shadow's scores are off."""
    score = random.random(rows)
    other = np.clip(score + random.normal(0, noise, rows), 0, 1)
    return answers(score), answers(other)


def answers(score: Any) -> Outputs:
    return {
        "label": (score > 0.5).astype(np.int64),
        "probabilities": np.stack([1 - score, score], axis=1).astype(np.float32),
    }


CLASSIFIER = (TensorSpec("label", "INT64", (ANY,)), TensorSpec("probabilities", "FP32", (ANY, 2)))
WIDE = (TensorSpec("embedding", "FP32", (ANY, 256)),)


def embedding(rows: int, noise: float, random: np.random.Generator) -> tuple[Outputs, Outputs]:
    first = random.normal(size=(rows, 256)).astype(np.float32)
    return {"embedding": first}, {"embedding": first + np.float32(noise)}


def comparing(
    outputs: tuple[TensorSpec, ...], make: Callable[..., tuple[Outputs, Outputs]], rows: int, noise: float, **given: Any
) -> Callable[[], object]:
    random = np.random.default_rng(0)
    known = comparable_outputs(Signature((TensorSpec("X", "FP32", (ANY, FEATURES)),), outputs), StatisticsSettings())
    sizes = (REQUEST_ROWS,) * (rows // REQUEST_ROWS) or (rows,)
    ids = tuple(f"request-{at}" for at in range(len(sizes)))
    runs = []
    for at in range(RUNS):
        first, second = make(rows, noise, random)
        inputs = {"X": random.normal(size=(rows, FEATURES)).astype(np.float32)}
        runs.append((Copy(1 + at, inputs, first, sizes, ids, 100_000), second))

    def run() -> None:
        comparison = PairComparison(KEY, PairSettings(**given), known)
        for copy, second in runs:
            comparison.compare(copy, second, 120_000)

    return run


def coding(do: Callable[[PairComparison], object]) -> Callable[[], object]:
    random = np.random.default_rng(0)
    known = comparable_outputs(Signature((), CLASSIFIER), StatisticsSettings())
    comparison = PairComparison(KEY, PairSettings(), known)
    for at in range(RUNS):
        first, second = classifier(64, 0.02, random)
        comparison.compare(Copy(1 + at, {}, first, (64,), ("a",), 100_000), second, 120_000)
    return lambda: [do(comparison) for _ in range(RUNS)]


def main() -> None:
    written = PairComparison(KEY, replace(PairSettings(), worst=0)).to_bytes()
    cases = (
        ("1 row, label and 2 scores, all agree", comparing(CLASSIFIER, classifier, 1, 0.0)),
        ("64 rows of 8 requests, all agree", comparing(CLASSIFIER, classifier, 64, 0.0)),
        ("64 rows, 2 % of the classes flip", comparing(CLASSIFIER, classifier, 64, 0.02)),
        ("64 rows, 2 % flip, worst with inputs", comparing(CLASSIFIER, classifier, 64, 0.02, inputs=True)),
        ("64 rows, half of the classes flip", comparing(CLASSIFIER, classifier, 64, 10.0)),
        ("64 rows of 256 numbers, none close", comparing(WIDE, embedding, 64, 0.1)),
        ("write as bytes", coding(lambda comparison: comparison.to_bytes())),
        ("read an empty one", coding(lambda _: PairComparison.from_bytes(written))),
        ("copy and merge", coding(lambda comparison: comparison.copy().merge(comparison))),
    )
    table = Table("case", "median", "least", box=None)
    gc.disable()
    for name, run in cases:
        run()
        took = []
        for _ in range(ROUNDS):
            begin = time.perf_counter_ns()
            run()
            took.append((time.perf_counter_ns() - begin) / RUNS / 1e3)
        table.add_row(name, f"{median(took):.1f}", f"{min(took):.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
