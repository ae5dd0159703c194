"""Everything that control exports, put together from the configuration: spans, metrics, log events, the access log."""

from __future__ import annotations

import dataclasses
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Literal

from gateway.process import Spawn
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.events import MAX_WAITING, EventLog
from gateway.telemetry.exporting import ExportCounts
from gateway.telemetry.fates import Fate, Signal, place
from gateway.telemetry.losses import LOGS, LossSummary
from gateway.telemetry.measure import ExporterFigures, Figures, Measures, ProcessorFigures
from gateway.telemetry.otlp.client import OtlpClient
from gateway.telemetry.otlp_logs import LogsEncoder
from gateway.telemetry.otlp_metrics import MetricsEncoder
from gateway.telemetry.periodic_export import Payload, PeriodicExport
from gateway.telemetry.recorder import FIXED_KEYS
from gateway.telemetry.resource import Attributes, to_proto
from gateway.telemetry.settings import TelemetrySettings
from gateway.telemetry.signal_settings import SignalSettings
from gateway.telemetry.span_export import FLUSH_SECONDS, SpanExport
from gateway.telemetry.spans import SpanEncoder
from runtime.shm.ring import RingReader, map_ring
from runtime.shm.segment import Segment
from runtime.shm.tally import Tally

log = logging.getLogger(__name__)

LEAST_FLUSH_SECONDS = 1.0  # for metrics and logs, where spans have taken all the time there was
EXPORTERS = {"grpc": "otlp_grpc_{}_exporter", "http/protobuf": "otlp_http_{}_exporter"}
"""Values of otel.component.type."""


