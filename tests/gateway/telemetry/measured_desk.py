"""Measures over pages that a test counts into, as a worker does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from shm_records import Desk, desk, records_of

from gateway.telemetry.drift_measures import SubjectDrift, VersionDrift
from gateway.telemetry.measure import ExporterFigures, Figures, Measures, ProcessorFigures
from gateway.telemetry.rollout_measures import RolloutFigures
from gateway.telemetry.shadow_measures import PairFigures
from gateway.telemetry.signed import SignedDistribution
from runtime.shm.publish import KEEP_NONE
from runtime.shm.series import OVERFLOW, SeriesKey, SeriesReader
from runtime.shm.statistics import StatisticsReader, StatisticsWriter
from runtime.shm.statistics_layout import create_page
from runtime.sketch.exponential import ExponentialHistogram

STARTED_AT_SECONDS = 1_750_000_000.0
UNIX_NS = 1_750_000_100_000_000_000  # when the first request is received
ANSWERED = SeriesKey("iris", 3, "default", 0, "")
PINNED = SeriesKey("iris", 3, "pinned", 0, "")
REFUSED = SeriesKey("iris", 3, "default", 4, "DEADLINE_EXCEEDED")
UNKNOWN = SeriesKey("", 0, "", 5, "MODEL_NOT_FOUND")

VALUES = SignedDistribution.of(ExponentialHistogram.of(np.array([-3.0, -3.0, 0.0, 0.25, 17.0])))
VALUES_SINCE_NS = UNIX_NS + 5
DRIFT = VersionDrift(
    "iris", 3, rows=100, looks=4, unshown=2,
    subjects=[
        SubjectDrift("petal length", "feature", 2.5, alarmed=True, distances=[("distribution", "PSI", 0.3)]),
        SubjectDrift("species", "output", 0.25, alarmed=False, distances=[("distribution", "KS", 0.01)]),
    ],
    missing={"petal length": 0.125},
    values={"petal length": (VALUES_SINCE_NS, VALUES)},
)  # fmt: skip

SHADOW = PairFigures(
    "iris", 3, 4,
    requests={("agreed", ""): 95, ("disagreed", ""): 4, ("failed", ""): 1, ("shed", "late"): 7},
    waiting=2, agreement=0.96, latency_ratio=1.25,
)  # fmt: skip

ROLLOUT = RolloutFigures(
    "iris", 4, "canary", step=2, weight=0.05, copies=0.1,
    requests={"candidate": 50, "baseline": 950}, errors={"candidate": 1, "baseline": 3},
    evidence={("errors", "harm"): 0.25, ("errors", "safety"): 1.5},
)  # fmt: skip


@dataclass
class MeasuredDesk:
    """`figures` may be replaced before `measures` is asked for."""

    desk: Desk
    statistics: StatisticsReader
    in_flight: StatisticsWriter
    figures: Figures

    @property
    def series(self) -> SeriesReader:
        return self.desk.totals()

    def measures(self) -> Measures:
        return Measures(self.series, self.statistics, self.figures, STARTED_AT_SECONDS)

    def answer(
        self, seconds: Sequence[float], key: SeriesKey = ANSWERED, *, rows: int = 2, sampled: bool = True
    ) -> None:
        """One run for each: half of its time in the queue, a quarter in the run."""
        self._count(key, seconds, rows, sampled=sampled, ran=True)

    def refuse(self, seconds: Sequence[float], key: SeriesKey = REFUSED) -> None:
        self._count(key, seconds, 1, sampled=False, ran=False)

    def overflow(self) -> None:
        self._count(OVERFLOW, [0.001], 1, sampled=False, ran=False)

    def _count(self, key: SeriesKey, seconds: Sequence[float], rows: int, *, sampled: bool, ran: bool) -> None:
        number = self.desk.series.number(key)
        records: list[dict[str, Any]] = []
        for position, value in enumerate(seconds):
            ns = round(value * 1e9)
            record = {
                "series": number, "rows": rows, "replied_ns": ns, "bytes_in": 100, "bytes_out": 50 if ran else 0,
                "code": key.code, "received_unix_ns": UNIX_NS + position,
            }  # fmt: skip
            if ran:
                identity = (position + 1).to_bytes(8, "big")
                record |= {
                    "run_id": identity, "run_rows": rows, "run_requests": 1,
                    "started_ns": ns // 2, "gathered_ns": ns // 2, "ran_ns": ns // 2 + ns // 4,
                }  # fmt: skip
            if sampled:
                record |= {
                    "trace_id": bytes(15) + b"\1",
                    "span_id": (position + 1).to_bytes(8, "big"),
                    "trace_flags": 1,
                }
            records.append(record)
        if records:
            self.desk.publish(records_of(records), KEEP_NONE)

    def with_exporters(self) -> None:
        """One exporter of each signal, each with something failed."""
        self.figures = replace(
            self.figures,
            records_dropped=lambda: {"0": (7, 2)},
            processors=lambda: (
                ProcessorFigures("span", "batching_span_processor", 100, {"queue_full": 7}, 20, 32_768),
                ProcessorFigures("log", "batching_log_processor", 5, {}, 1, 1024),
            ),
            exporters=lambda: (
                ExporterFigures("span", "otlp_grpc_span_exporter", 90, {"rejected": 4, "UNAVAILABLE": 6}, 10),
                ExporterFigures("metric_data_point", "otlp_grpc_metric_exporter", 50),
                ExporterFigures("log", "otlp_http_log_exporter", 3, {"timeout": 1}),
            ),
            access_log_dropped=lambda: 3,
            drift=lambda: [DRIFT],
            shadows=lambda: [SHADOW],
            rollouts=lambda: [ROLLOUT],
        )


@contextmanager
def measured_desk() -> Iterator[MeasuredDesk]:
    page = create_page("statistics")
    figures = Figures(
        workers_expected=1,
        workers_serving=lambda: 1,
        restarts=lambda: {"0": 0, "control": 1},
        memory_bytes=lambda: {"0": 100 << 20, "control": 50 << 20, "supervisor": 10 << 20},
        versions_served=lambda: [("iris", 3), ("iris", 4)],
        repository_problems=lambda: 0,
    )
    try:
        with desk() as at:
            yield MeasuredDesk(at, StatisticsReader([page]), StatisticsWriter(page), figures)
    finally:
        os.close(page.fd)
