"""What one load on one server gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

MESSAGE_PREFIX_BYTES = 5
"""gRPC's frame of a message: one byte of flags, four of length."""


class LoadFailed(Exception):
    """The load generator gave no figures."""


@dataclass(frozen=True, slots=True)
class Load:
    connections: int
    streams: int

    @property
    def in_flight(self) -> int:
        return self.connections * self.streams


ONE_IN_FLIGHT = Load(connections=1, streams=1)
MANY_IN_FLIGHT = Load(connections=4, streams=16)


@dataclass(frozen=True, slots=True)
class Burst:
    """One load, as its generator saw it.

    `reply_bytes` counts the messages of all replies with their prefixes; `failed` are the requests that the generator
    itself saw fail.
    """

    requests: int
    failed: int
    reply_bytes: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """One burst with what was checked around it; `errors` must be 0 for its figures to count.

    `server_busy` is the share of its core that the server used, `load_busy` what generator and receiver used of theirs,
    `receiver_busy` the receiver's part of it; `others_busy` is what anything else took of the core that lost more.
    `requests_per_cpu_second` is what the server answers in a second of its own CPU time, all its processes together.
    `began_seconds` and `ended_seconds` are on the monotonic clock.
    """

    burst: Burst
    began_seconds: float
    ended_seconds: float
    errors: int
    server_busy: float
    load_busy: float
    receiver_busy: float
    others_busy: float
    requests_per_cpu_second: float

    @property
    def cpu_us_per_request(self) -> float:
        """Microseconds of the server's own CPU time, all its processes together."""
        return 1e6 / self.requests_per_cpu_second


@dataclass(frozen=True, slots=True)
class Exported:
    """What a server recorded in its life, and what of it arrived at the receiver.

    `recorded`: requests; `server_spans`: those of them whose spans arrived; `lost`: the others, all of which a server
    that counts its drops has counted. `in_time_64`: of the requests of the load at 64 in flight, the share whose spans
    were received while it ran, which is more than 1 where those of the warm-up were still to come.
    """

    recorded: int
    server_spans: int
    lost: int
    in_time_64: float
    run_spans: int
    data_points: int
    log_records: int
    exports: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One server in one round; `exported`: None where it exports nothing."""

    many: Measurement
    one: Measurement
    exported: Exported | None = None

    @property
    def errors(self) -> int:
        return self.many.errors + self.one.errors


class Generator(Protocol):
    """Makes the load: closed loop, so a request leaves when an answer has come."""

    @property
    def name(self) -> str: ...

    def __call__(self, port: int, load: Load, seconds: float) -> Burst:
        """Raises LoadFailed when nothing was answered."""
        ...


def percentiles_ms(latencies_us: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[float, float]:
    """The 50th and the 99th percentile of latencies_us: int64[requests]; NaN of none."""
    if not latencies_us.size:
        return float("nan"), float("nan")
    p50_us, p99_us = np.percentile(latencies_us, (50, 99))
    return float(p50_us) / 1000, float(p99_us) / 1000


def unanswered(burst: Burst, load: Load, reply_bytes: int) -> int:
    """How many of the burst's requests cannot have had the checked reply of `reply_bytes` (without its prefix).

    A server that refuses quickly sends fewer bytes than its requests are worth. More bytes are expected only from
    replies still under way at the end, at most one for each request in flight.
    """
    size = MESSAGE_PREFIX_BYTES + reply_bytes
    missing = burst.requests * size - burst.reply_bytes
    surplus = burst.reply_bytes - (burst.requests + load.in_flight) * size
    wrong_bytes = max(missing, surplus, 0)
    return -(-wrong_bytes // size)
