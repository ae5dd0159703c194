"""Received spans as plain values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

SERVER = 2
RUN = "driftgate.run"
DURATIONS = tuple(f"driftgate.{part}.duration" for part in ("decode", "queue", "input", "run", "output"))


@dataclass(frozen=True, slots=True)
class Span:
    """Ids are hexadecimal; `links` are span ids."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    is_error: bool
    flags: int
    trace_state: str
    attributes: dict[str, Any]
    links: tuple[str, ...]
    dropped_links: int

    @property
    def code(self) -> str:
        return str(self.attributes["rpc.response.status_code"])

    @property
    def seconds(self) -> list[float]:
        """The parts of the request's time, of one that ran."""
        return [self.attributes[key] for key in DURATIONS]


def taken_apart(received: Any) -> Span:
    """`received`: opentelemetry.proto.trace.v1.Span. An attribute that is there twice fails."""
    attributes = {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in received.attributes}
    assert len(attributes) == len(received.attributes), [item.key for item in received.attributes]
    return Span(
        name=received.name,
        kind=received.kind,
        trace_id=received.trace_id.hex(),
        span_id=received.span_id.hex(),
        parent_id=received.parent_span_id.hex(),
        start_ns=received.start_time_unix_nano,
        end_ns=received.end_time_unix_nano,
        is_error=received.status.code == received.status.STATUS_CODE_ERROR,
        flags=received.flags,
        trace_state=received.trace_state,
        attributes=attributes,
        links=tuple(link.span_id.hex() for link in received.links),
        dropped_links=received.dropped_links_count,
    )


def requests_and_runs(received: Iterable[Any]) -> tuple[list[Span], list[Span]]:
    """Spans of requests, spans of runs; there are no others."""
    spans = [taken_apart(span) for span in received]
    requests = [span for span in spans if span.kind == SERVER]
    runs = [span for span in spans if span.name == RUN]
    assert len(requests) + len(runs) == len(spans)
    return requests, runs
