"""What an OTLP receiver of the tests is told to do with a request, and what it keeps of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb

PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True)
class Signal:
    """One of OTLP's services; `items` are all spans, metrics or log records of a request, `count` what OTLP counts."""

    service: str
    request: Any
    response: Any
    rejected_field: str
    items: Callable[[Any], Iterator[Any]]
    count: Callable[[Any], int]


def _spans(request: Any) -> Iterator[Any]:
    return (span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans)


def _metrics(request: Any) -> Iterator[Any]:
    return (item for resource in request.resource_metrics for scope in resource.scope_metrics for item in scope.metrics)


def _log_records(request: Any) -> Iterator[Any]:
    return (item for resource in request.resource_logs for scope in resource.scope_logs for item in scope.log_records)


def _data_points(request: Any) -> int:
    return sum(len(getattr(metric, metric.WhichOneof("data")).data_points) for metric in _metrics(request))


COLLECTOR = "opentelemetry.proto.collector"
SIGNALS = {
    "traces": Signal(
        f"{COLLECTOR}.trace.v1.TraceService",
        trace_pb.ExportTraceServiceRequest,
        trace_pb.ExportTraceServiceResponse,
        "rejected_spans",
        _spans,
        lambda request: sum(len(scope.spans) for part in request.resource_spans for scope in part.scope_spans),
    ),
    "metrics": Signal(
        f"{COLLECTOR}.metrics.v1.MetricsService",
        metrics_pb.ExportMetricsServiceRequest,
        metrics_pb.ExportMetricsServiceResponse,
        "rejected_data_points",
        _metrics,
        _data_points,
    ),
    "logs": Signal(
        f"{COLLECTOR}.logs.v1.LogsService",
        logs_pb.ExportLogsServiceRequest,
        logs_pb.ExportLogsServiceResponse,
        "rejected_log_records",
        _log_records,
        lambda request: sum(len(scope.log_records) for part in request.resource_logs for scope in part.scope_logs),
    ),
}


@dataclass(frozen=True)
class Fault:
    """How a request is answered: after `seconds`, taken less `rejected` items, or refused.

    `code` (gRPC, "" is OK) and `status` (HTTP) stand side by side, so that a test may run over either. `told_seconds`
    is RetryInfo or Retry-After. `body` is the answer where it is to be a special one; over HTTP `headers` and `kind`
    are too, and it leaves byte by byte, `drip_seconds` apart, where these are not 0.
    """

    seconds: float = 0.0
    rejected: int = 0
    message: str = ""
    code: str = ""
    status: int = 200
    told_seconds: float | None = None
    headers: tuple[tuple[str, str], ...] = ()
    kind: str = PROTOBUF
    body: bytes | None = None
    drip_seconds: float = 0.0

    def fails(self, protocol: str) -> bool:
        return bool(self.code) if protocol == "grpc" else not 200 <= self.status < 300

    def details(self) -> bytes:
        """A google.rpc.Status."""
        status = status_pb2.Status(message=self.message)
        if self.told_seconds is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(self.told_seconds * 1e9))
            packed = any_pb2.Any()
            packed.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
            status.details.append(packed)
        return status.SerializeToString()


OK = Fault()
UNAVAILABLE = Fault(code="UNAVAILABLE", status=503, message="come back later")


@dataclass(frozen=True)
class Received:
    """One request. `protocol`: grpc or http. `count`: its spans, data points or log records. `taken`: answered with OK.

    `payload` is what was sent, decompressed; b"" where the receiver only counts.
    """

    signal: str
    protocol: str
    path: str
    headers: Mapping[str, str]
    compression: str
    wire_bytes: int
    payload: bytes
    count: int
    fault: Fault
    taken: bool

    @cached_property
    def request(self) -> Any:
        return SIGNALS[self.signal].request.FromString(self.payload)

    @property
    def items(self) -> list[Any]:
        return list(SIGNALS[self.signal].items(self.request))
