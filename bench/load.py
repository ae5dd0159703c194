"""Load from h2load: HTTP/2 in C, so the load core has time to spare at every rate a Python server reaches."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.sample import Burst, Load, LoadFailed, percentiles_ms
from bench.servers import HOST, PATH

OVERRUN_SECONDS = 20.0
"""Past its duration h2load only closes its connections; what takes longer hangs."""

_FINISHED = re.compile(r"^finished in [^,]+, ([\d.]+) req/s", re.MULTILINE)
_REQUESTS = re.compile(
    r"^requests: (?P<total>\d+) total, \d+ started, \d+ done, (?P<succeeded>\d+) succeeded, "
    r"\d+ failed, \d+ errored, (?P<timeout>\d+) timeout",
    re.MULTILINE,
)
_STATUS = re.compile(r"^status codes: (\d+) 2xx", re.MULTILINE)
_TRAFFIC = re.compile(r"^traffic: .*\((\d+)\) data$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of h2load's report that mean something in a run of fixed duration without its own warm-up."""

    requests: int
    failed: int
    reply_bytes: int
    requests_per_second: float


def parse_report(text: str) -> Report:
    """Raises LoadFailed when a line of the report is missing or no request was completed."""
    finished, requests, status, traffic = (
        pattern.search(text) for pattern in (_FINISHED, _REQUESTS, _STATUS, _TRAFFIC)
    )
    if finished is None or requests is None or status is None or traffic is None:
        raise LoadFailed(f"h2load's report has not the lines of version 1.x:\n{text[-2000:]}")
    total = int(requests["total"])
    if not total:
        raise LoadFailed("h2load completed no request")
    good = min(int(requests["succeeded"]), int(status[1]))
    return Report(
        requests=total,
        failed=total - good + int(requests["timeout"]),
        reply_bytes=int(traffic[1]),
        requests_per_second=float(finished[1]),
    )


def parse_log(text: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Latencies in µs, int64[requests], of the lines `start_us TAB status TAB latency_us [TAB ...]` with status 2xx."""
    rows = (line.split("\t") for line in text.splitlines())
    return np.array([int(row[2]) for row in rows if row[1].startswith("2")], np.int64)


class H2Load:
    """Posts one gRPC message over and over; `request` is the message without its prefix."""

    name = "h2load"

    def __init__(self, request: bytes, folder: Path) -> None:
        self._body_file = folder / "h2load.body"
        self._log_file = folder / "h2load.log"
        self._body_file.write_bytes(struct.pack(">BI", 0, len(request)) + request)

    @staticmethod
    def installed() -> bool:
        return shutil.which("h2load") is not None

    def __call__(self, port: int, load: Load, seconds: float) -> Burst:
        # No --warm-up-time: its requests are left out of the counts but not out of the bytes, which must match.
        command = [
            "h2load",
            f"--duration={round(seconds * 1000)}ms",
            f"--clients={load.connections}",
            f"--max-concurrent-streams={load.streams}",
            f"--data={self._body_file}",
            "--header=content-type: application/grpc",
            "--header=te: trailers",
            f"--log-file={self._log_file}",
            f"http://{HOST}:{port}{PATH}",
        ]
        self._log_file.unlink(missing_ok=True)  # h2load appends
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=seconds + OVERRUN_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise LoadFailed(f"h2load did not end within {OVERRUN_SECONDS:.0f} s of its duration") from error
        if done.returncode:
            raise LoadFailed(f"h2load ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        report = parse_report(done.stdout)
        p50_ms, p99_ms = percentiles_ms(parse_log(self._log_file.read_text()))
        return Burst(
            requests=report.requests,
            failed=report.failed,
            reply_bytes=report.reply_bytes,
            requests_per_second=report.requests_per_second,
            p50_ms=p50_ms,
            p99_ms=p99_ms,
        )
