"""Rows of a real data set as a version's traffic: summaries of them, with features shifted where a test asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_breast_cancer

from runtime.profile.compare import PreparedReference
from runtime.profile.of_signature import schema_of
from runtime.profile.schema import Schema
from runtime.profile.summary import Summary
from runtime.repository.statistics_settings import StatisticsSettings
from runtime.types import Signature, TensorSpec

Rows = npt.NDArray[np.float32]
Change = Callable[[Rows], None]

NAMES = tuple(str(name) for name in load_breast_cancer().feature_names)
RUN_ROWS = 500


@cache
def _data() -> Rows:
    rows: Rows = load_breast_cancer().data.astype(np.float32)
    return rows


def schema(**settings: Any) -> Schema:
    signature = Signature(
        inputs=(TensorSpec("x", "FP32", (-1, len(NAMES))),), outputs=(TensorSpec("probabilities", "FP32", (-1, 2)),)
    )
    return schema_of(signature, StatisticsSettings.model_validate({"names": {"x": list(NAMES)}, **settings}))


SCHEMA = schema()


def at(name: str) -> int:
    return NAMES.index(name)


def shift(name: str, deviations: float) -> Change:
    """Moves a feature by so many of its standard deviations."""

    def change(rows: Rows) -> None:
        rows[:, at(name)] += deviations * _data()[:, at(name)].std()

    return change


class Traffic:
    """Rows drawn with replacement from the data set: independent, and of one distribution."""

    def __init__(self, seed: int, of: Schema = SCHEMA) -> None:
        self.schema = of
        self._random = np.random.default_rng(seed)

    def rows(self, count: int, *changes: Change) -> Rows:
        rows = _data()[self._random.integers(0, len(_data()), count)]
        for change in changes:
            change(rows)
        return rows

    def summary(self, count: int, *changes: Change) -> Summary:
        summary = Summary.create(self.schema, seed=int(self._random.integers(1, 1 << 62)))
        for start in range(0, count, RUN_ROWS):
            observe(summary, self.rows(min(RUN_ROWS, count - start), *changes))
        return summary


def observe(summary: Summary, rows: Rows) -> None:
    score = 1 / (1 + np.exp((rows[:, 0] - 14) / 3))
    outputs: Mapping[str, Any] = {"probabilities": np.stack([1 - score, score], axis=1).astype(np.float32)}
    summary.observe({"x": rows}, outputs, len(rows))


@cache
def reference(rows: int = 20_000, seed: int = 1) -> PreparedReference:
    summary = Traffic(seed).summary(rows)
    return PreparedReference(summary, f"sha256:{seed:064x}")
