"""The benchmark's receiver, as the process that it is: it counts what arrived."""

import json
from http.client import HTTPConnection

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from bench.receiver import Receiver, receiving
from bench.servers import HOST
from bench.servers.otlp_receiver import SERVICES, Counter

WAIT_SECONDS = 20.0


def spans(first: int, count: int, kind: Span.SpanKind.ValueType = Span.SPAN_KIND_SERVER) -> bytes:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(first, first + count):
        scope.spans.add(trace_id=bytes(16), span_id=number.to_bytes(8, "big"), kind=kind, name="ModelInfer")
    return request.SerializeToString()


def metrics() -> bytes:
    """Three data points."""
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    total = scope.metrics.add(name="driftgate.requests").sum
    total.data_points.add(as_int=1)
    total.data_points.add(as_int=2)
    scope.metrics.add(name="rpc.server.call.duration").exponential_histogram.data_points.add(count=3)
    scope.metrics.add(name="of no kind")
    return request.SerializeToString()


def logs() -> bytes:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(event_name="driftgate.version.loaded")
    return request.SerializeToString()


def export(receiver: Receiver, signal: str, payload: bytes) -> None:
    with grpc.insecure_channel(f"{HOST}:{receiver.port}") as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICES[signal]}/Export")
        assert call(payload, timeout=WAIT_SECONDS, wait_for_ready=True) == b""


def post(receiver: Receiver, path: str, payload: bytes, kind: str) -> tuple[int, bytes]:
    connection = HTTPConnection(HOST, receiver.http_port, timeout=WAIT_SECONDS)
    try:
        connection.request("POST", path, payload, {"Content-Type": kind})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def tritons_trace(number: int) -> bytes:
    """As Triton sends a request: JSON, three spans of kind SERVER, of which two have a parent."""
    trace = f"{number:032x}"
    names = (("InferRequest", "1", ""), ("tabular", "2", "1"), ("compute", "3", "2"))
    spans = [
        {"name": name, "kind": 2, "traceId": trace, "spanId": own * 16}
        | ({"parentSpanId": parent * 16} if parent else {})
        for name, own, parent in names
    ]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


def test_a_receiver_takes_the_same_over_http() -> None:
    with receiving() as receiver:
        for path, payload in (("/v1/traces", spans(0, 5)), ("/v1/metrics", metrics()), ("/v1/logs", logs())):
            assert post(receiver, path, payload, "application/x-protobuf") == (200, b"")
        export(receiver, "spans", spans(5, 2))
        assert post(receiver, "/v1/nothing", b"", "application/x-protobuf")[0] == 404

        report = receiver.report()

    assert (report.server_spans, report.data_points, report.log_records, report.exports) == (7, 3, 1, 4)


def test_of_tritons_json_only_the_span_without_a_parent_is_the_requests() -> None:
    with receiving() as receiver:
        for number in (1, 2, 2):
            assert post(receiver, "/v1/traces", tritons_trace(number), "application/json") == (200, b"{}")

        report = receiver.report()

    assert (report.server_spans, report.repeated_spans, report.other_spans) == (2, 1, 6)


def test_a_receiver_ends_though_a_client_keeps_its_connection() -> None:
    with receiving() as receiver:
        connection = HTTPConnection(HOST, receiver.http_port, timeout=WAIT_SECONDS)
        connection.request("POST", "/v1/traces", spans(0, 1), {"Content-Type": "application/x-protobuf"})
        connection.getresponse().read()

        assert receiver.report().server_spans == 1
        connection.close()


def test_a_receiver_counts_each_signal_and_ends_with_its_report() -> None:
    with receiving() as receiver:
        export(receiver, "spans", spans(0, 5))
        export(receiver, "spans", spans(5, 2, Span.SPAN_KIND_INTERNAL))
        export(receiver, "metrics", metrics())
        export(receiver, "logs", logs())
        assert receiver.cpu_seconds() > 0

        report = receiver.report()
        assert receiver.process.poll() == 0

    assert (report.server_spans, report.other_spans, report.repeated_spans) == (5, 2, 0)
    assert (report.data_points, report.log_records, report.exports) == (3, 1, 4)
    assert report.bytes == len(spans(0, 5)) + len(spans(5, 2, Span.SPAN_KIND_INTERNAL)) + len(metrics()) + len(logs())
    assert [count for _, count in report.arrivals] == [5, 0]
    assert report.between(0.0, report.arrivals[1][0]) == 5


def test_a_span_sent_again_counts_once() -> None:
    counter = Counter()
    for first in (0, 3):
        counter.take("spans", spans(first, 5))

    report = counter.report()

    assert (report["server_spans"], report["repeated_spans"]) == (8, 2)


def test_counts_do_not_depend_on_when_the_bytes_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    late, early = Counter(), Counter()
    for number in range(3):
        late.take("spans", spans(number * 4, 4))
    monkeypatch.setattr("bench.servers.otlp_receiver.MAX_KEPT_BYTES", 0)
    for number in range(3):
        early.take("spans", spans(number * 4, 4))

    assert early._kept == []
    late_report, early_report = late.report(), early.report()
    assert [count for _, count in late_report.pop("arrivals")] == [4, 4, 4]
    assert [count for _, count in early_report.pop("arrivals")] == [4, 4, 4]
    assert late_report == early_report


def test_a_receiver_left_without_a_report_is_gone() -> None:
    with receiving() as receiver:
        pass

    assert receiver.process.poll() is not None
