"""What one load on one server gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class LoadFailed(Exception):
    """The load generator gave no figures."""


@dataclass(frozen=True, slots=True)
class Load:
    """`streams`: requests in flight a connection, in a closed loop; at most so many in an open one.

    `streaming`: one ModelStreamInfer stream a connection, with `streams` messages outstanding on it. `rate`: requests a
    second in all, at random times (Poisson), whether or not what was sent before is answered; latency counts from when
    a request was due. None: closed loop, a request leaves when an answer has come.
    """

    connections: int
    streams: int
    streaming: bool = False
    rate: float | None = None

    @property
    def in_flight(self) -> int:
        return self.connections * self.streams


ONE_IN_FLIGHT = Load(connections=1, streams=1)
MANY_IN_FLIGHT = Load(connections=4, streams=16)


@dataclass(frozen=True, slots=True)
class Burst:
    """One load, as its generator saw it.

    `requests`: those that were answered with status 0 and, where the generator looks at replies, by a right one;
    `failed`: all others, also those not answered within a grace after the end. `requests_per_second` counts right
    answers that came before the end. `reply_bytes`: of all replies, with their prefixes. `statuses`: requests by
    grpc-status, -1: their stream ended without one. `offered`: requests that were sent or, in an open loop, were due.
    `undecided`: at most so many were under way at the end, of which nothing more is known. `late_p99_ms`: how long
    after it was due an open loop's request was noticed by the generator, which is the generator's own share of a
    latency. `slow`: of answers that took longer than the generator
    was told to look out for: when, in seconds from the begin and to a tenth, and how many. `notes`: what went wrong,
    for people.
    """

    requests: int
    failed: int
    reply_bytes: int
    requests_per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    longest_ms: float
    statuses: dict[int, int]
    distinct_replies: int
    offered: int
    undecided: int = 0
    late_p99_ms: float = 0.0
    slow: tuple[tuple[float, int], ...] = ()
    notes: tuple[str, ...] = ()


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
    """Makes a load, and says what came of it."""

    @property
    def name(self) -> str: ...

    def __call__(self, port: int, load: Load, seconds: float) -> Burst:
        """Raises LoadFailed when nothing was answered."""
        ...
