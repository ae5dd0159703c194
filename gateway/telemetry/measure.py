"""Reads every metric where it is kept, at one moment: the workers' pages in shared memory, and control's own figures.

What stands in shared memory counts from the gateway's start, over restarts of any process; what control counts, from
control's start.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from gateway.telemetry.conventions import CODES, SERVER_ERRORS
from gateway.telemetry.drift_measures import DRIFT, VersionDrift
from gateway.telemetry.durations import OVERFLOW as OVERFLOW_MODEL
from gateway.telemetry.durations import DurationRecorder
from gateway.telemetry.instruments import Instrument, MetricsInvalid, instruments
from gateway.telemetry.rollout_measures import ROLLOUTS, RolloutFigures
from gateway.telemetry.shadow_measures import SHADOW, PairFigures
from gateway.telemetry.signed import SignedDistribution
from gateway.telemetry.snapshot import Attributes, AttributeValue, Distribution, Measurement, Point, Snapshot
from runtime.shm.series import OVERFLOWS, Series, SeriesKey, SeriesReader
from runtime.shm.series_layout import ROWS_OFFSET, SCALE, TIME_OFFSET
from runtime.shm.statistics import StatisticsReader
from runtime.yielding import let_others_run

NS = 1e-9  # s
OVERFLOWED: Attributes = (("otel.metric.overflow", True),)
SIGNALS = ("span", "metric_data_point", "log")

T = TypeVar("T")
SeriesValue = int | float | Distribution
Value = SeriesValue | SignedDistribution


@dataclass(frozen=True, slots=True)
class ExporterFigures:
    """One exporter, since the gateway's start. `signal`: of SIGNALS. `component_type`: as otlp_grpc_span_exporter.
    `name` tells those of one type apart; "": by their number.

    `failed`: by error.type, `rejected` where the receiver said so; an item is in `exported` or in one of these.
    """

    signal: str
    component_type: str
    exported: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    inflight: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class ProcessorFigures:
    """What stands before an exporter, since the gateway's start. `dropped`: by error.type, `queue_full`: no room."""

    signal: str
    component_type: str
    processed: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    size: int = 0
    capacity: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Where control's own figures come from. Each is asked once a snapshot, on the thread that takes it.

    Processes are named by a worker's number, "control" or "supervisor".
    """

    workers_expected: int
    workers_serving: Callable[[], int]
    restarts: Callable[[], Mapping[str, int]]
    memory_bytes: Callable[[], Mapping[str, int]]
    versions_served: Callable[[], Iterable[tuple[str, int]]]
    repository_problems: Callable[[], int]
    loads: DurationRecorder = field(default_factory=DurationRecorder)
    swaps: DurationRecorder = field(default_factory=DurationRecorder)
    records_dropped: Callable[[], Mapping[str, tuple[int, int]]] = dict
    """By worker: sampled records, others (RingReader.dropped)."""
    processors: Callable[[], Sequence[ProcessorFigures]] = tuple
    exporters: Callable[[], Sequence[ExporterFigures]] = tuple
    access_log_dropped: Callable[[], int] = int
    drift: Callable[[], Sequence[VersionDrift]] = tuple
    rollouts: Callable[[], Sequence[RolloutFigures]] = tuple
    shadows: Callable[[], Sequence[PairFigures]] = tuple


class Measures:
    """Takes snapshots. Thread-safe as far as its figures are."""

    def __init__(
        self,
        series: SeriesReader,
        statistics: StatisticsReader,
        figures: Figures,
        started_at_seconds: float,
        *,
        exemplars: bool = True,
    ) -> None:
        """`started_at_seconds`: of the gateway, Unix time. Raises MetricsInvalid for a source that does not exist.

        `exemplars`: False where OTEL_METRICS_EXEMPLAR_FILTER is always_off. Otherwise they are of sampled requests
        only: always_on is the same as trace_based, since no others have a span to lead to.
        """
        self._series = series
        self._series_sources = SERIES if exemplars else {**SERIES, "series.duration": _without_exemplars}
        self._statistics = statistics
        self._figures = figures
        self._started_unix_ns = int(started_at_seconds * 1e9)
        self._control_started_unix_ns = time.time_ns()
        self._sources = self._named_sources()
        unknown = [each.source for each in instruments() if each.source not in {*SERIES, *self._sources}]
        if unknown:
            raise MetricsInvalid(f"no such sources: {', '.join(unknown)}")

    def snapshot(self) -> Snapshot:
        totals = self._series.totals()
        measurements = []
        for instrument in instruments():
            read = self._series_sources.get(instrument.source)
            if read is not None:
                measured = Measurement(instrument, self._started_unix_ns, _grouped(instrument, totals, read))
            else:
                source = self._sources[instrument.source]
                start = self._started_unix_ns if source.is_shared else self._control_started_unix_ns
                measured = Measurement(instrument, start, [_point(instrument, *row) for row in source.read()])
            if measured.points:
                measurements.append(measured)
            let_others_run()
        return Snapshot(time.time_ns(), measurements)

    def _named_sources(self) -> dict[str, _Source]:
        figures, statistics = self._figures, self._statistics
        sources = {
            "in_flight": _shared(lambda: [((str(i),), statistics.in_flight(i)) for i in self._workers()]),
            "lost_versions": _shared(lambda: _one(statistics.lost_versions())),
            "lost_series": _shared(lambda: _one(self._series.lost())),
            "restarts": _shared(lambda: _by_name(figures.restarts())),
            "records_dropped": _shared(lambda: _dropped(figures.records_dropped())),
            "memory": _shared(lambda: _by_name(figures.memory_bytes())),
            "workers_expected": _shared(lambda: _one(figures.workers_expected)),
            "workers_serving": _shared(lambda: _one(figures.workers_serving())),
            "versions_served": _own(lambda: [(row, 1) for row in figures.versions_served()]),
            "repository_problems": _own(lambda: _one(figures.repository_problems())),
            "access_log_dropped": _own(lambda: _one(figures.access_log_dropped())),
            "durations.load": _own(lambda: _durations(figures.loads)),
            "durations.swap": _own(lambda: _durations(figures.swaps)),
        }
        for name, read_drift in DRIFT.items():
            sources[f"drift.{name}"] = _own(functools.partial(_each, figures.drift, read_drift))
        for name, read_rollout in ROLLOUTS.items():
            sources[f"rollouts.{name}"] = _own(functools.partial(_each, figures.rollouts, read_rollout))
        for name, read_shadow in SHADOW.items():
            sources[f"shadow.{name}"] = _own(functools.partial(_each, figures.shadows, read_shadow))
        for signal in SIGNALS:
            for name, read_exporter in EXPORTER.items():
                sources[f"exporters.{signal}.{name}"] = _shared(
                    functools.partial(_components, figures.exporters, signal, read_exporter)
                )
            for name, read_processor in PROCESSOR.items():
                sources[f"processors.{signal}.{name}"] = _shared(
                    functools.partial(_components, figures.processors, signal, read_processor)
                )
        return sources

    def _workers(self) -> range:
        return range(self._figures.workers_expected)


Attributed = tuple[AttributeValue | None, ...] | None
Row = tuple[Attributed, Value] | tuple[Attributed, Value, int]
"""Values of the instrument's attributes, in its order (None: does not apply), and the value; from when on it counts,
where that is not the source's start. None for all of the attributes: they found no room."""


