"""Subjects of tables: linear, an ensemble of trees, string categories, and linear over many features."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from skl2onnx import to_onnx  # type: ignore[import-untyped]
from skl2onnx.common.data_types import StringTensorType  # type: ignore[import-untyped]
from sklearn.datasets import load_breast_cancer  # type: ignore[import-untyped]
from sklearn.ensemble import RandomForestClassifier  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
from sklearn.preprocessing import OneHotEncoder, StandardScaler  # type: ignore[import-untyped]

from bench.matrix.subject import OPSET, SEED, Subject

TREES = 100
STRING_COLUMNS = 10
LEVELS = ("lowest", "low", "high", "highest")
"""A string column says in which quarter of the training data a number lies."""


def _data() -> tuple[np.ndarray, np.ndarray]:
    """float32[569, 30] and labels int64[569]."""
    features, labels = load_breast_cancer(return_X_y=True)
    return features.astype(np.float32), labels


def _answers(classifier: Any, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {"label": classifier.predict(rows), "probabilities": classifier.predict_proba(rows)}


def _exported(classifier: Any, **how: Any) -> bytes:
    graph = to_onnx(classifier, options={"zipmap": False}, target_opset=OPSET, **how)
    return bytes(graph.SerializeToString())


@cache
def linear() -> Subject:
    rows, labels = _data()
    classifier = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
    return Subject(
        "linear", "linear, 30 features", _exported(classifier, X=rows[:1]), {"X": rows}, _answers(classifier, rows)
    )


@cache
def forest() -> Subject:
    rows, labels = _data()
    classifier = RandomForestClassifier(TREES, min_samples_leaf=5, random_state=SEED).fit(rows, labels)
    return Subject(
        "forest", f"{TREES} trees", _exported(classifier, X=rows[:1]), {"X": rows}, _answers(classifier, rows)
    )


@cache
def strings() -> Subject:
    numbers, labels = _data()
    numbers = numbers[:, :STRING_COLUMNS]
    edges = np.quantile(numbers, (0.25, 0.5, 0.75), axis=0)
    quarters = (numbers[:, :, None] > edges.T[None]).sum(axis=2)
    rows = np.array(LEVELS, object)[quarters]
    classifier = make_pipeline(OneHotEncoder(sparse_output=False), LogisticRegression()).fit(rows, labels)
    graph = _exported(classifier, initial_types=[("X", StringTensorType([None, STRING_COLUMNS]))])
    return Subject("strings", f"{STRING_COLUMNS} string categories", graph, {"X": rows}, _answers(classifier, rows))


@cache
def wide(features: int) -> Subject:
    """Linear over so many features: the real ones over and over, each copy with noise of its own."""
    rows, labels = _data()
    scaled = StandardScaler().fit_transform(rows)
    random = np.random.default_rng(SEED)
    copies = np.tile(scaled, (1, -(-features // scaled.shape[1])))[:, :features]
    rows = (copies + random.normal(0, 0.1, copies.shape)).astype(np.float32)
    classifier = LogisticRegression(max_iter=300).fit(rows, labels)
    graph = _exported(classifier, X=rows[:1])
    return Subject(f"wide{features}", f"linear, {features:,} features", graph, {"X": rows}, _answers(classifier, rows))
