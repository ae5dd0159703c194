"""The limit of inference: ONNX Runtime called in a loop on the same rows, in a process without a server around it.

Usage: python -m bench.matrix.limit MODEL.onnx SECONDS WARM_UP_SECONDS TENSORS.npz...; prints what it took as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.cores import own_seconds, pinned
from bench.matrix.workload import Workload, feeds_of, save, session_of
from bench.sample import Burst, LoadFailed, Measurement

OVERRUN_SECONDS = 60.0


def loop(model: str, files: list[str], seconds: float, warm_up_seconds: float) -> dict[str, object]:
    """Runs in turn over the files' tensors: how long each took, in ns, and the CPU time of all, in s."""
    session = session_of(model)
    names = [output.name for output in session.get_outputs()]
    feeds = []
    for file in files:
        with np.load(file) as tensors:
            feeds.append({name: _own(tensors[name]) for name in tensors.files})
    until = time.perf_counter() + warm_up_seconds
    while time.perf_counter() < until:
        for each in feeds:
            session.run(names, each)
    took_ns: list[int] = []
    cpu_seconds, wall_seconds = own_seconds(), time.monotonic()
    begin = before = time.perf_counter_ns()
    while before - begin < seconds * 1e9:
        session.run(names, feeds[len(took_ns) % len(feeds)])
        now = time.perf_counter_ns()
        took_ns.append(now - before)
        before = now
    return {
        "began_seconds": wall_seconds,
        "seconds": (before - begin) / 1e9,
        "cpu_seconds": own_seconds() - cpu_seconds,
        "runs": len(took_ns),
        "quantiles_ms": [float(value) / 1e6 for value in np.percentile(took_ns, (50, 90, 99, 99.9, 100))],
    }


def _own(tensor: np.ndarray) -> np.ndarray:
    return tensor.astype(object) if tensor.dtype.kind == "U" else tensor


def measure(model: Path, workload: Workload, seconds: float, warm_up_seconds: float, core: int) -> Measurement:
    """In a process of its own on `core`. A run stands for a request. Raises LoadFailed."""
    with tempfile.TemporaryDirectory(prefix="bench-limit-") as folder, pinned(core):
        files = [Path(folder) / f"{index}.npz" for index in range(len(workload.requests))]
        for file, request in zip(files, workload.requests, strict=True):
            save(file, feeds_of(request))
        command = [sys.executable, "-m", "bench.matrix.limit", str(model), str(seconds), str(warm_up_seconds)]
        try:
            done = subprocess.run(
                [*command, *map(str, files)],
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds + warm_up_seconds + OVERRUN_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise LoadFailed(f"ONNX Runtime's loop did not end within {error.timeout:.0f} s") from error
    if done.returncode:
        raise LoadFailed(f"ONNX Runtime's loop ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return _measurement(json.loads(done.stdout))


def _measurement(took: dict[str, float | list[float]]) -> Measurement:
    """In the form of a server's, so that they stand in one table."""
    figures = {name: float(value) for name, value in took.items() if not isinstance(value, list)}
    quantiles = took["quantiles_ms"]
    assert isinstance(quantiles, list)
    runs, seconds, cpu_seconds = int(figures["runs"]), figures["seconds"], figures["cpu_seconds"]
    p50_ms, p90_ms, p99_ms, p999_ms, longest_ms = quantiles
    burst = Burst(
        requests=runs,
        failed=0,
        reply_bytes=0,
        requests_per_second=runs / seconds,
        p50_ms=p50_ms,
        p90_ms=p90_ms,
        p99_ms=p99_ms,
        p999_ms=p999_ms,
        longest_ms=longest_ms,
        statuses={0: runs},
        distinct_replies=0,
        offered=runs,
    )
    return Measurement(
        burst=burst,
        began_seconds=figures["began_seconds"],
        ended_seconds=figures["began_seconds"] + seconds,
        errors=0,
        server_busy=cpu_seconds / seconds,
        load_busy=0.0,
        receiver_busy=0.0,
        others_busy=max(0.0, 1 - cpu_seconds / seconds),
        requests_per_cpu_second=runs / max(cpu_seconds, 0.01),
    )


def main() -> None:
    model, seconds, warm_up_seconds, *files = sys.argv[1:]
    print(json.dumps(loop(model, files, float(seconds), float(warm_up_seconds))))


if __name__ == "__main__":
    main()
