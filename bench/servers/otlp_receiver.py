"""Where telemetry goes: takes OTLP, by gRPC and by HTTP, as cheaply as Python can, and counts when it is told to end.

What arrives is kept as the bytes it came in, and parsed after the load, so that it costs the load core next to nothing
while the load runs: beyond MAX_KEPT_BYTES it is parsed on arrival, which costs about 4 µs a span.

Over HTTP it takes protobuf and JSON: OpenTelemetry's exporter for C++ sends JSON unless its program says otherwise.
Usage: python -m bench.servers.otlp_receiver; prints its ports as JSON, and when its standard input ends, its report.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from bench.servers import HOST, ONE_PROCESS

SERVICES = {
    "spans": "opentelemetry.proto.collector.trace.v1.TraceService",
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
}
HTTP_PATHS = {"/v1/traces": "spans", "/v1/metrics": "metrics", "/v1/logs": "logs"}
JSON_KINDS = {"SPAN_KIND_SERVER", Span.SPAN_KIND_SERVER}
"""How a SERVER span says so in JSON: enums are numbers by OTLP, and names by protobuf's own mapping."""

NOTHING_REJECTED = b""
"""An empty Export*ServiceResponse: everything was taken."""

NICE = 10  # it shares the load's core, and must not hold up the generator: that would count as latency of the server

THREADS = 4  # gateways have a few exports under way at once
MAX_KEPT_BYTES = 512 << 20


class Counter:
    """Thread-safe. A span of a request is of kind SERVER; the same one sent twice counts once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[tuple[int, str, bytes]] = []
        self._kept_bytes = 0
        self._seen: set[bytes] = set()
        self._arrivals: list[tuple[int, int]] = []
        self._counts = dict.fromkeys(("exports", "bytes", "server_spans", "repeated_spans", "other_spans"), 0)
        self._counts |= dict.fromkeys(("data_points", "log_records"), 0)

    def take(self, signal: str, payload: bytes) -> None:
        with self._lock:
            self._kept.append((time.monotonic_ns(), signal, payload))
            self._kept_bytes += len(payload)
            if self._kept_bytes > MAX_KEPT_BYTES:
                self._count()

    def report(self) -> dict[str, Any]:
        """Counts, and as `arrivals` the spans of requests that each export brought, by the monotonic clock in ns."""
        with self._lock:
            self._count()
            return {**self._counts, "arrivals": self._arrivals}

    def _count(self) -> None:
        for arrived_ns, signal, payload in self._kept:
            self._counts["exports"] += 1
            self._counts["bytes"] += len(payload)
            match signal:
                case "spans":
                    self._count_spans(arrived_ns, payload)
                case "metrics":
                    self._counts["data_points"] += data_points(ExportMetricsServiceRequest.FromString(payload))
                case _:
                    request = ExportLogsServiceRequest.FromString(payload)
                    self._counts["log_records"] += sum(
                        len(scope.log_records) for part in request.resource_logs for scope in part.scope_logs
                    )
        self._kept, self._kept_bytes = [], 0

    def _count_spans(self, arrived_ns: int, payload: bytes) -> None:
        of_all = ids_of_json if payload.startswith(b"{") else ids_of_protobuf
        ids, count = of_all(payload)
        before = len(self._seen)
        self._seen.update(ids)
        new = len(self._seen) - before
        self._arrivals.append((arrived_ns, new))
        self._counts["server_spans"] += new
        self._counts["repeated_spans"] += len(ids) - new
        self._counts["other_spans"] += count - len(ids)


def ids_of_protobuf(payload: bytes) -> tuple[list[bytes], int]:
    """Trace and span ids of the SERVER spans of an ExportTraceServiceRequest, and how many spans it has in all."""
    request = ExportTraceServiceRequest.FromString(payload)
    spans = [span for part in request.resource_spans for scope in part.scope_spans for span in scope.spans]
    return [span.trace_id + span.span_id for span in spans if span.kind == Span.SPAN_KIND_SERVER], len(spans)


def ids_of_json(payload: bytes) -> tuple[list[bytes], int]:
    """The same of one in JSON, whose ids are hexadecimal.

    Triton, which sends it, calls all that it does for a request SERVER: only what has no parent is the request's span.
    """
    parts = json.loads(payload).get("resourceSpans", [])
    spans = [span for part in parts for scope in part.get("scopeSpans", []) for span in scope.get("spans", [])]
    servers = [span for span in spans if span.get("kind") in JSON_KINDS and not span.get("parentSpanId")]
    return [bytes.fromhex(span["traceId"] + span["spanId"]) for span in servers], len(spans)


def data_points(request: ExportMetricsServiceRequest) -> int:
    metrics = [item for part in request.resource_metrics for scope in part.scope_metrics for item in scope.metrics]
    return sum(len(getattr(metric, kind).data_points) for metric in metrics if (kind := metric.WhichOneof("data")))


def make_handler(counter: Counter, signal: str, service: str) -> grpc.GenericRpcHandler:
    def export(payload: bytes, _context: object) -> bytes:
        counter.take(signal, payload)
        return NOTHING_REJECTED

    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(export)
    return grpc.method_handlers_generic_handler(service, {"Export": method})


def make_http_handler(counter: Counter) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # exporters keep their connection
        disable_nagle_algorithm = True  # else the answer's body waits for the client to acknowledge its head

        def do_POST(self) -> None:
            payload = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kind = self.headers.get("Content-Type", "application/x-protobuf")
            if (signal := HTTP_PATHS.get(self.path)) is None:
                self._answer(HTTPStatus.NOT_FOUND, kind, b"")
                return
            counter.take(signal, payload)
            self._answer(HTTPStatus.OK, kind, b"{}" if kind.startswith("application/json") else NOTHING_REJECTED)

        def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class HttpServer(ThreadingHTTPServer):
    daemon_threads = True  # a connection that the exporter keeps open must not keep this process


def main() -> None:
    os.nice(NICE)
    counter = Counter()
    web = HttpServer((HOST, 0), make_http_handler(counter))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    server = grpc.server(ThreadPoolExecutor(THREADS), options=(*ONE_PROCESS, ("grpc.max_receive_message_length", -1)))
    server.add_generic_rpc_handlers([make_handler(counter, *item) for item in SERVICES.items()])
    port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    print(json.dumps({"port": port, "http_port": web.server_port}), flush=True)
    sys.stdin.read()
    web.shutdown()
    web.server_close()
    server.stop(None).wait()
    print(json.dumps(counter.report()), flush=True)


if __name__ == "__main__":
    main()
