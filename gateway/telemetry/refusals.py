"""Refused requests and changes as log events: one for many, so that a client in a loop does not fill the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from gateway.telemetry.conventions import CODES
from gateway.telemetry.events import CHANGE_REFUSED, CHANGES_REFUSED, REQUESTS_REFUSED, EventLog
from gateway.throttle import Throttle
from runtime.shm.series import Series

QUIET_SECONDS = 10.0  # between two events of one model, code and reason

Key = tuple[str, int, str]
"""Model, code, reason: no more of them than there are series."""


class RefusalSummary:
    """Tells what the series have counted since it last told. Single-threaded.

    `totals` at its making are not told any more. `now_seconds` is on any clock that does not go back.
    """

    def __init__(self, totals: Iterable[Series], now_seconds: float) -> None:
        self._told = _refused(totals)
        self._told_at: dict[Key, float] = {}
        self._looked_at = now_seconds

    def tell(self, totals: Iterable[Series], now_seconds: float, events: EventLog, *, is_last: bool = False) -> None:
        """At most one event a key every QUIET_SECONDS; what comes between is in the next.

        `is_last`: what is not told now would never be.
        """
        quiet_seconds = 0.0 if is_last else QUIET_SECONDS
        for key, count in _refused(totals).items():
            told_at = self._told_at.get(key)
            if told_at is not None and now_seconds - told_at < quiet_seconds:
                continue
            new = count - self._told[key]
            if new <= 0:
                self._told_at.pop(key, None)
                continue
            model, code, reason = key
            events.emit(
                REQUESTS_REFUSED,
                model=model or None,
                code=CODES[code] if code < len(CODES) else str(code),
                refusal=reason or None,
                count=new,
                window=now_seconds - (self._looked_at if told_at is None else told_at),
            )
            self._told[key] = count
            self._told_at[key] = now_seconds
        self._looked_at = now_seconds


class ChangeRefusals:
    """The first few of an actor's, each an event of its own; then one for many. `now_seconds` as above."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._throttle = Throttle("others")

    def add(self, now_seconds: float, *, actor: str, action: str, model: str, outcome: str, error: str) -> None:
        """`outcome`: refused or failed."""
        self.tell(now_seconds)  # a window that has passed, before a new one begins
        held, _ = self._throttle.passes(actor, now_seconds)
        if held is not None:
            self._events.emit(CHANGE_REFUSED, action=action, model=model, actor=actor, outcome=outcome, error=error)

    def tell(self, now_seconds: float, *, is_last: bool = False) -> None:
        """`is_last`: what is not told now would never be."""
        for actor, count, seconds in self._throttle.overdue(now_seconds, is_last=is_last):
            self._events.emit(CHANGES_REFUSED, actor=actor, count=count, window=seconds)


def _refused(totals: Iterable[Series]) -> Counter[Key]:
    """Over versions and variants."""
    counts: Counter[Key] = Counter()
    for series in totals:
        if series.key.code:
            counts[series.key.model, series.key.code, series.key.reason] += series.counters["requests"]
    return counts
