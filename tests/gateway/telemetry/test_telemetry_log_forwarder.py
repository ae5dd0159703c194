"""Warnings of the process log are exported too, except those of what exports."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from gateway.logs import trace_fields
from gateway.telemetry.events import CHANGE_REFUSED, EventLog
from gateway.telemetry.log_forwarder import LogForwarder

TRACE, SPAN = bytes(range(1, 17)), bytes(range(1, 9))


@pytest.fixture
def events() -> Iterator[EventLog]:
    made = EventLog()
    handler = LogForwarder(made)
    logging.getLogger().addHandler(handler)
    yield made
    logging.getLogger().removeHandler(handler)


def test_warnings_and_worse_become_records_without_a_name(events: EventLog) -> None:
    log = logging.getLogger("gateway.control.changes")
    log.setLevel(logging.INFO)
    log.info("unseen")
    log.warning("%d are late", 3, extra={"model": "m", "rows": 3, "other": {"a": 1}})
    (event,) = events.take(10)
    assert (event.name, event.level, event.body) == ("", logging.WARNING, "3 are late")
    assert event.attributes == {
        "driftgate.logger": "gateway.control.changes", "model": "m", "rows": 3, "other": "{'a': 1}",
    }  # fmt: skip
    assert abs(event.observed_unix_ns - event.unix_ns) < 10_000_000_000


def test_a_record_of_a_request_is_tied_to_its_trace(events: EventLog) -> None:
    log = logging.getLogger("gateway.control")
    log.warning("tied", extra=trace_fields(TRACE, SPAN))
    log.warning("not tied", extra={"trace_id": "none of mine", "span_id": 7})
    tied, other = events.take(10)
    assert (tied.trace_id, tied.span_id) == (TRACE, SPAN)
    assert (other.trace_id, other.span_id) == (b"", b"")
    assert not {"trace_id", "span_id"} & {*tied.attributes, *other.attributes}


def test_an_exception_comes_with_its_trace_back(events: EventLog) -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        logging.getLogger("gateway.control").exception("failed")
    (event,) = events.take(10)
    assert (event.level, event.body) == (logging.ERROR, "failed")
    assert (event.attributes["exception.type"], event.attributes["exception.message"]) == ("ValueError", "bad")
    assert str(event.attributes["exception.stacktrace"]).endswith("ValueError: bad")


@pytest.mark.parametrize(
    "logger",
    [
        "gateway.telemetry",
        "gateway.telemetry.otlp.client",
        "gateway.control.telemetry",
        "opentelemetry.sdk",
        "urllib3.connectionpool",
        "requests",
        "grpc._common",
    ],
)
def test_what_exports_does_not_export_its_own_warnings(events: EventLog, logger: str) -> None:
    logging.getLogger(logger).error("export failed")
    assert events.waiting == 0


def test_loggers_with_alike_names_are_taken(events: EventLog) -> None:
    logging.getLogger("gateway.telemetrys").error("mine")
    assert events.waiting == 1


def test_an_event_that_is_logged_does_not_come_twice(events: EventLog) -> None:
    events.emit(CHANGE_REFUSED, action="load", model="m", actor="olga", outcome="refused", error="no")
    assert [event.name for event in events.take(10)] == ["driftgate.change.refused"]


def test_a_record_that_cannot_be_taken_harms_nobody(events: EventLog, caplog: pytest.LogCaptureFixture) -> None:
    class Silent:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    log = logging.getLogger("gateway.control")
    log.propagate, handlers = False, log.handlers[:]
    log.addHandler(LogForwarder(events))
    try:
        log.warning("odd", extra={"odd": Silent()})
    finally:
        log.handlers[:], log.propagate = handlers, True
    assert events.waiting == 0
    assert "a line of gateway.control cannot be exported" in caplog.text
    assert "no text" in caplog.text
