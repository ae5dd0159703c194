"""The limit of inference: ONNX Runtime called in a loop, in a process without a server around it.

Usage: python -m bench.inprocess MODEL.onnx ROWS SECONDS; prints a Limit as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime

from bench.cores import pinned
from bench.sample import LoadFailed

ROWS = (1, 64)
"""A call: as one request in flight would have it, and as all 64 in one batch."""

WARM_UP_SHARE = 1 / 3
OVERRUN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Limit:
    """`rows` a call; `median_us`: of a call, in microseconds."""

    rows: int
    rows_per_second: float
    median_us: float


def loop(model_file: str, rows: int, seconds: float) -> Limit:
    """Of a model with one float32 input, [rows, features], its values drawn with one seed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model_file, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    feeds = {given.name: np.random.default_rng(0).normal(size=(rows, *given.shape[1:])).astype(np.float32)}
    until = time.perf_counter_ns() + round(seconds * WARM_UP_SHARE * 1e9)
    while time.perf_counter_ns() < until:
        session.run(names, feeds)
    took_ns: list[int] = []
    begin = before = time.perf_counter_ns()
    while before - begin < seconds * 1e9:
        session.run(names, feeds)
        now = time.perf_counter_ns()
        took_ns.append(now - before)
        before = now
    return Limit(rows, rows * len(took_ns) * 1e9 / (before - begin), median(took_ns) / 1e3)


def measure(model_file: Path, rows: int, seconds: float, core: int) -> Limit:
    """In a process of its own on `core`, where the servers run. Raises LoadFailed."""
    command = [sys.executable, "-m", "bench.inprocess", str(model_file), str(rows), str(seconds)]
    with pinned(core):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=2 * seconds + OVERRUN_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise LoadFailed(f"ONNX Runtime's loop did not end within {error.timeout:.0f} s") from error
    if done.returncode:
        raise LoadFailed(f"ONNX Runtime's loop ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return Limit(**json.loads(done.stdout))


def main() -> None:
    model_file, rows, seconds = sys.argv[1:]
    print(json.dumps(asdict(loop(model_file, int(rows), float(seconds)))))


if __name__ == "__main__":
    main()
