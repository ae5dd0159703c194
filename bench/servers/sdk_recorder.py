"""Requests recorded as a team without driftgate would: by OpenTelemetry's SDK for Python, as it comes.

A SERVER span for each request, with the attributes of driftgate's, through BatchSpanProcessor and OTLPSpanExporter; the
caller's context in and this span's out by the SDK's propagators; and a duration histogram recorded for each request.
It stands where gateway/telemetry/recorder.py stands. It does less: no span for each run, no links, one metric.
"""

from __future__ import annotations

import functools
import ipaddress
import threading
import time
from collections.abc import Sequence

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from gateway.errors import Status as Refusal
from gateway.routing.table import NOT_ROUTED, Routing
from gateway.telemetry.context import Metadata, Trace
from gateway.telemetry.conventions import CODES, INFER_METHOD, SCOPE, SERVER_ERRORS
from gateway.telemetry.peers import parse_peer
from gateway.telemetry.recorder import NOBODY, Subject
from gateway.telemetry.span_template import host_and_port
from gateway.worker.transport.interface import Call
from runtime.batching.request import Request
from runtime.batching.runner import RunTimes
from runtime.shm.record_layout import Reason

QUEUE_SPANS = 65_536
"""Several seconds of the fastest load, so that a full queue is the exporter's slowness and no burst."""

EXPORT_SPANS = 2048
"""Spans of one export: as many as stay below the 4 MiB that receivers take, at 1 kB each."""

DELAY_MILLISECONDS = 1000  # driftgate's own; the SDK's 5 s would put exports off beyond a load's end
BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Of rpc.server.call.duration, by the semantic conventions."""

SUBJECTS = 1024
Value = str | int | float


class SdkTrace(Trace):
    """A request's open span, where the pipeline expects its trace context."""

    __slots__ = ("carried", "context", "span")

    def __init__(self, span: Span, context: Context, carried: tuple[tuple[str, str], ...]) -> None:
        super().__init__(b"", b"", 0, tuple((key.encode(), value.encode()) for key, value in carried))
        self.carried = carried
        self.span = span
        self.context = context

    @property
    def trailers(self) -> tuple[tuple[str, str], ...]:
        return self.carried


class SdkTracer:
    responds = True

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer(SCOPE)

    def whole(self, begun: SdkTrace) -> SdkTrace:
        return begun

    def begin(self, metadata: Metadata) -> SdkTrace:
        parent = propagate.extract({key: value for key, value in metadata if isinstance(value, str)})
        attributes: dict[str, Value] = {"rpc.system.name": "grpc", "rpc.method": INFER_METHOD}
        span = self._tracer.start_span(INFER_METHOD, parent, SpanKind.SERVER, attributes)
        context = trace.set_span_in_context(span, parent)
        carrier: dict[str, str] = {}
        propagate.inject(carrier, context)
        return SdkTrace(span, context, tuple(carrier.items()))


