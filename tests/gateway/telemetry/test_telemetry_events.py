"""The catalogue of log events, and the log that holds them until they are exported."""

from __future__ import annotations

import logging
import string
import threading
import time

import pytest

from gateway.telemetry.events import (
    CATALOGUE,
    CHANGE_REFUSED,
    FIELDS,
    MAX_ATTRIBUTES,
    MAX_ITEM_TEXT,
    MAX_ITEMS,
    MAX_TEXT,
    MAX_WAITING,
    VERSION_SWAPPED,
    WORKER_DIED,
    EventKind,
    EventLog,
    LogEvent,
    Value,
)

SAMPLES: dict[str, Value] = {"string": "x", "int": 1, "double": 0.5, "string[]": ["x"], "int[]": [1]}
REFUSED = {"action": "load", "model": "m\x1b", "actor": "olga", "outcome": "refused", "error": "no"}


@pytest.mark.parametrize("kind", CATALOGUE, ids=lambda kind: kind.name)
def test_every_event_can_be_emitted_with_just_its_fields(kind: EventKind) -> None:
    fields = {name: SAMPLES[FIELDS[name].kind] for name in kind.fields}
    events = EventLog()
    events.emit(kind, **fields)
    (event,) = events.take(10)
    assert (event.name, event.level) == (kind.name, kind.level)
    assert event.attributes == {FIELDS[name].key: value for name, value in fields.items()}
    assert "{" not in event.body
    with pytest.raises(TypeError, match=kind.name):
        events.emit(kind, **dict(list(fields.items())[1:]))
    with pytest.raises(TypeError, match="unknown"):
        events.emit(kind, **fields, unknown=1)
    assert events.waiting == 0


def test_names_are_unique_and_static_and_bodies_use_declared_fields() -> None:
    names = [kind.name for kind in CATALOGUE]
    assert len(set(names)) == len(names)
    assert all(name.startswith("driftgate.") for name in names)
    for kind in CATALOGUE:
        used = {field for _, field, _, _ in string.Formatter().parse(kind.body) if field}
        assert used <= set(kind.fields), kind.name
    assert set(FIELDS) == {name for kind in CATALOGUE for name in kind.fields}, "no field is left over"
    keys = [attribute.key for attribute in FIELDS.values()]
    assert len(set(keys)) == len(keys)


def test_what_does_not_apply_is_no_attribute() -> None:
    events = EventLog()
    events.emit(
        VERSION_SWAPPED, model="m", versions=[1, 2], versions_before=[], default=2, default_before=None,
        action="load", actor="olga", audit=7, seconds=0.25,
    )  # fmt: skip
    (event,) = events.take(1)
    assert event.body == "'m' is served by 1, 2 (before: none), by default 2 (before: none)"
    assert "driftgate.route.previous.default" not in event.attributes
    assert event.attributes["driftgate.route.previous.versions"] == []


def test_an_event_is_logged_once_with_its_attributes(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        before = time.time_ns()
        events = EventLog()
        events.emit(CHANGE_REFUSED, **REFUSED)
        after = time.time_ns()
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.WARNING, "load 'm\\x1b' by olga refused: no")
    assert (record.event_name, record.__dict__["driftgate.change.actor"]) == ("driftgate.change.refused", "olga")
    (event,) = events.take(1)
    assert before <= event.unix_ns == event.observed_unix_ns <= after
    assert (event.trace_id, event.span_id) == (b"", b"")


def test_an_event_that_another_line_of_the_log_tells_is_not_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        EventLog().emit(WORKER_DIED, worker=0, pid=7)
    assert caplog.records == []


def test_events_are_taken_oldest_first_and_once() -> None:
    events = EventLog()
    for pid in range(5):
        events.emit(WORKER_DIED, worker=0, pid=pid)
    assert [event.attributes["process.pid"] for event in events.take(3)] == [0, 1, 2]
    assert [event.attributes["process.pid"] for event in events.take(9)] == [3, 4]
    assert events.take(9) == []


def test_a_full_log_drops_what_comes_and_counts_it() -> None:
    lost: list[None] = []
    events = EventLog(on_drop=lambda: lost.append(None))
    taken = [events.offer(LogEvent("", logging.INFO, str(number))) for number in range(MAX_WAITING + 3)]
    assert taken == [True] * MAX_WAITING + [False] * 3
    assert (events.waiting, events.capacity, len(lost)) == (MAX_WAITING, MAX_WAITING, 3)
    assert events.take(1)[0].body == "0"
    assert events.offer(LogEvent("", logging.INFO, "room again"))


def test_a_log_that_nobody_exports_keeps_nothing_and_misses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    lost: list[None] = []
    events = EventLog(0, lambda: lost.append(None))
    events.emit(CHANGE_REFUSED, **REFUSED)
    assert (events.waiting, events.take(1), lost) == (0, [], [])
    assert len(caplog.records) == 1, "it is logged all the same"


def test_threads_lose_no_event() -> None:
    lost: list[None] = []
    events = EventLog(on_drop=lambda: lost.append(None))
    taken: list[LogEvent] = []
    done = threading.Event()

    def take() -> None:
        while not done.is_set() or events.waiting:
            taken.extend(events.take(7))

    taker = threading.Thread(target=take)
    writers = [
        threading.Thread(target=lambda: [events.emit(WORKER_DIED, worker=0, pid=n) for n in range(500)])
        for _ in range(4)
    ]
    for thread in (taker, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    taker.join()
    assert len(taken) + len(lost) == 2000


def test_one_event_is_bounded() -> None:
    huge = "x" * 10 * MAX_TEXT
    attributes: dict[str, Value] = {f"{number}{huge}": huge for number in range(100)}
    attributes["list"] = [huge] * 1000
    events = EventLog()
    events.offer(LogEvent("", logging.INFO, huge, {"list": attributes.pop("list"), "big": 2**70, **attributes}))
    (event,) = events.take(1)
    assert len(event.body) == MAX_TEXT
    assert len(event.attributes) == MAX_ATTRIBUTES
    assert event.attributes["list"] == [huge[:MAX_ITEM_TEXT]] * MAX_ITEMS
    assert event.attributes["big"] == str(2**70)
    assert all(len(value) <= MAX_TEXT for value in event.attributes.values() if isinstance(value, str))