class TelemetryExport:
    """`start`, then `stop`, once each; both from control's main thread. What is emitted into `events` is exported.

    `figures` are known at once, `measures` when it starts: metrics tell of the export too.
    """

    def __init__(self, orders: Spawn, settings: TelemetrySettings, resource: Attributes) -> None:
        telemetry = orders.config.telemetry
        if not telemetry.enabled:
            settings = dataclasses.replace(settings, traces=None)
        self._settings = settings
        self._resource = to_proto(resource)
        self._tally = Tally(Segment.attach(orders.export_fd, writable=True))
        self._readers = [RingReader(map_ring(Segment.attach(fd, writable=True))) for fd in orders.ring_fds]
        self._counts = {
            signal: ExportCounts(self._tally, signal) for signal in (Signal.SPANS, Signal.METRICS, Signal.LOGS)
        }
        self.events = EventLog(
            (settings.log_records.max_queue_size or MAX_WAITING) if settings.logs is not None else 0,
            lambda: self._counts[Signal.LOGS].dropped(Fate.QUEUE_FULL, 1),
        )
        self._access_log: AccessLog | None = None
        keys = [
            *FIXED_KEYS,
            *(f"rpc.request.metadata.{key.lower()}" for key in telemetry.metadata_attributes),
            *(f"driftgate.baggage.{key}" for key in telemetry.baggage_attributes),
        ]
        if telemetry.enabled and telemetry.access_log != "off":
            self._access_log = AccessLog(
                telemetry.access_log, telemetry.access_log_ratio, sys.stdout, orders.config.log_format, keys
            )
        self._spans: SpanExport | None = None
        traces = settings.traces
        if traces is not None or self._access_log is not None:
            encoder = client = None
            if traces is not None:
                encoder = SpanEncoder(
                    self._resource.SerializeToString(), extra_keys=keys, link_limit=settings.span_links
                )
                client = OtlpClient(_bounded(traces, settings.spans.export_timeout_seconds), "traces")
            self._spans = SpanExport(
                self._readers, encoder, client, self._access_log, settings.spans, self._counts[Signal.SPANS]
            )
        self._periodic: list[PeriodicExport] = []
        self._losses = LossSummary({}, time.monotonic())

    def figures(self, base: Figures) -> Figures:
        """`base` with what is known here."""
        return dataclasses.replace(
            base,
            records_dropped=lambda: {str(worker): reader.dropped for worker, reader in enumerate(self._readers)},
            processors=self._processors,
            exporters=self._exporters,
            access_log_dropped=lambda: self._access_log.dropped if self._access_log is not None else 0,
        )

    def lost(self) -> dict[tuple[str, str], int]:
        """What has been lost since the gateway's start, by signal and reason."""
        lost = {
            ("spans", "the worker's ring was full"): sum(reader.dropped[0] for reader in self._readers),
            ("access_log", "the worker's ring was full"): sum(reader.dropped[1] for reader in self._readers),
        }
        for signal, name in ((Signal.SPANS, "spans"), (Signal.METRICS, "metrics"), (Signal.LOGS, LOGS)):
            lost[name, "the receiver rejected them"] = self._count(signal, Fate.REJECTED)
            lost[name, "their export failed"] = self._count(signal, Fate.FAILED)
            lost[name, "too many waited for export"] = self._count(signal, Fate.QUEUE_FULL)
        return lost

    def start(self, measures: Measures, *, follows: bool) -> None:
        """`follows`: an earlier control process of this gateway has exported before this one."""
        settings = self._settings
        self._losses = LossSummary(self.lost(), time.monotonic())
        for signal, destination in (
            ("traces", settings.traces),
            ("metrics", settings.metrics),
            ("logs", settings.logs),
        ):
            if destination is not None:
                log.info("%s go to %s (%s)", signal, destination.shown, destination.protocol)
        if self._spans is not None:
            self._spans.start()
        if settings.metrics is not None:
            encoder = MetricsEncoder(self._resource, settings.temporality)
            if follows:
                encoder.start_from(measures.snapshot())
            self._add(
                "metrics",
                lambda: encoder.encode(measures.snapshot()),
                _bounded(settings.metrics, settings.metric_timeout_seconds),
                settings.metric_interval_seconds,
                Signal.METRICS,
            )
        if settings.logs is not None:
            batch = settings.log_records
            logs = LogsEncoder(self._resource)
            self._add(
                "logs",
                lambda: self._waiting_events(logs, batch.max_export_batch_size),
                _bounded(settings.logs, batch.export_timeout_seconds),
                batch.schedule_delay_seconds,
                Signal.LOGS,
            )

    def _waiting_events(self, encoder: LogsEncoder, most: int) -> list[Payload]:
        payloads: list[Payload] = []
        while events := self.events.take(most):
            try:
                payloads += encoder.encode(events)
            except Exception:
                log.exception("%d log events could not be encoded", len(events))
                self._counts[Signal.LOGS].dropped(Fate.FAILED, len(events))
        return payloads

    def stop(self) -> None:
        """Sends what is there, for a few seconds; what is left then is counted as dropped.

        Spans go first: the last metrics and log events tell what became of them.
        """
        deadline = time.monotonic() + FLUSH_SECONDS
        if self._spans is not None:
            self._spans.stop(FLUSH_SECONDS)
        self.tell_losses(is_last=True)
        left_seconds = max(deadline - time.monotonic(), LEAST_FLUSH_SECONDS)
        threads = [
            threading.Thread(target=export.stop, args=(left_seconds,), name="flush") for export in self._periodic
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.tell_losses(is_last=True)
        if self._access_log is not None:
            self._access_log.close()

    def tell_losses(self, *, is_last: bool = False) -> None:
        """What has been lost, as a log event. Single-threaded."""
        self._losses.tell(self.lost(), time.monotonic(), self.events, is_last=is_last)

    def _add(
        self,
        name: Literal["metrics", "logs"],
        collect: Callable[[], Sequence[Payload]],
        destination: SignalSettings,
        interval_seconds: float,
        signal: Signal,
    ) -> None:
        client = OtlpClient(destination, name)
        export = PeriodicExport(name, collect, client, interval_seconds, self._counts[signal])
        self._periodic.append(export)
        export.start()

    def _exporters(self) -> list[ExporterFigures]:
        """One for each exported signal, and one for the spans of runs."""
        settings = self._settings
        found = []
        for signal, counts, of, kind, name, destination in (
            (Signal.SPANS, Signal.SPANS, "span", "span", "requests", settings.traces),
            (Signal.RUN_SPANS, Signal.SPANS, "span", "span", "runs", settings.traces),
            (Signal.METRICS, Signal.METRICS, "metric_data_point", "metric", "", settings.metrics),
            (Signal.LOGS, Signal.LOGS, "log", "log", "", settings.logs),
        ):
            if destination is not None:
                found.append(
                    ExporterFigures(
                        of,
                        EXPORTERS[destination.protocol].format(kind),
                        name=name,
                        exported=self._count(signal, Fate.EXPORTED),
                        failed={
                            "rejected": self._count(signal, Fate.REJECTED),
                            "failed": self._count(signal, Fate.FAILED),
                        },
                        inflight=self._counts[counts].under_way(signal),
                    )
                )
        return found

    def _processors(self) -> list[ProcessorFigures]:
        found = []
        if self._settings.traces is not None and self._spans is not None:
            found.append(
                ProcessorFigures(
                    "span",
                    "batching_span_processor",
                    processed=sum(
                        self._count(Signal.SPANS, fate) for fate in (Fate.EXPORTED, Fate.REJECTED, Fate.FAILED)
                    ),
                    dropped={
                        "queue_full": self._count(Signal.SPANS, Fate.QUEUE_FULL)
                        + sum(reader.dropped[0] for reader in self._readers)
                    },
                    size=sum(reader.held for reader in self._readers),
                    capacity=sum(reader.capacity for reader in self._readers),
                )
            )
        if self._settings.logs is not None:
            found.append(
                ProcessorFigures(
                    "log",
                    "batching_log_processor",
                    processed=sum(
                        self._count(Signal.LOGS, fate) for fate in (Fate.EXPORTED, Fate.REJECTED, Fate.FAILED)
                    ),
                    dropped={"queue_full": self._count(Signal.LOGS, Fate.QUEUE_FULL)},
                    size=self.events.waiting,
                    capacity=self.events.capacity,
                )
            )
        return found

    def _count(self, signal: Signal, fate: Fate) -> int:
        return self._tally.value(place(signal, fate))


def _bounded(destination: SignalSettings, timeout_seconds: float) -> SignalSettings:
    """An export ends by the exporter's timeout and by the processor's, whichever is shorter."""
    return dataclasses.replace(destination, timeout_seconds=min(destination.timeout_seconds, timeout_seconds))
