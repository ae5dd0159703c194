"""What the suites of profiles share: the zoo's models loaded, and small signatures."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from zoo import ZOO, ZooModel, built

from runtime.onnx.session import Session
from runtime.profile.of_signature import schema_of
from runtime.profile.schema import Schema
from runtime.profile.summary import Summary
from runtime.repository.manifest import SessionSettings, parse_manifest
from runtime.repository.statistics_settings import StatisticsSettings
from runtime.types import ANY, Signature, TensorSpec

Tensors = dict[str, Any]
NAMES = [model.name for model in ZOO]
ROWS = 7


@cache
def session_of(name: str) -> Session:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(built(name))
        return Session(path, SessionSettings())


def run_of(model: ZooModel, seed: int = 0, rows: int = ROWS) -> tuple[Tensors, Tensors]:
    """(inputs, outputs), as a worker has them: BF16 as its bits."""
    feeds = {
        name: array.view(np.uint16) if array.dtype.kind not in "biufO" else array
        for name, array in model.feeds(np.random.default_rng(seed), rows).items()
    }
    session = session_of(model.name)
    outputs = dict(zip((spec.name for spec in session.signature.outputs), session.run(feeds), strict=True))
    return feeds, outputs


def settings(text: str = "") -> StatisticsSettings:
    """Of the `statistics` section of a model.yaml."""
    indented = "\n".join(f"  {line}" for line in text.splitlines())
    return parse_manifest(f"statistics:\n{indented}\n" if text else "", "model.yaml").statistics


def table(*inputs: tuple[str, str, int], outputs: tuple[tuple[str, str, int], ...] = (), **metadata: str) -> Signature:
    """Tensors [N, width], by (name, datatype, width); width 0: any."""
    return Signature(tuple(map(_spec, inputs)), tuple(map(_spec, outputs)), metadata)


def _spec(of: tuple[str, str, int]) -> TensorSpec:
    name, datatype, width = of
    return TensorSpec(name, datatype, (ANY, width or ANY), ("N", ""))


def schema(signature: Signature, text: str = "") -> Schema:
    return schema_of(signature, settings(text))


def summary_of(name: str, seed: int = 0, runs: int = 1) -> Summary:
    model = next(model for model in ZOO if model.name == name)
    summary = Summary.create(schema(session_of(name).signature), seed=seed + 1)
    for run in range(runs):
        summary.observe(*run_of(model, 1000 * seed + run), ROWS)
    return summary