@dataclass(frozen=True, slots=True)
class _Source:
    """`is_shared`: it counts from the gateway's start, not from control's."""

    read: Callable[[], Iterable[Row]]
    is_shared: bool


def _shared(read: Callable[[], Iterable[Row]]) -> _Source:
    return _Source(read, is_shared=True)


def _own(read: Callable[[], Iterable[Row]]) -> _Source:
    return _Source(read, is_shared=False)


def _one(value: int) -> list[Row]:
    return [((), value)]


def _by_name(values: Mapping[str, int]) -> list[Row]:
    return [((name,), value) for name, value in values.items()]


def _dropped(by_worker: Mapping[str, tuple[int, int]]) -> list[Row]:
    kinds = ("sampled", "other")
    return [((name, kind), n) for name, both in by_worker.items() for kind, n in zip(kinds, both, strict=True)]


def _durations(recorder: DurationRecorder) -> list[Row]:
    return [(None if model == OVERFLOW_MODEL else (model,), d) for model, d in recorder.distributions().items()]


EXPORTER: Mapping[str, Callable[[ExporterFigures], Mapping[str, int]]] = {
    "exported": lambda figures: {"": figures.exported, **figures.failed},
    "inflight": lambda figures: {"": figures.inflight},
}
PROCESSOR: Mapping[str, Callable[[ProcessorFigures], Mapping[str, int]]] = {
    "processed": lambda figures: {"": figures.processed, **figures.dropped},
    "size": lambda figures: {"": figures.size},
    "capacity": lambda figures: {"": figures.capacity},
}
"""By error.type; "" where there is none."""


