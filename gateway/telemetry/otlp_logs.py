"""Log events as OTLP: serialized ExportLogsServiceRequests, each small enough for any receiver."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from gateway.telemetry.conventions import SCHEMA_URL, SCOPE
from gateway.telemetry.events import LogEvent, Value
from gateway.telemetry.periodic_export import Payload
from gateway.version import VERSION

MAX_REQUEST_BYTES = 3_670_016  # 3.5 MiB: receivers take 4 MiB by default
MAX_RECORD_OVERHEAD_BYTES = 8  # the field's tag and length

SEVERITIES: tuple[tuple[int, int, str], ...] = (
    (logging.CRITICAL, 21, "FATAL"),
    (logging.ERROR, 17, "ERROR"),
    (logging.WARNING, 13, "WARN"),
    (logging.INFO, 9, "INFO"),
    (logging.DEBUG, 5, "DEBUG"),
    (0, 1, "TRACE"),
)
"""From this level of Python's logging on: the severity's number and text in OpenTelemetry's data model of logs."""


def severity(level: int) -> tuple[int, str]:
    return next((number, text) for least, number, text in SEVERITIES if level >= least or not least)


class LogsEncoder:
    """`resource`: a message or its bytes; it describes the process tree, and is the same for every request."""

    def __init__(self, resource: Resource | bytes) -> None:
        self._resource = Resource.FromString(resource) if isinstance(resource, bytes) else resource
        self._empty_bytes = self._request([]).ByteSize() + 16  # lengths grow by a few bytes with what they enclose

    def encode(self, events: Sequence[LogEvent]) -> list[Payload]:
        """All events in their order, in as few requests as MAX_REQUEST_BYTES allows."""
        return [Payload(self._request(records).SerializeToString(), len(records)) for records in self._parts(events)]

    def _parts(self, events: Sequence[LogEvent]) -> Iterator[list[LogRecord]]:
        records: list[LogRecord] = []
        size = self._empty_bytes
        for event in events:
            record = _record(event)
            length = record.ByteSize() + MAX_RECORD_OVERHEAD_BYTES
            if records and size + length > MAX_REQUEST_BYTES:
                yield records
                records, size = [], self._empty_bytes
            records.append(record)
            size += length
        if records:
            yield records

    def _request(self, records: Sequence[LogRecord]) -> ExportLogsServiceRequest:
        scope = ScopeLogs(
            scope=InstrumentationScope(name=SCOPE, version=VERSION), log_records=records, schema_url=SCHEMA_URL
        )
        resource_logs = ResourceLogs(resource=self._resource, scope_logs=[scope], schema_url=SCHEMA_URL)
        return ExportLogsServiceRequest(resource_logs=[resource_logs])


def _record(event: LogEvent) -> LogRecord:
    number, text = severity(event.level)
    return LogRecord(
        time_unix_nano=event.unix_ns,
        observed_time_unix_nano=event.observed_unix_ns,
        severity_number=number,  # type: ignore[arg-type]  # an enum's value
        severity_text=text,
        body=AnyValue(string_value=_valid(event.body)),
        attributes=[
            KeyValue(key=_valid(key), value=_any(value)) for key, value in event.attributes.items() if _says(value)
        ],
        trace_id=event.trace_id,
        span_id=event.span_id,
        flags=event.trace_flags & 0xFF,
        event_name=event.name,
    )


def _says(value: Value) -> bool:
    """False of an empty list: in OTLP it is an array without a field, on which some receivers fail."""
    return isinstance(value, str | int | float) or len(value) > 0


def _any(value: Value) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=_valid(value))
    return AnyValue(array_value=ArrayValue(values=[_any(item) for item in value]))


def _valid(text: str) -> str:
    """Without lone surrogates, which UTF-8 has no form for."""
    return text.encode("utf-8", "replace").decode()
