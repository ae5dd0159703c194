"""Log events as OTLP, decoded with OpenTelemetry's own messages."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from gateway.telemetry.conventions import SCHEMA_URL
from gateway.telemetry.events import MAX_WAITING, WORKER_DIED, EventLog, LogEvent, Value
from gateway.telemetry.otlp_logs import MAX_REQUEST_BYTES, LogsEncoder
from gateway.version import VERSION

RESOURCE = Resource(attributes=[KeyValue(key="service.name", value=AnyValue(string_value="driftgate"))])
TRACE, SPAN = bytes(range(1, 17)), bytes(range(1, 9))
texts = st.text(max_size=50)
values: st.SearchStrategy[Value] = st.one_of(
    texts,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(texts, min_size=1, max_size=5),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5),
)


def decoded(payload: bytes) -> ScopeLogs:
    request = ExportLogsServiceRequest.FromString(payload)
    (resource_logs,) = request.resource_logs
    assert resource_logs.resource == RESOURCE
    assert resource_logs.schema_url == SCHEMA_URL
    (scope,) = resource_logs.scope_logs
    assert (scope.scope.name, scope.scope.version, scope.schema_url) == ("driftgate", VERSION, SCHEMA_URL)
    return scope


def records(*events: LogEvent, resource: Resource | bytes = RESOURCE) -> list[LogRecord]:
    payloads = LogsEncoder(resource).encode(events)
    found = [record for payload in payloads for record in decoded(payload.data).log_records]
    assert [payload.items for payload in payloads] == [len(decoded(p.data).log_records) for p in payloads]
    return found


def plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    return getattr(value, str(kind))


@pytest.mark.parametrize("resource", [RESOURCE, RESOURCE.SerializeToString()], ids=["message", "bytes"])
def test_an_event_has_its_name_time_severity_body_and_attributes(resource: Resource | bytes) -> None:
    events = EventLog()
    events.emit(WORKER_DIED, worker=1, pid=77)
    (event,) = events.take(1)
    (record,) = records(event, resource=resource)
    assert record.event_name == "driftgate.worker.died"
    assert (record.severity_number, record.severity_text) == (17, "ERROR")
    assert record.body.string_value == "worker 1 (pid 77) ended unexpectedly"
    assert {item.key: plain(item.value) for item in record.attributes} == {"driftgate.worker": 1, "process.pid": 77}
    assert record.time_unix_nano == record.observed_time_unix_nano == event.unix_ns
    assert (record.trace_id, record.span_id, record.flags) == (b"", b"", 0)


def test_a_record_of_a_request_has_its_ids_and_flags() -> None:
    event = LogEvent("", logging.WARNING, "slow", trace_id=TRACE, span_id=SPAN, trace_flags=0x101, observed_unix_ns=5)
    (record,) = records(event)
    assert (record.trace_id, record.span_id, record.flags) == (TRACE, SPAN, 1)
    assert (record.event_name, record.observed_time_unix_nano) == ("", 5)


@pytest.mark.parametrize(
    ("level", "number", "text"),
    [(10, 5, "DEBUG"), (20, 9, "INFO"), (25, 9, "INFO"), (30, 13, "WARN"), (40, 17, "ERROR"), (50, 21, "FATAL"),
     (99, 21, "FATAL"), (5, 1, "TRACE"), (-1, 1, "TRACE")],
)  # fmt: skip
def test_levels_become_severities(level: int, number: int, text: str) -> None:
    (record,) = records(LogEvent("", level, "x"))
    assert (record.severity_number, record.severity_text) == (number, text)


@given(texts, st.dictionaries(texts, values, max_size=8))
def test_any_body_and_attributes_come_through(body: str, attributes: dict[str, Value]) -> None:
    def valid(value: Any) -> Any:
        if isinstance(value, list):
            return [valid(item) for item in value]
        return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value

    events = EventLog()
    events.offer(LogEvent("n", logging.INFO, body, attributes))
    (record,) = records(*events.take(1))
    assert record.body.string_value == valid(body)
    assert [(item.key, plain(item.value)) for item in record.attributes] == [
        (valid(key), valid(value)) for key, value in attributes.items()
    ]
    assert [type(plain(item.value)) for item in record.attributes] == [type(value) for value in attributes.values()]


def test_an_attribute_that_is_an_empty_list_is_left_out() -> None:
    (record,) = records(LogEvent("n", logging.INFO, "x", {"served": [], "before": [1], "text": ""}))
    assert {item.key: plain(item.value) for item in record.attributes} == {"before": [1], "text": ""}


def test_nothing_is_encoded_of_nothing() -> None:
    assert LogsEncoder(RESOURCE).encode([]) == []


def test_a_full_log_of_the_largest_events_stays_within_the_size_of_a_request() -> None:
    huge = "\U0001f300" * 5000
    attributes: dict[str, Value] = {f"{number}{huge}": [huge] * 200 for number in range(40)}
    events = EventLog()
    for number in range(12):
        events.offer(LogEvent("", logging.INFO, f"{number}{huge}", attributes))
    payloads = LogsEncoder(RESOURCE).encode(events.take(12))
    assert max(len(payload.data) for payload in payloads) <= MAX_REQUEST_BYTES
    assert sum(payload.items for payload in payloads) == 12
    bodies = [record.body.string_value for payload in payloads for record in decoded(payload.data).log_records]
    assert [body.rstrip("\U0001f300") for body in bodies] == [str(number) for number in range(12)], "in their order"


def test_requests_are_filled_before_another_is_begun() -> None:
    text = "x" * 4000
    events = [LogEvent("", logging.INFO, text) for _ in range(MAX_WAITING)]
    payloads = LogsEncoder(RESOURCE).encode(events)
    assert len(payloads) == 3
    assert all(len(payload.data) > 0.99 * MAX_REQUEST_BYTES for payload in payloads[:-1])
