"""Rates, errors and latencies of each version, from one or two answers of GetStatistics. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from gateway.telemetry.quantiles import quantile
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.shm.series import OVERFLOW

OK = "OK"
SERIES = ("model", "version", "variant", "code", "reason")


@dataclass(frozen=True, slots=True)
class Traffic:
    """One version's requests: totals, and how they came within the interval.

    Quantiles are of answered requests, within 2.17 %; None where there were none. `model` "": never reached a version.
    `is_overflow`: of all versions that found no room for counts of their own.
    """

    model: str
    version: int
    is_overflow: bool
    requests: int
    errors: int
    requests_per_second: float
    errors_per_second: float
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None
    rows_per_run: float | None


@dataclass(frozen=True, slots=True)
class RefusedTraffic:
    """Requests of one version that got the same error; with `is_overflow`, of any versions that got any."""

    model: str
    version: int
    is_overflow: bool
    code: str
    reason: str
    requests: int
    requests_per_second: float


@dataclass(frozen=True, slots=True)
class TrafficReport:
    """`interval_seconds`: between two answers, or since the gateway's start if `is_since_start`."""

    interval_seconds: float
    is_since_start: bool
    requests_in_flight: int
    versions: tuple[Traffic, ...]
    refusals: tuple[RefusedTraffic, ...]

    @property
    def requests_per_second(self) -> float:
        return sum(version.requests_per_second for version in self.versions)

    @property
    def errors_per_second(self) -> float:
        return sum(version.errors_per_second for version in self.versions)


def traffic(now: pb.GetStatisticsResponse, before: pb.GetStatisticsResponse | None = None) -> TrafficReport:
    """What came between the two answers; all since the start without `before`, or if the gateway has started anew."""
    if before is not None and (before.started_at != now.started_at or _seconds(before, now) <= 0):
        before = None
    earlier = {_key(series): series for series in before.series} if before is not None else {}
    interval = _seconds(before, now)
    sums: dict[tuple[str, int, bool], _Sums] = {}
    refused: dict[tuple[str, int, bool, str, str], list[int]] = {}
    for series in now.series:
        then = earlier.get(_key(series), pb.SeriesStatistics())
        version = (series.model, series.version, not series.model and series.variant == OVERFLOW.variant)
        sums.setdefault(version, _Sums()).add(series, then)
        if series.code != OK:
            counts = refused.setdefault((*version, series.code, series.reason), [0, 0])
            counts[0] += series.requests
            counts[1] += series.requests - then.requests
    return TrafficReport(
        interval,
        before is None,
        now.requests_in_flight,
        tuple(_traffic(*key, sums[key], interval) for key in sorted(sums, key=_models_first)),
        tuple(
            RefusedTraffic(*key, total, recent / interval)
            for key, (total, recent) in sorted(refused.items(), key=lambda item: _models_first(item[0]))
        ),
    )


@dataclass(slots=True)
class _Sums:
    """Over a version's series: totals, and what the interval adds to them."""

    requests: int = 0
    errors: int = 0
    new_requests: int = 0
    new_errors: int = 0
    new_runs: int = 0
    new_run_rows: float = 0.0
    scale: int = 0
    zero: int = 0
    buckets: Counter[int] = field(default_factory=Counter)

    def add(self, series: pb.SeriesStatistics, then: pb.SeriesStatistics) -> None:
        self.requests += series.requests
        self.new_requests += series.requests - then.requests
        self.new_runs += series.runs - then.runs
        self.new_run_rows += series.run_rows.sum - then.run_rows.sum
        if series.code != OK:
            self.errors += series.requests
            self.new_errors += series.requests - then.requests
            return
        self.scale = series.duration.scale
        self.zero += series.duration.zero_count - then.duration.zero_count
        self.buckets.update(_buckets(series.duration))
        self.buckets.subtract(_buckets(then.duration))

    def quantile(self, q: float) -> float | None:
        low, high = min(self.buckets, default=0), max(self.buckets, default=-1)
        counts = np.array([self.buckets[bucket] for bucket in range(low, high + 1)], np.int64)
        return quantile(counts, self.zero, self.scale, low, q)


def _traffic(model: str, version: int, is_overflow: bool, sums: _Sums, interval_seconds: float) -> Traffic:
    return Traffic(
        model,
        version,
        is_overflow,
        sums.requests,
        sums.errors,
        sums.new_requests / interval_seconds,
        sums.new_errors / interval_seconds,
        sums.quantile(0.5),
        sums.quantile(0.95),
        sums.quantile(0.99),
        sums.new_run_rows / sums.new_runs if sums.new_runs > 0 else None,
    )


def _buckets(histogram: pb.ExponentialHistogram) -> dict[int, int]:
    return dict(enumerate(histogram.counts, histogram.offset))


def _key(series: pb.SeriesStatistics) -> tuple[object, ...]:
    return tuple(getattr(series, name) for name in SERIES)


def _models_first(key: Iterable[object]) -> tuple[object, ...]:
    """By name and version; what never reached a version comes last."""
    model, *rest = key
    return not model, model, *rest


def _seconds(before: pb.GetStatisticsResponse | None, now: pb.GetStatisticsResponse) -> float:
    """By the gateway's clock, so that the way of the answers does not count. Above 0 when `before` is None."""
    since = now.started_at if before is None else before.time
    seconds = (now.time.ToNanoseconds() - since.ToNanoseconds()) / 1e9
    return max(seconds, 1e-3) if before is None else seconds
