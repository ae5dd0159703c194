"""What a gateway could have seen: tables of live and reference rows, and the answers that are true of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from support.drift_answers import Answers, answers

SHIFTED = ("worst texture", "mean smoothness")
PROBABILITY, CLASS = "probability of benign", "predicted class"


def breast_cancer(rows: int = 3_000, looks: int = 60, change_at: int = 35) -> Answers:
    """Real data, drawn anew with a percent of noise; two features move from look `change_at` on, over ten looks."""
    data = load_breast_cancer()
    names = [str(name) for name in data.feature_names]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(data.data, data.target)
    deviation = data.data.std(0)
    random = np.random.default_rng(7)

    def draw(count: int, moved: float) -> dict[str, Any]:
        rows = data.data[random.integers(0, len(data.data), count)] * random.normal(1, 0.01, (count, len(names)))
        later = np.arange(count) >= count * (1 - moved)  # a window's newest rows are those that have changed
        for name, by in zip(SHIFTED, (0.9, 0.7), strict=True):
            rows[later, names.index(name)] += by * deviation[names.index(name)]
        shares = model.predict_proba(rows)[:, 1]
        table: dict[str, Any] = dict(zip(names, rows.T, strict=True))
        table[PROBABILITY] = shares
        table[CLASS] = np.where(shares > 0.5, "benign", "malignant").astype(object)
        return table

    windows = [draw(rows, min(max((look - change_at) / 10, 0), 1)) for look in range(looks)]
    return answers(
        draw(20_000, 0), windows, outputs=(PROBABILITY, CLASS), prediction=PROBABILITY, with_rows=True,
    )  # fmt: skip


def orders(rows: int = 2_500, looks: int = 20) -> Answers:
    """Every kind of column and of change: a new category, a broken unit, missing values, heavy tails, few values."""
    random = np.random.default_rng(11)

    def draw(count: int, changed: bool) -> dict[str, Any]:
        kinds = ["card", "transfer", "invoice", "cash"]
        paid = random.choice(kinds, count, p=[0.55, 0.25, 0.15, 0.05]).astype(object)
        country = random.choice(["de", "fr", "pl", "es", "it", "nl"], count, p=[0.4, 0.2, 0.15, 0.1, 0.1, 0.05])
        if changed:
            paid[random.random(count) < 0.08] = "crypto"
            paid[random.random(count) < 0.05] = None
        weight = random.lognormal(0, 0.6, count)
        columns = {
            "payment": paid,
            "country": country.astype(object),
            "weight in kg": weight * (1000 if changed else 1),
            "amount": random.lognormal(3, 1.8, count),
            "temperature": random.normal(-2, 6, count),
            "balance": random.standard_cauchy(count) * 50,
            "items": random.poisson(2, count).astype(float) + 1,
            "is weekend": (random.random(count) < (0.29 if not changed else 0.3)).astype(float),
            "returned before": (random.random(count) < 0.03).astype(float),
            "constant": np.full(count, 7.0),
            "distance": np.where(
                random.random(count) < (0.12 if changed else 0.01), np.nan, random.gamma(2, 30, count)
            ),
            "score": random.beta(2, 5, count),
        }
        columns["only in training" if count > rows else "only live"] = random.normal(size=count)
        return columns

    windows = [draw(rows, look > looks // 2) for look in range(looks)]
    return answers(draw(30_000, False), windows, model="orders", outputs=("score",), prediction="score")


def many(features: int = 1_000, rows: int = 400) -> Answers:
    """As many features as get no plot each; every fortieth has moved."""
    random = np.random.default_rng(3)

    def draw(count: int, changed: bool) -> dict[str, Any]:
        moved = np.where(np.arange(features) % 40 == 0, 1.5, 0) * changed
        block = random.normal(moved, 1, (count, features))
        return {f"pixel {at // 40:02} x {at % 40:02}": column for at, column in enumerate(block.T)}

    return answers(draw(2_000, False), [draw(rows, True), draw(rows, True)], model="scanner")


def few_rows() -> Answers:
    """A window of which nothing can be said."""
    return breast_cancer(rows=40, looks=12, change_at=99)
