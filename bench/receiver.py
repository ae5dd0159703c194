"""The process that takes what a server exports, on the load's core (bench/servers/otlp_receiver.py)."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.cores import process_seconds
from bench.sample import LoadFailed

START_SECONDS = 30.0
REPORT_SECONDS = 60.0
"""For parsing all that was received: about 4 µs a span."""


@dataclass(frozen=True, slots=True)
class Received:
    """What arrived. `server_spans`: those of requests, each counted once; `repeated_spans`: sent more than once.

    `other_spans`: those of runs. `arrivals`: when an export came, in seconds of the monotonic clock, and how many
    spans of requests it brought.
    """

    server_spans: int
    repeated_spans: int
    other_spans: int
    data_points: int
    log_records: int
    exports: int
    bytes: int
    arrivals: tuple[tuple[float, int], ...]

    def between(self, began_seconds: float, ended_seconds: float) -> int:
        """Spans of requests that came in that time."""
        return sum(spans for seconds, spans in self.arrivals if began_seconds <= seconds < ended_seconds)


class Receiver:
    """Runs where the thread that starts it runs."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.servers.otlp_receiver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the bench alone; the receiver ends with its standard input
        )
        try:
            ports = self._first_line()
            self.port, self.http_port = int(ports["port"]), int(ports["http_port"])
        except BaseException:
            self.kill()
            raise

    def cpu_seconds(self) -> float:
        return process_seconds(self.process.pid)

    def report(self) -> Received:
        """Ends it. Raises LoadFailed."""
        try:
            text, _ = self.process.communicate(timeout=REPORT_SECONDS)
            report = json.loads(text)
        except (subprocess.TimeoutExpired, ValueError) as error:
            raise LoadFailed(f"the receiver gave no report: {error}") from error
        report["arrivals"] = tuple((arrived_ns / 1e9, spans) for arrived_ns, spans in report["arrivals"])
        return Received(**report)

    def kill(self) -> None:
        """Nothing where it has ended."""
        self.process.kill()
        self.process.communicate()

    def _first_line(self) -> dict[str, Any]:
        out = self.process.stdout
        assert out is not None
        if not select.select([out], [], [], START_SECONDS)[0] or not (line := out.readline()):
            raise LoadFailed(f"the receiver did not start within {START_SECONDS:.0f} s")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that listens; it is gone afterwards. Raises LoadFailed."""
    receiver = Receiver()
    try:
        yield receiver
    finally:
        if receiver.process.poll() is None:
            receiver.kill()
