"""Where install.sh puts the real backends, and how the process of one is started and ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Self

import psutil
import pytest

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
TOOLS = Path(os.environ.get("DRIFTGATE_TEST_TOOLS") or CACHE / "driftgate-test-tools")

MOCK_OTLP = TOOLS / "npm/node_modules/@elastic/mockotlpserver"
MLFLOW = TOOLS / "mlflow/bin/mlflow"
COLLECTOR = TOOLS / "bin/otelcol"
JAEGER = TOOLS / "bin/jaeger"
PROMETHEUS = TOOLS / "bin/prometheus"
PROMTOOL = TOOLS / "bin/promtool"

START_SECONDS = 90.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02


def needs(tool: Path, arguments: str = "") -> pytest.MarkDecorator:
    """Skips where `tool` is not; the reason says how it gets there."""
    how = f"tests/receivers/install.sh {arguments}".strip()
    return pytest.mark.skipif(not tool.exists(), reason=f"no {tool.name}: {how}")


class Backend:
    """A backend's process, in a process group that ends with it. Use as a context; `log` has what it printed."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str] | None = None) -> None:
        """`folder`: its working folder, for what it stores."""
        self._command = command
        self._folder = folder
        self._environment = {**os.environ, **(environment or {})}
        self._log_file = folder / "output.log"

    def __enter__(self) -> Self:
        with self._log_file.open("wb") as output:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            self._started()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _started(self) -> None:
        """Waits until it takes requests, and notes where."""

    @property
    def log(self) -> str:
        return self._log_file.read_text(errors="replace")

    def wait_for(self, pattern: str) -> str:
        """The first group of what it prints."""
        deadline = time.monotonic() + START_SECONDS
        while not (match := re.search(pattern, self.log)):
            assert self._process.poll() is None, f"{self._command[0]} has ended:\n{self.log}"
            assert time.monotonic() < deadline, f"no {pattern!r} within {START_SECONDS} s:\n{self.log}"
            time.sleep(POLL_SECONDS)
        return match[1]

    def stop(self) -> None:
        """SIGTERM to all of its processes, and SIGKILL to those that stay."""
        group = [process for process in psutil.process_iter() if _group(process) == self._process.pid]
        for asked in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, asked)
            except ProcessLookupError:
                break
            if self._ended(group):
                break
        self._process.wait()

    def _ended(self, group: list[psutil.Process]) -> bool:
        others = [process for process in group if process.pid != self._process.pid]
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return not psutil.wait_procs(others, STOP_SECONDS)[1]


def _group(process: psutil.Process) -> int:
    """-1 of one that has ended meanwhile."""
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return -1
