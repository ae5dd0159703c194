"""The slow version of `python -m bench.shadow` answers as the fast one does: nothing but time is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from bench import model
from bench.shadow import SHARES, with_layers, write_models


def test_more_layers_change_no_answer(tmp_path: Path) -> None:
    graph = model.build(tmp_path).model_file.read_bytes()
    x = np.random.default_rng(1).normal(100, 50, (16, 30)).astype(np.float32)
    plain, slow = (
        onnxruntime.InferenceSession(each, providers=["CPUExecutionProvider"]).run(None, {"X": x})
        for each in (graph, with_layers(graph, 3))
    )
    for one, other in zip(plain, slow, strict=True):
        assert np.array_equal(one, other)


def test_each_model_has_the_shadow_that_its_row_says(tmp_path: Path) -> None:
    root, request, ratio = write_models(tmp_path, times=2)
    assert ratio >= 2
    assert request
    for name, percent in SHARES.items():
        settings = (root / name / "model.yaml").read_text()
        assert (f"percent: {percent}}}" in settings) is bool(percent)
        assert (root / name / "2" / "model.onnx").exists()
