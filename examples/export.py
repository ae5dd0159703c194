"""From a fitted estimator to a version in a model repository: convert, describe, check, publish."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import sklearn
import yaml
from rows import SEED, Split, Tensors
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.metrics import accuracy_score, r2_score

from gateway.cli.profile_build import Order, build_profile
from gateway.config import load_config

# Old enough for every onnxruntime since 1.14, new enough for every operator used here; IR 8 is the one of opset 18.
OPSETS = {"": 18, "ai.onnx.ml": 3}
IR_VERSION = 8

LEAST_EQUAL_LABELS = 0.995
# float32 in the graph against float64 in scikit-learn.
PROBABILITY_TOLERANCE = 1e-3
VALUE_TOLERANCE = 1e-4

ROWS_AXIS = "rows"
TARGET = "(truth)"


class ExportDiffers(Exception):
    """The exported graph does not answer as the estimator it was exported from."""


@dataclass(frozen=True, slots=True)
class Version:
    """One trained, exported and checked version. `score` is `metric` ("accuracy" or "R2") on the held-out rows."""

    number: int
    kind: str
    onnx_bytes: bytes
    metric: str
    score: float


def convert(estimator: Any, inputs: Tensors, outputs: list[str]) -> onnx.ModelProto:
    """The estimator as a graph with `inputs` (names, types and row shapes are read from them) and `outputs`, by order.

    A classifier has two outputs, label and probabilities: a tensor [rows, classes], never a sequence of maps (ZipMap).
    """
    types = [
        (name, (StringTensorType if tensor.dtype == object else FloatTensorType)([None, *tensor.shape[1:]]))
        for name, tensor in inputs.items()
    ]
    options = {"zipmap": False} if len(outputs) == 2 else None
    # Equal builds have equal digests: without a name the graph gets a random one, and its opsets come in a set's order.
    graph_name = type(estimator).__name__
    model = convert_sklearn(estimator, name=graph_name, initial_types=types, target_opset=OPSETS, options=options)
    opsets = sorted(model.opset_import, key=lambda opset: opset.domain)
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    renamed = dict(zip((output.name for output in model.graph.output), outputs, strict=True))
    for node in model.graph.node:
        node.output[:] = [renamed.get(name, name) for name in node.output]
        node.input[:] = [renamed.get(name, name) for name in node.input]
    for output in model.graph.output:
        output.name = renamed[output.name]
    return model


def classifier_version(
    number: int, kind: str, model: onnx.ModelProto, split: Split, labels: np.ndarray, probabilities: np.ndarray
) -> Version:
    """A version whose outputs `label` and `probabilities` are scikit-learn's answers to the held-out rows.

    The columns of the probabilities are the classes in sorted order.
    """
    score = float(accuracy_score(split.held_out_truth, labels))
    facts = {"classes": json.dumps(np.unique(split.train_truth).tolist())}
    onnx_bytes = _finish(model, kind, "accuracy", score, split, facts)

    label, given = _answers(onnx_bytes, split.held_out, ["label", "probabilities"])
    equal = float(np.mean(label == labels))
    if equal < LEAST_EQUAL_LABELS:
        raise ExportDiffers(f"{kind}: {equal:.2%} of labels equal scikit-learn's, expected {LEAST_EQUAL_LABELS:.1%}")
    _compare(kind, "probabilities", given, probabilities, atol=PROBABILITY_TOLERANCE, rtol=0.0)
    return Version(number, kind, onnx_bytes, "accuracy", score)


def regressor_version(number: int, kind: str, model: onnx.ModelProto, split: Split, values: np.ndarray) -> Version:
    """A version whose output `value`, float32[rows, 1], holds scikit-learn's answers to the held-out rows, `values`."""
    score = float(r2_score(split.held_out_truth, values))
    onnx_bytes = _finish(model, kind, "R2", score, split, {})
    (value,) = _answers(onnx_bytes, split.held_out, ["value"])
    _compare(kind, "value", value, values.reshape(-1, 1), atol=VALUE_TOLERANCE, rtol=VALUE_TOLERANCE)
    return Version(number, kind, onnx_bytes, "R2", score)


