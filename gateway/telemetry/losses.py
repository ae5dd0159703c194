"""Telemetry that is lost, as log events: one for many."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.telemetry.events import TELEMETRY_DROPPED, EventLog, log_only

QUIET_SECONDS = 10.0  # between two events of one signal and reason
LOGS = "logs"
"""The signal that events are of: an event that tells of its loss would be the next to be lost."""

Key = tuple[str, str]
"""Signal and reason; of both there are few."""


class LossSummary:
    """Tells what has been lost since it last told. Single-threaded.

    `lost` at its making is not told any more. `now_seconds` is on any clock that does not go back.
    """

    def __init__(self, lost: Mapping[Key, int], now_seconds: float) -> None:
        self._told = dict(lost)
        self._told_at = dict.fromkeys(lost, now_seconds - QUIET_SECONDS)
        self._looked_at = dict.fromkeys(lost, now_seconds)

    def tell(self, lost: Mapping[Key, int], now_seconds: float, events: EventLog, *, is_last: bool = False) -> None:
        """`is_last`: what is not told now would never be."""
        quiet_seconds = 0.0 if is_last else QUIET_SECONDS
        for key, count in lost.items():
            new = count - self._told.get(key, 0)
            if not new:
                self._looked_at[key] = now_seconds
            elif now_seconds - self._told_at.get(key, now_seconds - QUIET_SECONDS) >= quiet_seconds:
                signal, reason = key
                window = now_seconds - self._looked_at.get(key, now_seconds)
                tell = log_only if signal == LOGS else events.emit
                tell(TELEMETRY_DROPPED, signal=signal, count=new, window=window, error=reason)
                self._told[key], self._told_at[key], self._looked_at[key] = count, now_seconds, now_seconds
