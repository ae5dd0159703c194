"""Lost telemetry becomes few events; what is lost of the events themselves is only logged."""

from __future__ import annotations

import logging

import pytest

from gateway.telemetry.events import EventLog
from gateway.telemetry.losses import QUIET_SECONDS, LossSummary

SPANS, LOGS = ("spans", "their export failed"), ("logs", "too many waited for export")


def test_lost_log_events_make_no_further_ones(caplog: pytest.LogCaptureFixture) -> None:
    """The queue is full: an event that told of it would be the next to be lost, every time, without end."""
    lost = dict.fromkeys((SPANS, LOGS), 0)

    def lose() -> None:
        lost[LOGS] += 1

    events = EventLog(1, lose)
    summary = LossSummary(lost, 0.0)
    lost |= {SPANS: 1, LOGS: 1}
    told = []
    with caplog.at_level(logging.WARNING):
        for turn in range(1, 10):
            summary.tell(lost, turn * QUIET_SECONDS, events)
            told.append(lost[LOGS])
    assert told == [1] * 9
    assert [record.__dict__["driftgate.telemetry.signal"] for record in caplog.records] == ["spans", "logs"]
    assert events.waiting == 1


def test_a_loss_is_told_with_its_count_and_at_most_once_in_the_quiet_time() -> None:
    events, lost = EventLog(), {SPANS: 5}
    summary = LossSummary(lost, 0.0)
    for now, count in ((1.0, 5), (2.0, 8), (3.0, 9), (12.5, 9), (13.0, 9)):
        summary.tell({SPANS: count}, now, events)
    found = events.take(9)
    assert [event.attributes["driftgate.event.count"] for event in found] == [3, 1]
    assert found[0].body == "telemetry was lost: 3 of spans in 1.0 s, since their export failed"
