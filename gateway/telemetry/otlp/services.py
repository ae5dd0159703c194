"""OTLP's three services as a table, and what their answers say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from gateway.telemetry.otlp.retry import Attempt
from gateway.telemetry.signal_settings import Signal

COLLECTOR = "opentelemetry.proto.collector"


@dataclass(frozen=True, slots=True)
class Service:
    """`items` is what a request holds, in words. `path` of the RPC; `new_response` makes an empty answer, whose partial
    success counts in `rejected_field`.
    """

    items: str
    path: str
    new_response: Callable[[], Any]
    rejected_field: str

    def parse(self, answer: bytes) -> Attempt:
        """Of an answer that says that the request was taken: it is, whether or not the rest can be understood."""
        response = self.new_response()
        try:
            response.ParseFromString(answer)
        except DecodeError:
            return Attempt(message=f"expected {response.DESCRIPTOR.name}, got {len(answer)} bytes that are none")
        return self.taken(response)

    def taken(self, response: Any) -> Attempt:
        """The receiver took the request; `rejected` is as it says, which may be more than it was sent."""
        partial = response.partial_success
        return Attempt(rejected=max(0, getattr(partial, self.rejected_field)), message=partial.error_message)


SERVICES: Mapping[Signal, Service] = MappingProxyType({
    "traces": Service(
        "spans", f"/{COLLECTOR}.trace.v1.TraceService/Export", ExportTraceServiceResponse, "rejected_spans"
    ),
    "metrics": Service(
        "data points", f"/{COLLECTOR}.metrics.v1.MetricsService/Export", ExportMetricsServiceResponse,
        "rejected_data_points",
    ),
    "logs": Service(
        "log records", f"/{COLLECTOR}.logs.v1.LogsService/Export", ExportLogsServiceResponse, "rejected_log_records"
    ),
})  # fmt: skip
