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

    `server_busy` is the share of its core that the server used, `load_busy` the generator's of its core;
    `others_busy` is what anything else took of the core that lost more.
    `requests_per_cpu_second` is what the server answers in a second of its own CPU time, all its processes together.
    """

    burst: Burst
    errors: int
    server_busy: float
    load_busy: float
    others_busy: float
    requests_per_cpu_second: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One server in one round."""

    many: Measurement
    one: Measurement

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
