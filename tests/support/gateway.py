"""Starts the real process tree on ephemeral ports, and proves at its end that nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

import psutil
import yaml
from prometheus_client.parser import text_string_to_metric_families

START_SECONDS = 60.0
LINE_SECONDS = 30.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.02


class Gateway:
    """`driftgate serve` as a user starts it. Use as a context; `log` has what it printed."""

    def __init__(
        self,
        models: Path | str,
        state_dir: Path,
        *,
        workers: int = 1,
        config: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        addresses: dict[str, str] | None = None,
        log_format: str = "text",
        output: int | None = None,
        errors: int | None = None,
    ) -> None:
        """`addresses`: "grpc", "http", "admin" → HOST:PORT, where not an ephemeral port of loopback.

        `output`, `errors`: file descriptors for the standard streams, which otherwise go into the log.
        """
        self.models = str(models)
        self.state_dir = Path(state_dir)
        self.workers = workers
        self.config = config or {}
        self.environment = environment or {}
        self.addresses = dict.fromkeys(("grpc", "http", "admin"), "127.0.0.1:0") | (addresses or {})
        self.log_format = log_format
        self.output = output
        self.errors = errors
        self.process: subprocess.Popen[bytes] | None = None
        self.endpoints: dict[str, Any] = {}
        self.log_file = self.state_dir.parent / f"{self.state_dir.name}.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            status = self.stop()
            assert status == 0, f"driftgate ended with {status}:\n{self.log}"

    @property
    def grpc(self) -> str:
        return str(self.endpoints["grpc"])

    @property
    def admin(self) -> str:
        return str(self.endpoints["admin"])

    @property
    def http(self) -> str:
        return f"http://{self.endpoints['http']}"

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    @property
    def supervisor(self) -> psutil.Process:
        assert self.process is not None
        return psutil.Process(self.process.pid)

    def children(self, kind: str = "") -> list[psutil.Process]:
        """Control and worker processes; `kind`: "control" or "worker"."""
        return [child for child in self.supervisor.children(recursive=True) if f"gateway.{kind}" in _command(child)]

    def start(self, *, wait: bool = True) -> None:
        """Starts it; with `wait`, until it is ready."""
        self.state_dir.parent.mkdir(parents=True, exist_ok=True)
        config_file = self.state_dir.parent / f"{self.state_dir.name}.yaml"
        settings = {"repository": {"settle_seconds": 0}, **self.config}
        config_file.write_text(yaml.safe_dump(settings))
        (self.state_dir / "endpoints.json").unlink(missing_ok=True)
        command = [
            sys.executable, "-m", "gateway", "serve", "--models", self.models, "--config", str(config_file),
            "--state-dir", str(self.state_dir), "--workers", str(self.workers),
            "--grpc", self.addresses["grpc"], "--http", self.addresses["http"], "--admin", self.addresses["admin"],
            "--log-format", self.log_format,
        ]  # fmt: skip
        clean = {key: value for key, value in os.environ.items() if not key.startswith("DRIFTGATE_")}
        with self.log_file.open("ab") as log:
            output, errors = (log if fd is None else fd for fd in (self.output, self.errors))
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env={**clean, **self.environment}
            )
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout_seconds: float = START_SECONDS) -> None:
        self.wait_endpoints(timeout_seconds)
        self.wait_for(lambda: self.get("/readyz")[0] == 200, timeout_seconds, "to be ready")

    def wait_endpoints(self, timeout_seconds: float = START_SECONDS) -> None:
        file = self.state_dir / "endpoints.json"
        self.wait_for(file.exists, timeout_seconds, "to publish its endpoints")
        self.endpoints = json.loads(file.read_text())

    def wait_for(self, condition: Any, timeout_seconds: float, what: str) -> None:
        """Polls what another process does, which no event of this one tells."""
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            assert self.process is not None
            status = self.process.poll()
            assert status is None, f"driftgate ended with {status} while it was waited for {what}:\n{self.log}"
            assert time.monotonic() < deadline, f"driftgate took over {timeout_seconds} s {what}:\n{self.log}"
            time.sleep(POLL_SECONDS)

    def logged(self, text: str) -> str:
        """The log, once it has `text`: a line is written a moment after what it tells of."""
        self.wait_for(lambda: text in self.log, LINE_SECONDS, f"to log {text!r}")
        return self.log

    def get(self, path: str) -> tuple[int, str]:
        """HTTP status and body; status 0 where nothing answers."""
        try:
            with urllib.request.urlopen(self.http + path, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of /metrics that have this name and at least these labels; 0 without any."""
        status, text = self.get("/metrics")
        assert status == 200, f"/metrics answered {status}"
        families = text_string_to_metric_families(text)
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """SIGTERM; answers the exit status, and fails if a process of the tree is left."""
        assert self.process is not None
        tree = [self.supervisor, *self.supervisor.children(recursive=True)] if self.process.poll() is None else []
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout_seconds)
        self.process = None
        _, left = psutil.wait_procs(tree[1:], timeout=5)
        assert not left, f"processes were left behind: {left}"
        return status


def _command(process: psutil.Process) -> str:
    """ "" of one that has ended meanwhile."""
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
