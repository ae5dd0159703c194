"""Refused requests become few events, whose counts add up."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from gateway.telemetry.events import EventLog
from gateway.telemetry.refusals import QUIET_SECONDS, ChangeRefusals, RefusalSummary
from gateway.throttle import BURST, WINDOW_SECONDS
from runtime.shm.series import OVERFLOW_REFUSED, Series, SeriesKey
from runtime.shm.series_layout import COUNTERS

NOTHING = np.zeros(1, np.uint64)
OVERLOADED, UNKNOWN = ("m", 8, "OVERLOADED"), ("", 5, "NOT_FOUND")


def series(model: str, code: int, reason: str, count: int, *, version: int = 1, variant: str = "default") -> Series:
    counters = dict.fromkeys(COUNTERS, 0) | {"requests": count}
    return Series(SeriesKey(model, version, variant, code, reason), counters, *[NOTHING] * 5)


def told(summary: RefusalSummary, totals: Sequence[Series], now: float) -> list[tuple[object, ...]]:
    """(model, code, reason, count, seconds) of the events."""
    events = EventLog()
    summary.tell(totals, now, events)
    keys = (
        "driftgate.model.name", "rpc.response.status_code", "driftgate.refusal.reason",
        "driftgate.event.count", "driftgate.event.window",
    )  # fmt: skip
    return [tuple(event.attributes.get(key) for key in keys) for event in events.take(100)]


def test_what_was_counted_before_is_not_told() -> None:
    totals = [series(*OVERLOADED, 7)]
    summary = RefusalSummary(totals, 0.0)
    assert told(summary, totals, 1.0) == []


def test_versions_and_variants_of_one_reason_are_one_event() -> None:
    summary = RefusalSummary([], 0.0)
    totals = [series(*OVERLOADED, 2), series(*OVERLOADED, 3, version=2), series(*OVERLOADED, 4, variant="canary")]
    assert told(summary, totals, 1.5) == [("m", "RESOURCE_EXHAUSTED", "OVERLOADED", 9, 1.5)]


def test_answered_requests_are_not_told() -> None:
    assert told(RefusalSummary([], 0.0), [series("m", 0, "", 5)], 1.0) == []


def test_refusals_that_found_no_room_are_told_too() -> None:
    """Without a model or a reason: those are what found no room."""
    key = OVERFLOW_REFUSED
    totals = [series(key.model, key.code, key.reason, 50, version=key.version, variant=key.variant)]
    assert told(RefusalSummary([], 0.0), totals, 1.0) == [(None, "UNKNOWN", None, 50, 1.0)]


def test_a_key_is_told_at_most_once_in_its_quiet_time_and_nothing_is_lost() -> None:
    summary = RefusalSummary([], 0.0)
    count, found = 0, []
    for second in range(1, 60):
        count += 10
        found += told(summary, [series(*OVERLOADED, count)], float(second))
    assert len(found) == 6
    assert [window for *_, window in found] == [1.0] + [QUIET_SECONDS] * 5
    assert sum(int(str(told_count)) for *_, told_count, _ in found) == 510, "all until the last event, at second 51"


def test_keys_do_not_silence_each_other() -> None:
    summary = RefusalSummary([], 0.0)
    assert len(told(summary, [series(*OVERLOADED, 1)], 1.0)) == 1
    assert told(summary, [series(*OVERLOADED, 2), series(*UNKNOWN, 4, version=0, variant="")], 2.0) == [
        (None, "NOT_FOUND", "NOT_FOUND", 4, 1.0)
    ]


def test_after_a_pause_the_window_is_the_time_since_the_last_look() -> None:
    summary = RefusalSummary([], 0.0)
    told(summary, [series(*OVERLOADED, 1)], 1.0)
    for second in (20.0, 40.0):
        assert told(summary, [series(*OVERLOADED, 1)], second) == []
    assert told(summary, [series(*OVERLOADED, 3)], 41.0) == [("m", "RESOURCE_EXHAUSTED", "OVERLOADED", 2, 1.0)]


def test_the_last_look_tells_what_would_have_waited() -> None:
    summary, events = RefusalSummary([], 0.0), EventLog()
    told(summary, [series(*OVERLOADED, 1)], 1.0)
    summary.tell([series(*OVERLOADED, 3)], 2.0, events, is_last=True)
    summary.tell([series(*OVERLOADED, 3)], 2.5, events, is_last=True)
    (event,) = events.take(9)
    assert event.attributes["driftgate.event.count"] == 2


def test_the_event_is_a_warning() -> None:
    events = EventLog()
    RefusalSummary([], 0.0).tell([series(*UNKNOWN, 4)], 2.0, events)
    (event,) = events.take(1)
    assert event.level == logging.WARNING
    assert event.body == "4 requests to model none got NOT_FOUND (NOT_FOUND) in 2.0 s"


def refuse(refusals: ChangeRefusals, now: float, actor: str, count: int) -> None:
    for number in range(count):
        refusals.add(now, actor=actor, action="load", model=f"m-{number}", outcome="refused", error="no")


def test_the_first_refused_changes_of_an_actor_are_told_each_and_the_rest_together() -> None:
    """Whatever they ask for: anyone may invent names of models."""
    events = EventLog()
    refusals = ChangeRefusals(events)
    refuse(refusals, 0.0, "client", 200)
    refuse(refusals, 1.0, "olga", 1)
    refusals.tell(2.0)
    assert [event.name for event in events.take(999)] == ["driftgate.change.refused"] * (BURST + 1)
    refusals.tell(WINDOW_SECONDS)
    (event,) = events.take(9)
    assert event.name == "driftgate.changes.refused"
    assert event.body == "190 more changes by client were refused or failed in 10.0 s; the audit has each"


def test_refused_changes_are_all_told_of_whenever_the_next_ones_come_and_at_the_end() -> None:
    events = EventLog()
    refusals = ChangeRefusals(events)
    refuse(refusals, 0.0, "client", BURST + 7)
    refuse(refusals, 3 * WINDOW_SECONDS, "client", BURST + 2)
    refusals.tell(3 * WINDOW_SECONDS, is_last=True)
    found = events.take(999)
    told = [event.attributes["driftgate.event.count"] for event in found if event.name == "driftgate.changes.refused"]
    assert told == [7, 2]
    assert len(found) == 2 * BURST + 2