class SdkRecorder:
    """`requests`: recorded so far. Exports to where OTEL_EXPORTER_OTLP_ENDPOINT says, until `shutdown`."""

    def __init__(self, authority: str) -> None:
        """`authority`: HOST:PORT of this server, for requests whose own is not known."""
        resource = Resource.create({"service.name": "driftgate-sdk"})
        self._spans = TracerProvider(resource=resource)
        self._spans.add_span_processor(
            BatchSpanProcessor(
                OTLPSpanExporter(),
                max_queue_size=QUEUE_SPANS,
                schedule_delay_millis=DELAY_MILLISECONDS,
                max_export_batch_size=EXPORT_SPANS,
            )
        )
        self._metrics = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource)
        self._duration = self._metrics.get_meter(SCOPE).create_histogram(
            "rpc.server.call.duration", "s", explicit_bucket_boundaries_advisory=BUCKETS_SECONDS
        )
        self._lock = threading.Lock()
        self._authority = authority
        self._digests: dict[Subject, str] = {}
        self.tracer = SdkTracer(self._spans)
        self.requests = 0

    def subject(self, model: str, version: int, digest: str) -> Subject:
        subject = Subject(model, version, len(self._digests) + 1)
        self._digests[subject] = digest
        return subject

    def answered(
        self,
        subject: Subject,
        requests: Sequence[Request],
        rows: int,
        responses: Sequence[bytes],
        times: RunTimes,
        replied_ns: int,
    ) -> None:
        count = len(requests)
        unix_ns = time.time_ns() - time.monotonic_ns()
        input_seconds = (times.gathered_ns - times.started_ns) / 1e9
        run_seconds = (times.ran_ns - times.gathered_ns) / 1e9
        output_seconds = (replied_ns - times.ran_ns) / 1e9
        digest = self._digests[subject]
        for request, response in zip(requests, responses, strict=True):
            call: Call = request.owner
            routing = request.routing
            span = _trace_of(call).span
            attributes: dict[str, Value] = {
                **_connection(call.peer(), call.authority or self._authority),
                "rpc.response.status_code": "OK",
                "driftgate.model.name": subject.model,
                "driftgate.model.version": subject.version,
                "driftgate.model.digest": digest,
                "driftgate.route.variant": routing.variant,
                "driftgate.route.reason": Reason(routing.reason).name.lower(),
                "driftgate.request.rows": request.rows,
                "driftgate.request.size": request.size_bytes,
                "driftgate.response.size": len(response),
                "driftgate.batch.rows": rows,
                "driftgate.batch.requests": count,
                "driftgate.decode.duration": (request.decoded_ns - call.received_ns) / 1e9,
                "driftgate.queue.duration": (times.started_ns - request.decoded_ns) / 1e9,
                "driftgate.input.duration": input_seconds,
                "driftgate.run.duration": run_seconds,
                "driftgate.output.duration": output_seconds,
                "driftgate.worker": 0,
            }
            if request.id:
                attributes["driftgate.request.id"] = request.id
            span.set_attributes(attributes)
            self._end(call, "OK", subject, routing.variant, replied_ns, unix_ns)
        with self._lock:
            self.requests += count

    def refused(
        self,
        call: Call,
        status: Refusal,
        size_bytes: int,
        request: Request | None = None,
        subject: Subject = NOBODY,
        routing: Routing = NOT_ROUTED,
    ) -> None:
        now_ns = time.monotonic_ns()
        code = CODES[status.code]
        span = _trace_of(call).span
        span.set_attributes(_connection(call.peer(), call.authority or self._authority))
        span.set_attributes({"rpc.response.status_code": code, "driftgate.request.size": size_bytes})
        span.set_attribute("driftgate.refusal.reason", status.reason)
        if code in SERVER_ERRORS:
            span.set_attribute("error.type", code)
            span.set_status(Status(StatusCode.ERROR))
        variant = (request.routing or routing).variant if request is not None else routing.variant
        self._end(call, code, subject, variant, now_ns, time.time_ns() - now_ns)
        with self._lock:
            self.requests += 1

    def shutdown(self) -> None:
        """Exports what is there."""
        self._spans.shutdown()
        self._metrics.shutdown()

    def _end(self, call: Call, code: str, subject: Subject, variant: str, replied_ns: int, unix_ns: int) -> None:
        """Within the span's context, so that the histogram can give exemplars, as driftgate's does."""
        opened = _trace_of(call)
        attributes = _series(code, subject, variant)
        self._duration.record((replied_ns - call.received_ns) / 1e9, attributes, opened.context)
        opened.span.end(replied_ns + unix_ns)


def _trace_of(call: Call) -> SdkTrace:
    assert isinstance(call.trace, SdkTrace)
    return call.trace


@functools.lru_cache(SUBJECTS)
def _series(code: str, subject: Subject, variant: str) -> dict[str, Value]:
    return {
        "rpc.system.name": "grpc",
        "rpc.response.status_code": code,
        "driftgate.model.name": subject.model,
        "driftgate.model.version": subject.version,
        "driftgate.route.variant": variant,
    }


@functools.lru_cache(SUBJECTS)
def _connection(peer: str, authority: str) -> dict[str, Value]:
    _, port, address = parse_peer(peer)
    host, own_port = host_and_port(authority)
    found: dict[str, Value] = {"server.address": host}
    if own_port is not None:
        found["server.port"] = own_port
    if address:
        found |= {"network.peer.address": str(ipaddress.ip_address(address)), "network.peer.port": port}
    return found
