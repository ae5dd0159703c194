"""Sliding windows of summaries, of bounded memory: the last minute, ten minutes, hour, day.

    pane of     10 s ──────┐  1 min ───┐  10 min ───┐  1 h ─────┐
    kept for    1 min      │  10 min   │  1 h       │  24 h     │
    at most     6 panes    └> 10       └> 6         └> 24       └> gone     and at each level one under way

A row is in one pane. When a pane as a whole is older than its level's window, it is merged into the next level's pane
of that time. So the window of a level is all that its panes and those of the levels below hold, and it is exact: at
`now` it has the rows from

    (now rounded down to the length of the level's panes) - window_seconds

on: never less than the window, and more by less than one pane. The merge of these panes is the merge of the summaries
that were added; where merging is exact, byte for byte.

A summary belongs to the middle of its last `pane_seconds`, or its own middle where it is shorter. That is its pane's
time also where clocks differ by some seconds; of a summary of several minutes it is the newest pane. One that comes
late goes to the pane of its time, at whichever level that is by then. One older than the longest window is dropped.

Where the clock is set back by no more than the first window, time stands still here until it has caught up. Set back
further, panes that begin in the future are dropped; what is left of long panes is in the windows of their level only.
Where it jumps forward, panes grow old at once.

Memory: Levels.panes (46 in the drawing) and one under way at each level, times the compressed size of a summary.
A window that is asked for is kept decoded for KEPT_PANES panes: then it grows by merging what is added, and is put
together anew only when its start has moved, which is once for each pane of its level.
"""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from runtime.profile.levels import Levels
from runtime.profile.pane import Mergeable, Pane, PaneChanges, PaneKey

T = TypeVar("T", bound=Mergeable)

KEPT_PANES = 3
"""How many panes long a decoded window is kept after it was asked for: a tick comes once a pane, and may be late."""


@dataclass(frozen=True, slots=True)
class Window(Generic[T]):
    """All rows from `start_seconds` to `end_seconds`. `summary` is the caller's own, None where there are no rows."""

    start_seconds: int
    end_seconds: float
    summary: T | None

    @property
    def rows(self) -> int:
        return self.summary.rows if self.summary is not None else 0


@dataclass(slots=True)
class _Decoded(Generic[T]):
    start_seconds: int
    summary: T | None
    asked_seconds: float


