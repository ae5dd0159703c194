"""Load from h2load, to check our own generator's figures by another's.

It sends one request over and over, and sees HTTP's status of each reply but neither gRPC's nor the reply's content.
"""

from __future__ import annotations

import math
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.sample import Burst, Load, LoadFailed
from bench.servers import HOST, PATH

MESSAGE_PREFIX_BYTES = 5
"""gRPC's frame of a message: one byte of flags, four of length."""

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


def quantiles_ms(latencies_us: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[float, float, float, float, float]:
    """p50, p90, p99, p99.9 and the longest of latencies_us: int64[requests]; NaN of none."""
    if not latencies_us.size:
        return (math.nan,) * 5
    p50, p90, p99, p999, longest = (float(each) / 1000 for each in np.percentile(latencies_us, (50, 90, 99, 99.9, 100)))
    return p50, p90, p99, p999, longest


def unanswered(burst: Burst, reply_bytes: int) -> int:
    """How many of an h2load's requests cannot have had the checked reply of `reply_bytes` (without its prefix).

    A server that refuses quickly sends fewer bytes than its requests are worth. More bytes are expected only from
    replies still under way at the end.
    """
    size = MESSAGE_PREFIX_BYTES + reply_bytes
    missing = burst.requests * size - burst.reply_bytes
    surplus = burst.reply_bytes - (burst.requests + burst.undecided) * size
    wrong_bytes = max(missing, surplus, 0)
    return -(-wrong_bytes // size)


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
        if load.streaming or load.rate is not None:
            raise LoadFailed("h2load makes unary calls in a closed loop only")
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
        p50_ms, p90_ms, p99_ms, p999_ms, longest_ms = quantiles_ms(parse_log(self._log_file.read_text()))
        return Burst(
            requests=report.requests - report.failed,
            failed=report.failed,
            reply_bytes=report.reply_bytes,
            requests_per_second=report.requests_per_second,
            p50_ms=p50_ms,
            p90_ms=p90_ms,
            p99_ms=p99_ms,
            p999_ms=p999_ms,
            longest_ms=longest_ms,
            statuses={},  # it does not look at trailers
            distinct_replies=0,
            offered=report.requests,
            undecided=load.in_flight,
        )
