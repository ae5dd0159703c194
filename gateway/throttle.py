"""The first few of many alike: so that whoever causes them in a loop does not fill a log."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Generic, TypeVar

BURST = 10
WINDOW_SECONDS = 10.0
MAX_KEYS = 1024

K = TypeVar("K")


@dataclass(slots=True)
class _Window:
    """`tag`: of the last that passed. `held`: those held back since then."""

    began: float
    passed: int = 0
    held: int = 0
    tag: str = ""


class Throttle(Generic[K]):
    """Lets BURST of a key pass in WINDOW_SECONDS, and counts the others. Thread-safe.

    Keys beyond MAX_KEYS at once count as `others`. `now_seconds` is on any clock that does not go back.
    """

    def __init__(self, others: K) -> None:
        self._others = others
        self._windows: dict[K, _Window] = {}
        self._lock = threading.Lock()

    def passes(self, key: K, now_seconds: float, tag: str = "") -> tuple[int | None, str]:
        """None for one that is held back; else how many were, since the last that passed.

        And the tag of the last that passed: `tag`, or an earlier one's.
        """
        with self._lock:
            window = self._windows.get(key) or self._new(key, now_seconds)
            if now_seconds - window.began >= WINDOW_SECONDS:
                window.began, window.passed = now_seconds, 0
            if window.passed >= BURST:
                window.held += 1
                return None, window.tag
            held, window.held = window.held, 0
            window.passed += 1
            window.tag = tag
            return held, tag

    def overdue(self, now_seconds: float, *, is_last: bool = False) -> list[tuple[K, int, float]]:
        """Key, count and seconds of those held back in windows that have passed; they are told of with that.

        `is_last`: in all windows.
        """
        with self._lock:
            found = []
            for key, window in self._windows.items():
                seconds = now_seconds - window.began
                if window.held and (is_last or seconds >= WINDOW_SECONDS):
                    found.append((key, window.held, seconds))
                    window.held = 0
            return found

    def _new(self, key: K, now_seconds: float) -> _Window:
        if len(self._windows) >= MAX_KEYS:
            self._windows = {
                known: window
                for known, window in self._windows.items()
                if window.held or now_seconds - window.began < WINDOW_SECONDS
            }
        if len(self._windows) >= MAX_KEYS:
            key = self._others
        return self._windows.setdefault(key, _Window(now_seconds))
