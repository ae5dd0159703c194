"""Warnings and errors of the process log, among the log events to be exported."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence

from gateway.logs import extra_fields
from gateway.telemetry.events import MAX_TEXT, EventLog, LogEvent, Value

log = logging.getLogger(__name__)

EXPORTERS = ("gateway.telemetry", "gateway.control.telemetry", "opentelemetry", "grpc", "requests", "urllib3")
"""Loggers of what exports, and of what it is built on: a failing export that reports itself would be exported without
end.

`gateway.telemetry.events` is one of them, so an event that is logged does not come twice.
"""
TRACE_ID, SPAN_ID = re.compile("[0-9a-f]{32}"), re.compile("[0-9a-f]{16}")


class LogForwarder(logging.Handler):
    """Add it to the root logger. `without`: loggers, with those below them, whose lines are not taken."""

    def __init__(self, events: EventLog, level: int = logging.WARNING, without: Sequence[str] = EXPORTERS) -> None:
        super().__init__(level)
        self._events = events
        self._without = tuple(f"{name}." for name in without)

    def emit(self, record: logging.LogRecord) -> None:
        if f"{record.name}.".startswith(self._without):
            return
        try:
            self._events.offer(as_event(record))
        except Exception:  # not `handleError`, which writes to standard error itself
            log.exception("a line of %s cannot be exported", record.name)


def as_event(record: logging.LogRecord) -> LogEvent:
    fields = extra_fields(record)
    trace_id, span_id = str(fields.pop("trace_id", "")), str(fields.pop("span_id", ""))
    tied = TRACE_ID.fullmatch(trace_id) is not None and SPAN_ID.fullmatch(span_id) is not None
    attributes: dict[str, Value] = {"driftgate.logger": record.name}
    if record.exc_info and record.exc_info[0] is not None:
        kind, error, _ = record.exc_info
        attributes["exception.type"] = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
        attributes["exception.message"] = str(error)
        attributes["exception.stacktrace"] = logging.Formatter().formatException(record.exc_info)[-MAX_TEXT:]
    for key, value in fields.items():
        attributes[key] = value if isinstance(value, str | bool | int | float) else str(value)
    return LogEvent(
        name="",
        level=record.levelno,
        body=record.getMessage(),
        attributes=attributes,
        unix_ns=int(record.created * 1e9),
        observed_unix_ns=time.time_ns(),
        trace_id=bytes.fromhex(trace_id) if tied else b"",
        span_id=bytes.fromhex(span_id) if tied else b"",
    )
