"""Benign or malignant, from 30 measures of cell nuclei: three classifiers with one signature, to swap and compare."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from export import Version, classifier_version, convert
from rows import SEED, breast_cancer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MANIFEST: dict[str, Any] = {
    "description": "Breast cancer, Wisconsin diagnostic data: 0 malignant, 1 benign",
    "versions": "all",
    "labels": {"stable": 1},
    "default": "stable",
    "batching": {"max_batch_size": 64, "max_queue_delay_seconds": 0},
    "metadata": {"task": "classification", "dataset": "sklearn.load_breast_cancer"},
}


def build() -> Iterator[Version]:
    split = breast_cancer()
    estimators = [
        make_pipeline(StandardScaler(), LogisticRegression()),
        GradientBoostingClassifier(n_estimators=80, random_state=SEED),
        # Odd: votes of an even forest can tie, and float32 rounds a tie to either side.
        RandomForestClassifier(n_estimators=61, random_state=SEED),
    ]
    kinds = ["logistic regression", "gradient boosting", "random forest"]
    for number, (kind, estimator) in enumerate(zip(kinds, estimators, strict=True), start=1):
        estimator.fit(split.train["X"], split.train_truth)
        model = convert(estimator, split.held_out, ["label", "probabilities"])
        X = split.held_out["X"]
        yield classifier_version(number, kind, model, split, estimator.predict(X), estimator.predict_proba(X))
