"""State changes as they happen, to any number of watchers; a slow one loses events and is told how many."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from gateway.messages import VersionReport

MAX_WAITING = 1024  # events per watcher
MAX_WATCHERS = 256


@dataclass(frozen=True, slots=True)
class ModelChange:
    """One version on one worker entered a state. `dropped`: events this watcher lost before this one."""

    time_seconds: float
    worker: int
    report: VersionReport
    initial: bool = False
    dropped: int = 0


class Events:
    """Single-threaded: everything runs on control's event loop."""

    def __init__(self) -> None:
        self._watchers: dict[asyncio.Queue[ModelChange], int] = {}

    def publish(self, worker: int, report: VersionReport) -> None:
        change = ModelChange(time.time(), worker, report)
        for queue, dropped in self._watchers.items():
            try:
                queue.put_nowait(replace(change, dropped=dropped))
                self._watchers[queue] = 0
            except asyncio.QueueFull:
                self._watchers[queue] = dropped + 1

    @property
    def full(self) -> bool:
        return len(self._watchers) >= MAX_WATCHERS

    @contextmanager
    def watching(self) -> Iterator[asyncio.Queue[ModelChange]]:
        """Every change from here on."""
        queue: asyncio.Queue[ModelChange] = asyncio.Queue(MAX_WAITING)
        self._watchers[queue] = 0
        try:
            yield queue
        finally:
            del self._watchers[queue]
