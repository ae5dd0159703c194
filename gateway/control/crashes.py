"""Tells which version's code a process died in, as the supervisor has counted it, by a log event each."""

from __future__ import annotations

import asyncio

from gateway.telemetry.events import VERSION_CRASHED, EventLog
from runtime.shm.statistics import StatisticsReader

LOOKS = 50  # within a second the supervisor has counted an end that control may have noticed before it
LOOK_SECONDS = 0.02


class CrashWatch:
    """Single-threaded. What was counted before it was made is not told again."""

    def __init__(self, statistics: StatisticsReader, events: EventLog) -> None:
        self._statistics = statistics
        self._events = events
        self._told = statistics.all_crashes()

    def look(self) -> bool:
        """True if any version has crashed since the last look."""
        found = self._statistics.all_crashes()
        grown = {key: count - self._told.get(key, 0) for key, count in found.items()}
        self._told = found
        for (model, version), count in sorted(grown.items()):
            if count > 0:
                self._events.emit(VERSION_CRASHED, model=model, version=version, count=count)
        return any(count > 0 for count in grown.values())

    async def after_end(self) -> bool:
        """Of a process that has ended just now. False if it died in no version within the time."""
        for _ in range(LOOKS):
            if self.look():
                return True
            await asyncio.sleep(LOOK_SECONDS)
        return False
