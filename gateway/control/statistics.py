"""The answer to GetStatistics: the series of all workers as a message."""

from __future__ import annotations

import time
from collections.abc import Collection

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.telemetry import measure
from gateway.telemetry.snapshot import Distribution
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.errors import NotFound
from runtime.shm.series import Series, SeriesReader
from runtime.shm.statistics import StatisticsReader


class Statistics:
    """Thread-safe: reading the pages takes milliseconds, so it is done beside the event loop."""

    def __init__(
        self, series: SeriesReader, statistics: StatisticsReader, workers: int, started_at_seconds: float
    ) -> None:
        self._series = series
        self._statistics = statistics
        self._workers = workers
        self._started_at_seconds = started_at_seconds

    def response(self, model: str, known: Collection[str]) -> pb.GetStatisticsResponse:
        """Of one `model` or of all. Raises NotFound for one that is not `known` and of which nothing was counted."""
        totals = [series for series in self._series.totals() if model in ("", series.key.model)]
        if model and not totals and model not in known:
            raise NotFound(f"no model {model[:128]!r}")
        return pb.GetStatisticsResponse(
            started_at=_timestamp(round(self._started_at_seconds * 1e6) * 1000),
            time=_timestamp(time.time_ns()),
            series=[_series(series) for series in totals],
            requests_in_flight=sum(self._statistics.in_flight(worker) for worker in range(self._workers)),
        )


def _series(series: Series) -> pb.SeriesStatistics:
    key, counters = series.key, series.counters
    message = pb.SeriesStatistics(
        model=key.model,
        version=key.version,
        variant=key.variant,
        code=measure.code_name(key.code),
        reason=key.reason,
        requests=counters["requests"],
        rows=counters["rows"],
        request_bytes=counters["bytes_in"],
        response_bytes=counters["bytes_out"],
        runs=counters["runs"],
        duration=_histogram(measure.duration(series)),
        shortest=_duration(counters["duration_min_ns"]),
        longest=_duration(counters["duration_max_ns"]),
    )
    if counters["ran_requests"]:
        message.queue.CopyFrom(_histogram(measure.queue(series)))
        message.run.CopyFrom(_histogram(measure.run(series)))
        message.run_rows.CopyFrom(_histogram(measure.run_rows(series)))
    return message


def _histogram(distribution: Distribution) -> pb.ExponentialHistogram:
    offset, counts = distribution.trimmed()
    return pb.ExponentialHistogram(
        scale=distribution.scale,
        zero_count=distribution.zero,
        zero_threshold=distribution.zero_threshold,
        offset=offset,
        counts=counts.tolist(),
        sum=distribution.total,
    )


def _timestamp(unix_ns: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(unix_ns)
    return stamp


def _duration(ns: int) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(ns)
    return duration
