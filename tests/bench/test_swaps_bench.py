"""Versions of `python -m bench.swaps` differ in weight alone; its table has each kind of slice beside the steady."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from rich.console import Console

from bench import model
from bench.sample import Burst
from bench.swaps import KINDS, MEGABYTES, Slice, render, write_versions


def test_every_version_answers_alike_and_has_a_profile(tmp_path: Path) -> None:
    workload = model.build(tmp_path)
    write_versions(workload)
    folder = workload.repository / model.MODEL_NAME
    x = np.random.default_rng(1).normal(100, 50, (16, 30)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # that nothing uses the ballast is known
    answers = []
    for version, megabytes in MEGABYTES.items():
        file = folder / str(version) / "model.onnx"
        assert file.stat().st_size >= megabytes * 2**20
        assert (folder / "profiles" / f"{version}.profile").exists()
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        answers.append(session.run(None, {"X": x}))
    for other in answers[1:]:
        for one, two in zip(answers[0], other, strict=True):
            assert np.array_equal(one, two)


def slice_of(p99_ms: float, *swap_seconds: float) -> Slice:
    burst = Burst(
        requests=1000,
        failed=0,
        reply_bytes=0,
        requests_per_second=500.0,
        p50_ms=1.0,
        p90_ms=p99_ms,
        p99_ms=p99_ms,
        p999_ms=p99_ms,
        longest_ms=p99_ms,
        statuses={0: 1000},
        distinct_replies=1,
        offered=1000,
    )
    return Slice(burst, errors=0, swap_seconds=list(swap_seconds))


def test_ratios_are_of_slices_of_one_round(capsys: pytest.CaptureFixture[str]) -> None:
    """The second round ran on a machine half as fast: it changes no ratio."""
    rounds = [
        dict(zip(KINDS, (slice_of(4), slice_of(6, 0.02, 0.04), slice_of(5, 0.01)), strict=True)),
        dict(zip(KINDS, (slice_of(8), slice_of(12, 0.06), slice_of(10)), strict=True)),
    ]
    Console(width=160).print(render(rounds, 1.0, "a generator"))
    shown = capsys.readouterr().out
    assert "1.50 (1.50 to 1.50)" in shown
    assert "1.25 (1.25 to 1.25)" in shown
    assert "40 ms" in shown
