"""Fast or slow progression of diabetes, from a table of strings and numbers: one input per column."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
from export import Version, classifier_version, convert
from rows import SEED, Tensors, patients
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

MANIFEST: dict[str, Any] = {
    "description": "Progression of diabetes over a year, fast or slow, from a patient's table row",
    "versions": {"specific": [1, 2]},
    "labels": {"stable": 1, "candidate": 2},
    "default": "stable",
    "batching": {"max_batch_size": 64, "max_queue_delay_seconds": 0},
    "metadata": {"task": "classification", "dataset": "sklearn.load_diabetes"},
}


def build() -> Iterator[Version]:
    split = patients()
    strings = [name for name, tensor in split.train.items() if tensor.dtype == object]
    numbers = [name for name in split.features if name not in strings]
    # Trees do not care for scale, so theirs is left as it is: one rounding less between float32 and float64. Histogram
    # gradient boosting is no candidate: skl2onnx rounds its thresholds to the nearest float32, past values beside them.
    forest = RandomForestClassifier(n_estimators=101, min_samples_leaf=5, random_state=SEED)
    candidates = [
        ("logistic regression", StandardScaler(), LogisticRegression()),
        ("random forest", "passthrough", forest),
    ]
    for number, (kind, scaler, classifier) in enumerate(candidates, start=1):
        columns = ColumnTransformer(
            # A category never seen in training is answered as "none of those known", not refused.
            [
                ("strings", OneHotEncoder(handle_unknown="ignore", sparse_output=False), strings),
                ("numbers", scaler, numbers),
            ]
        )
        estimator = make_pipeline(columns, classifier)
        estimator.fit(_table(split.train), split.train_truth)
        model = convert(estimator, split.held_out, ["label", "probabilities"])
        rows = _table(split.held_out)
        yield classifier_version(number, kind, model, split, estimator.predict(rows), estimator.predict_proba(rows))


def _table(tensors: Tensors) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(tensor.ravel(), dtype=tensor.dtype) for name, tensor in tensors.items()})
