"""What the suites of shadows share: a pair of versions, copies of runs, and answers that differ a little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runtime.repository.manifest import parse_manifest
from runtime.repository.statistics_settings import StatisticsSettings
from runtime.shadow.comparison import PairComparison
from runtime.shadow.outputs import ComparableOutputs, comparable_outputs
from runtime.shadow.pair import Copy, PairKey, PairSettings
from runtime.types import ANY, Signature, TensorSpec

KEY = PairKey("iris", 1, "sha256:" + "1" * 64, 2, "sha256:" + "2" * 64)
OTHER_KEY = PairKey("iris", 1, "sha256:" + "1" * 64, 3, "sha256:" + "3" * 64)
SECOND = 1_000_000_000
BEGAN_NS = 1_700_000_000 * SECOND
CLASSES = ("setosa", "versicolor", "virginica")
FEATURES = ("sepal_length", "sepal_width", "petal_length", "petal_width")


def spec(name: str, datatype: str, *widths: int) -> TensorSpec:
    return TensorSpec(name, datatype, (ANY, *widths))


def signature(*outputs: TensorSpec, inputs: Sequence[TensorSpec] = (), **metadata: str) -> Signature:
    return Signature(tuple(inputs) or (spec("X", "FP32", len(FEATURES)),), outputs, metadata)


def settings(text: str = "") -> StatisticsSettings:
    """Of the `statistics` section of a model.yaml."""
    indented = "\n".join(f"  {line}" for line in text.splitlines())
    return parse_manifest(f"statistics:\n{indented}\n" if text else "", "model.yaml").statistics


IRIS = signature(
    spec("label", "INT64"),
    spec("probabilities", "FP32", 3),
    feature_names=",".join(FEATURES),
    classes=",".join(CLASSES),
)
REGRESSION = signature(spec("price", "FP32", 1))


def outputs_of(of: Signature, text: str = "") -> ComparableOutputs:
    return comparable_outputs(of, settings(text))


def copy_of(
    outputs: Mapping[str, Any],
    rows: Sequence[int] | None = None,
    *,
    inputs: Mapping[str, Any] | None = None,
    unix_ns: int = BEGAN_NS,
    run_ns: int = 100_000,
    batched: bool = True,
) -> Copy:
    """Arrays of lists as they come: float32, int64 or texts. Without `rows` it is one request."""
    arrays = {name: array_of(values) for name, values in outputs.items()}
    total = max((len(array) if array.ndim else 1 for array in arrays.values()), default=1)
    requests = tuple(rows) if rows is not None else (total,)
    given = {name: array_of(values) for name, values in (inputs or {}).items()}
    ids = tuple(f"r{at}" for at in range(len(requests)))
    return Copy(unix_ns, given, arrays, requests, ids, run_ns, batched)


def array_of(values: Any) -> Any:
    if isinstance(values, np.ndarray):
        return values
    array = np.array(values)
    if array.dtype.kind == "U":
        return array.astype(object)
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def answers_of(**outputs: Any) -> dict[str, Any]:
    return {name: array_of(values) for name, values in outputs.items()}


def scores(random: np.random.Generator, rows: int) -> Any:
    made = random.dirichlet([1.0] * len(CLASSES), rows)
    return made.astype(np.float32)


def iris_run(
    random: np.random.Generator, rows: Sequence[int], noise: float, unix_ns: int
) -> tuple[Copy, dict[str, Any]]:
    """A run of the classifier, and what a shadow answers whose scores are off by `noise`."""
    total = sum(rows)
    first = scores(random, total)
    second = np.abs(first + random.normal(0, noise, first.shape)).astype(np.float32)
    copy = copy_of(
        {"label": first.argmax(1), "probabilities": first},
        rows,
        inputs={"X": random.normal(size=(total, len(FEATURES))).astype(np.float32)},
        unix_ns=unix_ns,
    )
    return copy, {"label": second.argmax(1), "probabilities": second}


def iris_comparison(
    seed: int = 0, runs: int = 10, noise: float = 0.1, *, key: PairKey = KEY, begin_ns: int = BEGAN_NS, **given: Any
) -> PairComparison:
    """Of `runs` runs of 1 to 8 requests; a few failed and shed."""
    random = np.random.default_rng(seed)
    made = PairComparison(key, PairSettings(**given), outputs_of(IRIS))
    for at in range(runs):
        rows = random.integers(1, 5, random.integers(1, 9)).tolist()
        copy, answers = iris_run(random, rows, noise, begin_ns + at * SECOND)
        made.compare(copy, answers, int(random.integers(50_000, 400_000)))
    copy, _ = iris_run(random, [2, 3], noise, begin_ns)
    made.fail(copy, "RunError: version 2 failed on a request: the input X has NaN")
    made.shed("late", 3)
    return made
