"""A client of the gateway that is traced by OpenTelemetry's own SDK, and what it knows of each of its requests."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import grpc
import numpy as np
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from support.answered_by import answered_by
from support.load import INFER, infer_request

from gateway.telemetry.conventions import INFER_METHOD
from gateway.wire.pb.inference import grpc_service_pb2 as pb

SERVICE = "shop"
CALL_SECONDS = 30.0
AT_ONCE = 64  # requests in flight, of those that are asked at once
OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as the client saw it. Ids, in hexadecimal digits, are those the response's metadata names.

    `parent_id`: of the client's own span, "" without one. `version` 0: no answer came. Times: Unix time in ns.
    """

    trace_id: str
    span_id: str
    parent_id: str
    sampled: bool
    request_id: str
    code: str
    version: int
    digest: str
    rows: int
    began_ns: int
    ended_ns: int


class TracedClient:
    """Its own spans go to `traces_url`, as OTLP over HTTP, when they end. Use as a context."""

    def __init__(self, address: str, traces_url: str, headers: Mapping[str, str]) -> None:
        self._channel = grpc.insecure_channel(address, options=OPTIONS)
        self._infer: Any = self._channel.unary_unary(
            INFER, pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
        )
        self._provider = TracerProvider(resource=Resource({"service.name": SERVICE}))
        exporter = OTLPSpanExporter(endpoint=traces_url, headers=dict(headers))
        self._provider.add_span_processor(SimpleSpanProcessor(exporter))
        self._unsampled = TracerProvider(sampler=ALWAYS_OFF)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._provider.shutdown()
        self._unsampled.shutdown()

    def ask(self, model: str, request_id: str, rows: int = 1, *, sampled: bool = True) -> Asked:
        """Within a client's span, whose context goes with the request."""
        provider = self._provider if sampled else self._unsampled
        span = provider.get_tracer(SERVICE).start_span(INFER_METHOD, kind=SpanKind.CLIENT)
        context: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(context, set_span_in_context(span))
        parent_id = span.get_span_context().span_id
        began = time.time_ns()
        call = self._infer.future(request(model, request_id, rows), metadata=(*context.items(),), timeout=CALL_SECONDS)
        asked = outcome(call, began, request_id, rows, f"{parent_id:016x}")
        span.end()
        return asked

    def ask_at_once(self, model: str, count: int) -> list[Asked]:
        """Without a context; AT_ONCE of them in flight."""
        waiting: list[tuple[Any, int, str]] = []
        asked: list[Asked] = []
        for number in range(count):
            began, name = time.time_ns(), f"n-{number}"
            waiting.append((self._infer.future(request(model, name, 1), timeout=CALL_SECONDS), began, name))
            if len(waiting) >= AT_ONCE:
                asked.append(outcome(*waiting.pop(0), 1, ""))
        return asked + [outcome(*call, 1, "") for call in waiting]


def request(model: str, request_id: str, rows: int) -> pb.ModelInferRequest:
    made = infer_request(model, np.zeros((rows, 4), np.float32))
    made.id = request_id
    return made


def outcome(call: Any, began_ns: int, request_id: str, rows: int, parent_id: str) -> Asked:
    """Waits for the call's end."""
    code: grpc.StatusCode = call.code()
    ended_ns = time.time_ns()
    metadata = {**dict(call.trailing_metadata()), **dict(call.initial_metadata())}
    _, trace_id, span_id, flags = metadata["traceparent"].split("-")
    version = int(call.result().model_version) if code is grpc.StatusCode.OK else 0
    return Asked(
        trace_id, span_id, parent_id, bool(int(flags, 16) & 1), request_id, code.name, version,
        answered_by(metadata).digest, rows, began_ns, ended_ns,
    )  # fmt: skip
