"""The drawings and tables of docs/statistics.md, from runtime/profile/."""

from __future__ import annotations

import json

import numpy as np

from generator.markdown import number, table
from generator.sketches import drawings
from runtime.profile import codec, reference, schema
from runtime.profile.of_signature import schema_of
from runtime.profile.summary import Summary
from runtime.repository.statistics_settings import StatisticsSettings
from runtime.sketch.rows import rows_bytes
from runtime.types import ANY, Signature, TensorSpec

ROWS = 1_000


def pane() -> str:
    return drawings(schema)


def summary() -> str:
    return drawings(codec)


def profile() -> str:
    return drawings(reference)


def memory() -> str:
    """Of a model with one input of so many columns and one number as its output."""
    rows = [
        _memory(30, "30 columns"),
        _memory(1_000, "1,000 columns with names"),
        _memory(10_000, "10,000 columns with names"),
        _memory(10_000, "the same, `statistics.max_features: 16384`", max_features=16_384),
        _memory(10_000, "10,000 columns without names: an embedding", named=False),
    ]
    return table(("input", "features", "bytes of a pane", "of them the sample of rows", "a feature", "written"), rows)


def _memory(columns: int, words: str, *, named: bool = True, max_features: int = 1_024) -> tuple[str, ...]:
    names = {"feature_names": json.dumps([f"c{at}" for at in range(columns)])} if named else {}
    signature = Signature(
        (TensorSpec("X", "FP32", (ANY, columns)),), (TensorSpec("y", "FP32", (ANY, 1)),), names
    )  # fmt: skip
    made = schema_of(signature, StatisticsSettings(max_features=max_features))
    seen = Summary.create(made, seed=1)
    x = np.random.default_rng(1).normal(size=(ROWS, columns)).astype(np.float32)
    seen.observe({"X": x}, {"y": x[:, :1]}, ROWS)
    sample = rows_bytes(made.sample.rows, made.sample_columns) if made.sample.rows else 0
    of_one = (made.size_bytes - sample) // len(made.features)
    counts = (len(made.features), made.size_bytes, sample, of_one, len(seen.encode()))
    return (words, *map(number, counts))
