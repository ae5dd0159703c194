"""The rows each example model learns from and is judged on: bundled with scikit-learn, split by a fixed seed.

`load_rows(model)` gives a client real rows that the model has never seen, as the tensors its inputs take. It reads
data only: nothing is trained, and neither ONNX nor a model repository is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import train_test_split

SEED = 7
HELD_OUT_SHARE = 0.25

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Split:
    """One data set as model inputs: tensors of equal row counts by input name, and the truth, one value per row."""

    dataset: str
    features: tuple[str, ...]
    train: Tensors
    train_truth: np.ndarray
    held_out: Tensors
    held_out_truth: np.ndarray


def _split(dataset: str, features: list[str], tensors: Tensors, truth: np.ndarray, *, stratify: bool) -> Split:
    train, held_out = train_test_split(
        np.arange(len(truth)), test_size=HELD_OUT_SHARE, random_state=SEED, stratify=truth if stratify else None
    )
    return Split(
        dataset=dataset,
        features=tuple(features),
        train={name: tensor[train] for name, tensor in tensors.items()},
        train_truth=truth[train],
        held_out={name: tensor[held_out] for name, tensor in tensors.items()},
        held_out_truth=truth[held_out],
    )


def breast_cancer() -> Split:
    """X: float32[rows, 30], measures of cell nuclei; truth: int64[rows], 0 malignant, 1 benign."""
    data = load_breast_cancer()
    features = [str(name) for name in data.feature_names]
    tensors = {"X": data.data.astype(np.float32)}
    return _split("sklearn.load_breast_cancer", features, tensors, data.target.astype(np.int64), stratify=True)


def diabetes() -> Split:
    """X: float32[rows, 10] in natural units; truth: float32[rows], disease progression after one year (25 to 346)."""
    data = load_diabetes(scaled=False)
    tensors = {"X": data.data.astype(np.float32)}
    truth = data.target.astype(np.float32)
    return _split("sklearn.load_diabetes", list(data.feature_names), tensors, truth, stratify=False)


# The WHO's bounds of underweight, normal weight, overweight and obesity, in kg/m².
BMI_BOUNDS = [-np.inf, 18.5, 25.0, 30.0, np.inf]
BMI_GROUPS = ["underweight", "normal", "overweight", "obese"]
# Near the median of all 442 patients (140.5): the halves are of like size.
FAST_PROGRESSION = 140.0


def patients() -> Split:
    """The diabetes patients as a table: one tensor [rows, 1] per column, `sex` and `bmi_group` strings, others float32.

    `bmi_group` stands in place of the number it is binned from. `sex` is the data set's own code, "1" or "2": its
    documentation does not say which is which. truth: "fast" or "slow" progression, an object array of str.
    """
    table = load_diabetes(scaled=False, as_frame=True)
    frame = table.frame.drop(columns=["target", "bmi", "sex"])
    tensors = {name: frame[[name]].to_numpy(np.float32) for name in frame.columns}
    tensors["sex"] = _strings(table.frame["sex"].astype(int)).reshape(-1, 1)
    groups = pd.cut(table.frame["bmi"], BMI_BOUNDS, labels=BMI_GROUPS, right=False)
    tensors["bmi_group"] = _strings(groups).reshape(-1, 1)
    truth = np.where(table.target >= FAST_PROGRESSION, "fast", "slow").astype(object)
    return _split("sklearn.load_diabetes", list(tensors), tensors, truth, stratify=True)


def digits() -> Split:
    """images: float32[rows, 1, 8, 8], ink from 0 to 16; truth: int64[rows], the digit."""
    data = load_digits()
    tensors = {"images": data.images.astype(np.float32)[:, np.newaxis]}
    return _split("sklearn.load_digits", list(data.feature_names), tensors, data.target.astype(np.int64), stratify=True)


SPLITS: dict[str, Callable[[], Split]] = {
    "breast_cancer": breast_cancer,
    "patients": patients,
    "diabetes": diabetes,
    "digits": digits,
}


def load_rows(model: str) -> Tensors:
    """The held-out rows of `model` by input name; strings are object arrays of str. KeyError if there is none."""
    if model not in SPLITS:
        raise KeyError(f"no example model {model!r}; there are {', '.join(SPLITS)}")
    return SPLITS[model]().held_out


def _strings(column: pd.Series) -> np.ndarray:
    return np.array([str(value) for value in column], dtype=object)