def _components(
    figures: Callable[[], Sequence[ExporterFigures | ProcessorFigures]],
    signal: str,
    read: Callable[..., Mapping[str, int]],
) -> Iterable[Row]:
    numbers: dict[str, int] = {}
    for each in figures():
        number = numbers[each.component_type] = numbers.get(each.component_type, -1) + 1
        if each.signal == signal:
            part = each.name if isinstance(each, ExporterFigures) else ""
            name = f"{each.component_type}/{part or number}"
            for error, value in read(each).items():
                yield (name, each.component_type, error or None), value


def _each(figures: Callable[[], Sequence[T]], read: Callable[[T], Iterable[Row]]) -> Iterable[Row]:
    for each in figures():
        yield from read(each)


def _point(instrument: Instrument, values: Attributed, value: Value, start_unix_ns: int = 0) -> Point:
    if values is None:
        return Point(OVERFLOWED, value)
    named = zip(instrument.attributes, values, strict=False)  # not every instrument has the last, error.type
    return Point(tuple((key, worth) for key, worth in named if worth is not None), value, start_unix_ns)


def _grouped(
    instrument: Instrument, totals: Iterable[Series], read: Callable[[Series], SeriesValue | None]
) -> list[Point]:
    """One point for each combination of the instrument's attributes: series that differ in others are added up."""
    points: dict[Attributes, SeriesValue] = {}
    for series in totals:
        value = read(series)
        if value is None:
            continue
        attributes = OVERFLOWED if series.key in OVERFLOWS else _of_key(instrument, series.key)
        before = points.get(attributes)
        if isinstance(value, Distribution):
            points[attributes] = before.plus(value) if isinstance(before, Distribution) else value
        else:
            points[attributes] = before + value if isinstance(before, (int, float)) else value
    return [Point(attributes, value) for attributes, value in points.items()]


def code_name(code: int) -> str:
    """The gRPC code's name; a number without one as digits."""
    return CODES[code] if 0 <= code < len(CODES) else str(code)


def _of_key(instrument: Instrument, key: SeriesKey) -> Attributes:
    return tuple((name, value) for name in instrument.attributes if (value := KEY_ATTRIBUTES[name](key)) not in ("", 0))


def _error_type(key: SeriesKey) -> str:
    name = code_name(key.code)
    return name if name in SERVER_ERRORS else ""


KEY_ATTRIBUTES: Mapping[str, Callable[[SeriesKey], AttributeValue]] = {
    "rpc.system.name": lambda _: "grpc",
    "rpc.response.status_code": lambda key: code_name(key.code),
    "error.type": _error_type,
    "driftgate.model.name": lambda key: key.model,
    "driftgate.model.version": lambda key: key.version,
    "driftgate.route.variant": lambda key: key.variant,
    "driftgate.refusal.reason": lambda key: key.reason,
}
"""A series' attributes; "" and 0: does not apply."""


def duration(series: Series) -> Distribution:
    counters = series.counters
    return Distribution(
        counts=series.duration,
        zero=counters["duration_zero"],
        offset=TIME_OFFSET,
        scale=SCALE,
        total=counters["duration_ns"] * NS,
        minimum=counters["duration_min_ns"] * NS,
        maximum=counters["duration_max_ns"] * NS,
        classic=series.classic,
        exemplars=tuple(series.exemplars),
    )


def _without_exemplars(series: Series) -> Distribution:
    return replace(duration(series), exemplars=())


def queue(series: Series) -> Distribution:
    counters = series.counters
    return Distribution(series.queue, counters["queue_zero"], TIME_OFFSET, SCALE, counters["queue_ns"] * NS)


def run(series: Series) -> Distribution:
    counters = series.counters
    return Distribution(series.run, counters["run_zero"], TIME_OFFSET, SCALE, counters["run_ns"] * NS)


def run_rows(series: Series) -> Distribution:
    counters = series.counters
    return Distribution(series.run_rows, counters["rows_zero"], ROWS_OFFSET, SCALE, counters["run_rows"])


def _counter(name: str) -> Callable[[Series], int]:
    return lambda series: series.counters[name]


def _where_run(read: Callable[[Series], SeriesValue]) -> Callable[[Series], SeriesValue | None]:
    """None of series that nothing ran in: refusals have no queue and no run."""
    return lambda series: read(series) if series.counters["ran_requests"] else None


SERIES: Mapping[str, Callable[[Series], SeriesValue | None]] = {
    "series.duration": duration,
    "series.requests": _counter("requests"),
    "series.refused": lambda series: series.counters["requests"] if series.key.code else None,
    "series.rows": _counter("rows"),
    "series.bytes_in": _counter("bytes_in"),
    "series.bytes_out": _counter("bytes_out"),
    "series.queue": _where_run(queue),
    "series.runs": _where_run(_counter("runs")),
    "series.run": _where_run(run),
    "series.run_rows": _where_run(run_rows),
}
