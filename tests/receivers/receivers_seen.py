"""What a backend shows of spans, metrics and log events, in one form for all of them.

All of them show OTLP's JSON or something near to it: 64-bit integers as numbers, as text or as {low, high}; attributes
as a list of typed values or as an object; kinds by number or by name; field names in camel or in snake case.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.telemetry.conventions import ATTRIBUTES

INTEGERS = {attribute.key for attribute in ATTRIBUTES if attribute.kind == "int"}
KINDS = ("", "internal", "server", "client", "producer", "consumer")
STATUSES = ("unset", "ok", "error")
OF_BACKENDS = ("mlflow.", "otel.scope.")  # attributes that backends add

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SeenSpan:
    """Ids are hexadecimal digits, "" for none; `links` are the ids of spans; `kind` is "" where none is kept."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    began_ns: int
    ended_ns: int
    status: str
    attributes: dict[str, Any]
    links: frozenset[tuple[str, str]] = field(default_factory=frozenset)
    service: str = ""


def spans_of(documents: Iterable[Json]) -> list[SeenSpan]:
    """Of ExportTraceServiceRequests."""
    return [
        span_of(span, attributes_of(resource["resource"].get("attributes", ())))
        for document in documents
        for resource in document.get("resourceSpans", ())
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def span_of(span: Json, resource: Json) -> SeenSpan:
    found = attributes_of(_get(span, "attributes") or ())
    return SeenSpan(
        trace_id=hex_id(_get(span, "traceId")),
        span_id=hex_id(_get(span, "spanId")),
        parent_id=hex_id(_get(span, "parentSpanId") or ""),
        name=span["name"],
        kind=_named(span.get("kind", 0), KINDS),
        began_ns=whole(_get(span, "startTimeUnixNano")),
        ended_ns=whole(_get(span, "endTimeUnixNano")),
        status=_named((span.get("status") or {}).get("code", 0), STATUSES),
        attributes={key: value for key, value in found.items() if not key.startswith(OF_BACKENDS)},
        links=frozenset(
            (hex_id(_get(link, "traceId")), hex_id(_get(link, "spanId"))) for link in span.get("links", ())
        ),
        service=resource.get("service.name", ""),
    )


def points_of(documents: Iterable[Json], metric: str) -> list[dict[str, Any]]:
    """The metric's data points in the last document that has it; `attributes` as an object."""
    points: list[dict[str, Any]] = []
    for document in documents:
        for resource in document.get("resourceMetrics", ()):
            for found in (found for scope in resource["scopeMetrics"] for found in scope["metrics"]):
                if found["name"] == metric:
                    (data,) = (value for value in found.values() if isinstance(value, dict) and "dataPoints" in value)
                    points = [
                        {**point, "attributes": attributes_of(point.get("attributes", ()))}
                        for point in data["dataPoints"]
                    ]
    return points


def events_of(documents: Iterable[Json]) -> list[dict[str, Any]]:
    """Log records: `name`, `severity`, `text`, `attributes`."""
    return [
        {
            "name": record.get("eventName", ""),
            "severity": _named(record["severityNumber"], ()),
            "text": _value(record["body"]),
            "attributes": attributes_of(record.get("attributes", ())),
        }
        for document in documents
        for resource in document.get("resourceLogs", ())
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
    ]


def attributes_of(found: Any) -> dict[str, Any]:
    """Of a list of typed values, or of an object."""
    values = found if isinstance(found, Mapping) else {item["key"]: _value(item["value"]) for item in found}
    return {key: int(value) if key in INTEGERS else value for key, value in values.items()}


def hex_id(value: str) -> str:
    """Of digits, or of base64: 8 or 16 bytes."""
    return value if len(value) in {0, 16, 32} else base64.b64decode(value).hex()


def whole(value: Any) -> int:
    """Of a number, of its text, or of its halves."""
    if isinstance(value, Mapping):
        return (int(value["high"]) & 0xFFFFFFFF) << 32 | int(value["low"]) & 0xFFFFFFFF
    return int(value)


def _get(found: Json, name: str) -> Any:
    """By a name in camel case, or the same in snake case."""
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    return found.get(name, found.get(snake))


def _value(value: Any) -> Any:
    """Of an AnyValue; anything else is the value."""
    if not isinstance(value, Mapping):
        return value
    if not value:
        return None
    ((kind, inner),) = value.items()
    match kind.replace("_", "").lower():
        case "intvalue":
            return whole(inner)
        case "doublevalue":
            return float(inner)
        case "arrayvalue":
            return [_value(item) for item in inner["values"]]
        case _:
            return inner


def _named(value: Any, names: tuple[str, ...]) -> Any:
    """`names[value]`; of an enum's name, its last word."""
    if isinstance(value, str):
        return value.rsplit("_", 1)[1].lower()
    return names[value] if names else value
