"""Which windows there are, and of how long panes each is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

MAX_PANES_OF_WINDOW = 1_000
"""A window of more panes than this takes seconds to merge, and the panes megabytes to hold."""


@dataclass(frozen=True, slots=True)
class Level:
    """A window of `window_seconds`, and the length of the panes that are kept for it."""

    pane_seconds: int
    window_seconds: int

    def window_start(self, now_seconds: float) -> int:
        """A multiple of `pane_seconds`; the window has `window_seconds` and as much of a pane as has passed."""
        return self.pane_start(now_seconds) - self.window_seconds

    def pane_start(self, moment_seconds: float) -> int:
        return math.floor(moment_seconds) // self.pane_seconds * self.pane_seconds


class Levels(tuple[Level, ...]):
    """From the shortest window to the longest. The panes of each are as long as the window before.

    pane_seconds: whole seconds, from 1. windows_seconds: each a multiple of the one before, twice to 1,000
    times it; the first, of pane_seconds. Raises ValueError for others.
    """

    __slots__ = ()

    def __new__(cls, pane_seconds: int, windows_seconds: Sequence[int]) -> Self:
        if pane_seconds < 1:
            raise ValueError(f"pane_seconds: expected 1 or more, got {pane_seconds}")
        if not windows_seconds:
            raise ValueError("windows_seconds: expected one window or more, got none")
        lengths = (pane_seconds, *windows_seconds)
        levels = []
        for place, (shorter, longer) in enumerate(pairwise(lengths)):
            name, before = f"windows_seconds[{place}]", f"windows_seconds[{place - 1}]" if place else "pane_seconds"
            if longer <= shorter or longer % shorter:
                raise ValueError(f"{name}: expected a multiple of {before}, greater than its {shorter}, got {longer}")
            if longer // shorter > MAX_PANES_OF_WINDOW:
                most = MAX_PANES_OF_WINDOW * shorter
                raise ValueError(
                    f"{name}: expected {MAX_PANES_OF_WINDOW} times {before} at most, which is {most}, got {longer}; "
                    "put a window between them"
                )
            levels.append(Level(shorter, longer))
        return super().__new__(cls, levels)

    @property
    def panes(self) -> int:
        """The most panes that are held, but for one under way at each level."""
        return sum(level.window_seconds // level.pane_seconds for level in self)

    @property
    def retain_seconds(self) -> int:
        """After which nothing of a pane is in any window."""
        return self[-1].window_seconds + self[-1].pane_seconds

    def place(self, window_seconds: int) -> int:
        """Of the level with that window. Raises ValueError where there is none."""
        for place, level in enumerate(self):
            if level.window_seconds == window_seconds:
                return place
        known = ", ".join(str(level.window_seconds) for level in self)
        raise ValueError(f"window_seconds: expected one of {known}, got {window_seconds}")