class Windows(Generic[T]):
    """The panes of one version. One thread at a time.

    decode: the inverse of T.encode; a pane that it refuses with a ValueError is dropped and counted, as is one that
    does not merge with the others. Times are seconds since the epoch.
    """

    def __init__(self, levels: Levels, decode: Callable[[bytes], T]) -> None:
        self.levels = levels
        self._decode = decode
        self._panes: dict[PaneKey, Pane] = {}
        self._now = -math.inf
        self._decoded: dict[int, _Decoded[T]] = {}  # by place of the level
        self._unsaved: set[PaneKey] = set()
        self._saved: set[PaneKey] = set()
        self._late_rows = 0
        self._ahead_rows = 0
        self._unreadable_rows = 0

    @property
    def panes(self) -> int:
        return len(self._panes)

    @property
    def held_bytes(self) -> int:
        """Of the compressed panes; a decoded window is not among them."""
        return sum(len(pane.data) for pane in self._panes.values())

    @property
    def late_rows(self) -> int:
        """Dropped, for they were older than the longest window when they came."""
        return self._late_rows

    @property
    def ahead_rows(self) -> int:
        """Dropped, for they were in the future after the clock was set back."""
        return self._ahead_rows

    @property
    def unreadable_rows(self) -> int:
        """Dropped, for `decode` refused their pane: damaged, or written by another version or for another schema."""
        return self._unreadable_rows

    def add(self, start_seconds: float, end_seconds: float, summary: T, now_seconds: float) -> bool:
        """Adds a summary of the rows between two moments, which stays the caller's.

        False: dropped and counted, for it is older than the longest window. A summary without rows adds nothing. Ends
        after `now_seconds` count as now.
        """
        self.advance(now_seconds)
        if not summary.rows:
            return True
        end = min(end_seconds, self._now)
        moment = end - min(max(end - start_seconds, 0.0), self.levels[0].pane_seconds) / 2
        key = self._key_at(moment)
        if key is None:
            self._late_rows += summary.rows
            return False
        for window in self._decoded.values():
            if window.start_seconds <= moment:
                window.summary = _joined(window.summary, summary)
        self._put(key, self._with_held(key, summary.copy()))
        return True

    def window(self, window_seconds: int, now_seconds: float) -> Window[T]:
        """The last `window_seconds`, and less than a pane of that level more: see the top of the file.

        Raises ValueError for a window that there is not.
        """
        place = self.levels.place(window_seconds)
        self.advance(now_seconds)
        window = self._decoded.get(place)
        if window is None:
            start = self.levels[place].window_start(self._now)
            window = self._decoded[place] = _Decoded(start, self._merged(place), self._now)
        window.asked_seconds = self._now
        summary = window.summary.copy() if window.summary is not None else None
        return Window(window.start_seconds, self._now, summary)

    def restore(self, panes: Iterable[Pane], now_seconds: float) -> None:
        """Takes over what a store holds, before anything is added.

        Panes of other levels' lengths, from before a change of the settings, go to the shortest that is no shorter.
        """
        others: dict[PaneKey, list[Pane]] = defaultdict(list)
        lengths = [level.pane_seconds for level in self.levels]
        for pane in panes:
            self._saved.add(pane.key)
            self._now = max(self._now, pane.key.start_seconds)
            length = next((length for length in lengths if length >= pane.key.length_seconds), lengths[-1])
            key = PaneKey(length, pane.key.start_seconds // length * length)
            if key == pane.key:
                self._panes[key] = pane
            else:
                others[key].append(pane)
        self._move(others)
        self.advance(now_seconds)

    def advance(self, now_seconds: float) -> None:
        """Lets panes grow older, as all that takes a time does first: for where nothing is added or asked any more."""
        if now_seconds < self._now:
            if self._now - now_seconds <= self.levels[0].window_seconds:
                return
            ahead = [key for key in self._panes if key.start_seconds > now_seconds]
            self._ahead_rows += sum(self._remove(key).rows for key in ahead)
            self._decoded.clear()
        self._now = now_seconds
        starts = {level.pane_seconds: level.window_start(now_seconds) for level in self.levels}
        old = [key for key in self._panes if key.start_seconds < starts[key.length_seconds]]
        moved: dict[PaneKey, list[Pane]] = defaultdict(list)
        for pane in [self._remove(key) for key in sorted(old)]:
            target = self._key_at(pane.key.start_seconds)
            if target is not None:
                moved[target].append(pane)
        self._move(moved)
        self._forget_windows()

    def changes(self) -> PaneChanges:
        """What a store does not hold yet, or still holds. The same again, and more, until it is `saved`."""
        put = tuple(self._panes[key] for key in sorted(self._unsaved) if key in self._panes)
        return PaneChanges(put, tuple(sorted(self._saved - self._panes.keys())))

    def saved(self, changes: PaneChanges) -> None:
        """Says that the store holds what `changes` said, whatever has changed since."""
        for pane in changes.put:
            self._saved.add(pane.key)
            if self._panes.get(pane.key) is pane:
                self._unsaved.discard(pane.key)
        self._saved.difference_update(changes.delete)

    def _forget_windows(self) -> None:
        patience_seconds = KEPT_PANES * self.levels[0].pane_seconds
        for place, window in list(self._decoded.items()):
            moved = window.start_seconds != self.levels[place].window_start(self._now)
            if moved or self._now - window.asked_seconds > patience_seconds:
                del self._decoded[place]

    def _key_at(self, moment_seconds: float) -> PaneKey | None:
        """Of the pane for rows of that moment; None where it is older than all windows."""
        for level in self.levels:
            if moment_seconds >= level.window_start(self._now):
                return PaneKey(level.pane_seconds, level.pane_start(moment_seconds))
        return None

    def _move(self, panes_by_key: dict[PaneKey, list[Pane]]) -> None:
        for key, panes in panes_by_key.items():
            if len(panes) == 1 and key not in self._panes:
                self._put(key, Pane(key, panes[0].rows, panes[0].data))
                continue
            summary: T | None = None
            for pane in panes:
                summary = self._joined_with(summary, pane)
            if summary is not None:
                self._put(key, self._with_held(key, summary))

    def _with_held(self, key: PaneKey, summary: T) -> Pane:
        """Adds to `summary` what is held of that time."""
        held = self._panes.get(key)
        if held is not None:
            self._joined_with(summary, held)
        return Pane.of(key, summary)

    def _put(self, key: PaneKey, pane: Pane) -> None:
        self._panes[key] = pane
        self._unsaved.add(key)

    def _remove(self, key: PaneKey) -> Pane:
        self._unsaved.discard(key)
        return self._panes.pop(key)

    def _merged(self, place: int) -> T | None:
        """Of all panes up to that level's. A shorter window that is decoded already saves decoding its panes."""
        known = max((shorter for shorter in self._decoded if shorter < place), default=None)
        summary: T | None = None
        if known is not None:
            shorter = self._decoded[known].summary
            summary = shorter.copy() if shorter is not None else None
        first = 0 if known is None else known + 1
        lengths = {level.pane_seconds for level in self.levels[first : place + 1]}
        for pane in [self._panes[key] for key in sorted(self._panes) if key.length_seconds in lengths]:
            summary = self._joined_with(summary, pane)
        return summary

    def _joined_with(self, summary: T | None, pane: Pane) -> T | None:
        """`summary` with that of the pane; without it where the pane cannot be read, which then is dropped."""
        try:
            other = self._decode(zlib.decompress(pane.data))
            if summary is None:
                return other
            summary.merge(other)
        except (ValueError, zlib.error):
            self._unreadable_rows += pane.rows
            if self._panes.get(pane.key) is pane:
                self._remove(pane.key)
        return summary


def _joined(summary: T | None, other: T) -> T:
    """`summary` with the other, or a copy of the other."""
    if summary is None:
        return other.copy()
    summary.merge(other)
    return summary
