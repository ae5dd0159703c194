"""Names that spans, metrics and log events carry: each key once, with what it says. The reference is generated.

Keys without `driftgate.` are OpenTelemetry's semantic conventions, of the version in SCHEMA_URL.
"""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
SCOPE = "driftgate"

SPAN, RUN_SPAN, METRIC, EVENT = "span", "run span", "metric", "event"


@dataclass(frozen=True, slots=True)
class Attribute:
    """`kind`: string, int, double, bool. `on`: which of SPAN, RUN_SPAN, METRIC and EVENT can carry it."""

    key: str
    kind: str
    on: tuple[str, ...]
    text: str


ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("rpc.system.name", "string", (SPAN, METRIC), "Always grpc."),
    Attribute("rpc.method", "string", (SPAN,), "Service and method, without a leading slash."),
    Attribute("rpc.response.status_code", "string", (SPAN, METRIC, EVENT), "The gRPC code: OK, NOT_FOUND, ..."),
    Attribute("error.type", "string", (SPAN, METRIC), "The code if it is the server's fault; why an export failed."),
    Attribute("network.peer.address", "string", (SPAN,), "The client's address."),
    Attribute("network.peer.port", "int", (SPAN,), "The client's port."),
    Attribute("server.address", "string", (SPAN,), "The host the client called, from :authority."),
    Attribute("server.port", "int", (SPAN,), "The port the client called, where :authority names one."),
    Attribute("driftgate.model.name", "string", (SPAN, RUN_SPAN, METRIC, EVENT), "The model."),
    Attribute("driftgate.model.version", "int", (SPAN, RUN_SPAN, METRIC, EVENT), "The version."),
    Attribute("driftgate.model.digest", "string", (SPAN, RUN_SPAN, EVENT), "SHA-256 of that version's files."),
    Attribute(
        "driftgate.route.variant", "string", (SPAN, METRIC), "The route's arm: default, pinned, a label, a variant."
    ),
    Attribute(
        "driftgate.route.reason", "string", (SPAN,), "What chose it: default, label, version, rule, sticky, drawn."
    ),
    Attribute("driftgate.refusal.reason", "string", (SPAN, METRIC, EVENT), "Why it was refused: ErrorInfo.reason."),
    Attribute("driftgate.request.id", "string", (SPAN,), "The request's id, as the client gave it; cut at 64 bytes."),
    Attribute("driftgate.request.model", "string", (SPAN,), "The model that was asked for, where there is none such."),
    Attribute("driftgate.refusal.message", "string", (SPAN,), "What the client was told, as far as there is room."),
    Attribute("driftgate.request.rows", "int", (SPAN,), "Rows of the request."),
    Attribute("driftgate.request.size", "int", (SPAN,), "Bytes of the request message."),
    Attribute("driftgate.response.size", "int", (SPAN,), "Bytes of the response message."),
    Attribute("driftgate.batch.rows", "int", (SPAN, RUN_SPAN), "Rows of the run that answered."),
    Attribute("driftgate.batch.requests", "int", (SPAN, RUN_SPAN), "Requests of that run."),
    Attribute("driftgate.decode.duration", "double", (SPAN,), "Seconds from received to decoded."),
    Attribute("driftgate.queue.duration", "double", (SPAN,), "Seconds from decoded to the start of the run."),
    Attribute("driftgate.input.duration", "double", (SPAN, RUN_SPAN), "Seconds of putting the run's inputs together."),
    Attribute("driftgate.run.duration", "double", (SPAN, RUN_SPAN), "Seconds inside ONNX Runtime."),
    Attribute("driftgate.output.duration", "double", (SPAN,), "Seconds from the run's end to the reply."),
    Attribute("driftgate.drift.subject", "string", (METRIC, EVENT), "What has drifted: a feature, an output, ..."),
    Attribute("driftgate.drift.role", "string", (METRIC, EVENT), "feature, output, service, projection or joint."),
    Attribute(
        "driftgate.drift.aspect", "string", (METRIC, EVENT), "What of it: distribution, missing, correlation, ..."
    ),
    Attribute("driftgate.drift.measure", "string", (METRIC, EVENT), "PSI, KS, Wasserstein distance, ..."),
    Attribute("driftgate.rollout.phase", "string", (METRIC, EVENT), "draft, shadow, canary, on hold, live, ..."),
    Attribute("driftgate.worker", "int", (SPAN, RUN_SPAN, EVENT), "The worker's number."),
)

# gRPC codes, by number.
CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip

SERVER_ERRORS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Codes that set a server span's status to ERROR (semantic conventions for RPC spans)."""

INFER_METHOD = "inference.GRPCInferenceService/ModelInfer"
STREAM_METHOD = "inference.GRPCInferenceService/ModelStreamInfer"
RUN_SPAN_NAME = "driftgate.run"
