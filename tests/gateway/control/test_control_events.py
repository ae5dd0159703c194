"""State changes go to every watcher; a slow one loses some, and knows how many."""

from __future__ import annotations

import asyncio

import pytest

from gateway.control import events as module
from gateway.control.events import Events, ModelChange
from gateway.messages import VersionReport


def report(version: int) -> VersionReport:
    return VersionReport(model="m", version=version, digest="sha256:a", generation=1, state="AVAILABLE")


def taken(queue: asyncio.Queue[ModelChange]) -> list[tuple[int, int]]:
    """(version, events lost before it) of all that waits."""
    return [(change.report.version, change.dropped) for change in iter(lambda: _next(queue), None)]


def _next(queue: asyncio.Queue[ModelChange]) -> ModelChange | None:
    return None if queue.empty() else queue.get_nowait()


def test_each_watcher_sees_every_change_from_its_start_in_order() -> None:
    events = Events()
    events.publish(0, report(1))
    with events.watching() as first:
        events.publish(0, report(2))
        with events.watching() as second:
            events.publish(1, report(3))
            assert (taken(first), taken(second)) == ([(2, 0), (3, 0)], [(3, 0)])
        events.publish(1, report(4))
        assert (taken(first), taken(second)) == ([(4, 0)], [])


def test_a_change_tells_who_and_when() -> None:
    events = Events()
    with events.watching() as queue:
        events.publish(3, report(1))
        change = queue.get_nowait()
    assert (change.worker, change.report, change.initial) == (3, report(1), False)
    assert change.time_seconds > 1_700_000_000


def test_a_slow_watcher_is_told_how_many_it_lost_and_no_other_loses_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    events = Events()
    with events.watching() as slow, events.watching() as quick:
        seen = []
        for version in range(1, 6):
            events.publish(0, report(version))
            seen += taken(quick)
        assert taken(slow) == [(1, 0), (2, 0)]
        events.publish(0, report(6))
        events.publish(0, report(7))
        assert taken(slow) == [(6, 3), (7, 0)]
        assert seen == [(version, 0) for version in range(1, 6)]


def test_watchers_are_bounded_and_make_room_when_they_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WATCHERS", 2)
    events = Events()
    full = []
    with events.watching():
        full.append(events.full)
        with events.watching():
            full.append(events.full)
        full.append(events.full)
    assert (full, events._watchers) == ([False, True, False], {})