def publish(root: Path, model: str, manifest: Mapping[str, Any], versions: list[Version]) -> None:
    """Write the manifest and the versions so that a server watching `root` never sees half of one.

    A new version is renamed into place as a whole folder; in one that is there, the file is replaced. What is equal
    already is left alone, so nothing reloads.
    """
    folder = root / model
    staging = folder / ".building"  # beside its destination: a rename stays on one file system; no number, no version
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        _place(staging / "model.yaml", folder / "model.yaml", yaml.safe_dump(dict(manifest), sort_keys=False).encode())
        for version in versions:
            name = str(version.number)
            if (folder / name).is_dir():
                _place(staging / "model.onnx", folder / name / "model.onnx", version.onnx_bytes)
            else:
                (staging / name).mkdir()
                (staging / name / "model.onnx").write_bytes(version.onnx_bytes)
                (staging / name).rename(folder / name)
    finally:
        shutil.rmtree(staging)


def publish_profiles(root: Path, model: str, versions: list[Version], split: Split) -> None:
    """Beside each version the profile of the rows it was trained on, which its live rows are compared with.

    As `driftgate profile build` makes it; one that says the same already is left alone.
    """
    with tempfile.TemporaryDirectory(prefix="driftgate-examples-") as folder:
        data = Path(folder) / f"{model}-train.npz"
        columns = {**split.train, TARGET: split.train_truth}
        np.savez(data, **{name: col.astype(str) if col.dtype == object else col for name, col in columns.items()})
        # What has just been written needs no time to settle.
        settings = {"models": (str(root),), "state_dir": folder, "repository": {"settle_seconds": 0}}
        config = load_config(None, settings, {})
        for version in versions:
            parameters = {"estimator": version.kind, "split_seed": str(SEED)}
            order = Order(
                model=model, version=version.number, paths=[data], target=TARGET, parameters=parameters, force=True,
                quiet=True,
            )  # fmt: skip
            build_profile(config, order)


def _place(staged: Path, target: Path, content: bytes) -> None:
    if target.exists() and target.read_bytes() == content:
        return
    staged.write_bytes(content)
    staged.replace(target)


def _finish(
    model: onnx.ModelProto, kind: str, metric: str, score: float, split: Split, facts: Mapping[str, str]
) -> bytes:
    """Name the axis of rows, attach where the version comes from as metadata_props, and validate the graph."""
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = ROWS_AXIS
    model.ir_version = IR_VERSION
    onnx.helper.set_model_props(
        model,
        {
            "estimator": kind,
            "dataset": split.dataset,
            "train_rows": str(len(split.train_truth)),
            "held_out_rows": str(len(split.held_out_truth)),
            "split_seed": str(SEED),
            "metric": metric,
            "held_out_score": f"{score:.4f}",
            "feature_names": json.dumps(split.features),
            "sklearn_version": sklearn.__version__,
            **facts,
        },
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _answers(onnx_bytes: bytes, inputs: Tensors, outputs: list[str]) -> list[np.ndarray]:
    """What ONNX Runtime answers to all rows at once, after making sure that a row alone is answered the same."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
    together = session.run(outputs, inputs)
    alone = session.run(outputs, {name: tensor[:1] for name, tensor in inputs.items()})
    for name, batch, row in zip(outputs, together, alone, strict=True):
        same = np.allclose(row, batch[:1], atol=1e-5) if batch.dtype.kind == "f" else np.array_equal(row, batch[:1])
        if not same:
            raise ExportDiffers(f"{name} of a row depends on its batch: {row} alone, {batch[:1]} among others")
    return together


def _compare(kind: str, output: str, given: np.ndarray, expected: np.ndarray, *, atol: float, rtol: float) -> None:
    if given.shape != expected.shape:
        raise ExportDiffers(f"{kind}: {output} has shape {given.shape}, scikit-learn's {expected.shape}")
    if not np.allclose(given, expected, atol=atol, rtol=rtol):
        worst = float(np.abs(given - expected).max())
        raise ExportDiffers(f"{kind}: {output} differ from scikit-learn's by up to {worst:.2g}")
