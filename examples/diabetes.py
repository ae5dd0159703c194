"""How far diabetes has progressed after a year: two regressors with one signature."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from export import Version, convert, regressor_version
from rows import SEED, diabetes
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MANIFEST: dict[str, Any] = {
    "description": "Disease progression after one year, from ten baseline measures",
    "versions": {"latest": 1},
    "batching": {"max_batch_size": 64, "max_queue_delay_seconds": 0},
    "metadata": {"task": "regression", "dataset": "sklearn.load_diabetes"},
}


def build() -> Iterator[Version]:
    split = diabetes()
    estimators = [
        make_pipeline(StandardScaler(), Ridge(alpha=1.0)),
        GradientBoostingRegressor(n_estimators=150, learning_rate=0.05, max_depth=2, subsample=0.7, random_state=SEED),
    ]
    for number, (kind, estimator) in enumerate(zip(["ridge", "gradient boosting"], estimators, strict=True), start=1):
        estimator.fit(split.train["X"], split.train_truth)
        model = convert(estimator, split.held_out, ["value"])
        yield regressor_version(number, kind, model, split, estimator.predict(split.held_out["X"]))
