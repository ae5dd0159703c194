"""Leases: who still uses a version.

A request holds a lease on the version that will answer it, from the moment it is routed until its reply is handed
over. A version is unloaded when it is closed to new leases and the last one has been returned.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Leases:
    """Counts leases for groups of requests, so that one lock serves a whole batch. Thread-safe."""

    __slots__ = ("_count", "_lock", "_on_drained")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._on_drained: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Leases {self._count} out{', closed' if self.closed else ''}>"

    @property
    def count(self) -> int:
        return self._count

    @property
    def closed(self) -> bool:
        return self._on_drained is not None

    def take(self, count: int) -> bool:
        """False once closed: the caller routes again, and finds the version gone."""
        with self._lock:
            if self._on_drained is not None:
                return False
            self._count += count
            return True

    def give_back(self, count: int) -> None:
        with self._lock:
            self._count -= count
            drained = self._on_drained if self._count == 0 else None
        if drained is not None:
            drained()

    def close(self, on_drained: Callable[[], None]) -> None:
        """No new leases from here on; `on_drained` is called once, when the last is back."""
        with self._lock:
            self._on_drained = on_drained
            drained = self._count == 0
        if drained:
            on_drained()
