"""What became of the spans of requests, and of runs, as /metrics tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from support.gateway import Gateway

EXPORTED = "otel_sdk_exporter_span_exported_total"
PROCESSED = "otel_sdk_processor_span_processed_total"


@dataclass(frozen=True, slots=True)
class ExportCounts:
    """Of requests: each span whose fate is known is in one of the first four. `run_spans`: taken by the receiver."""

    exported: int
    rejected: int
    failed: int
    queue_full: int
    run_spans: int
    rejected_in_all: int

    @property
    def known(self) -> int:
        return self.exported + self.rejected + self.failed + self.queue_full

    def __sub__(self, other: Self) -> ExportCounts:
        return ExportCounts(*(getattr(self, name) - getattr(other, name) for name in self.__slots__))


def export_counts(gateway: Gateway) -> ExportCounts:
    """Of one look at /metrics."""
    status, page = gateway.get("/metrics")
    assert status == 200, f"/metrics answered {status}"
    found: dict[tuple[str, str, str], int] = {}
    rejected = 0
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            component, error = sample.labels.get("otel_component_name", ""), sample.labels.get("error_type", "")
            if sample.name in (EXPORTED, PROCESSED):
                found[sample.name, component.rpartition("/")[2], error] = int(sample.value)
            if sample.name.startswith("otel_sdk_exporter_") and error == "rejected":
                rejected += int(sample.value)
    return ExportCounts(
        exported=found[EXPORTED, "requests", ""],
        rejected=found[EXPORTED, "requests", "rejected"],
        failed=found[EXPORTED, "requests", "failed"],
        queue_full=found[PROCESSED, "0", "queue_full"],
        run_spans=found[EXPORTED, "runs", ""],
        rejected_in_all=rejected,
    )


def until_known(gateway: Gateway, spans: int, before: ExportCounts | None = None) -> ExportCounts:
    """Once the fate of `spans` spans of requests is known: what has been counted since `before`."""
    since = before or ExportCounts(0, 0, 0, 0, 0, 0)
    gateway.wait_for(lambda: (export_counts(gateway) - since).known >= spans, 60.0, f"to settle {spans} spans")
    return export_counts(gateway) - since
