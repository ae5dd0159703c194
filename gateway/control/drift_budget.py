"""How often one may look, so that all looks together take a fixed share of a core."""

from __future__ import annotations

import math

SHARE = 0.05
"""Of one core, for the looks at all versions: what serving beside it does not miss. With thirty features a look takes
some 30 ms, and is made at every pane of 10 s by more than ten versions before any has to wait."""

TOGETHER_EVERY = 6
"""Looks from one with the classifier to the next: it takes ten times as long as all else, and its rows, a sample of a
whole window, are mostly the same at the next pane."""


class LookBudget:
    """Of one watch. Half of its part of SHARE is for looks without the classifier, half for those with it.

    A look that has taken c seconds on the processor is followed by a pause of c / (share / 2); with n watches, each
    has a share of SHARE / n.
    """

    def __init__(self) -> None:
        self._last = -math.inf
        self._pause_seconds = 0.0
        self._together_pause_seconds = 0.0
        self._last_together = -math.inf
        self._looks_apart = TOGETHER_EVERY

    @property
    def pause_seconds(self) -> float:
        """From the last look to the next one, at least."""
        return self._pause_seconds

    def due(self, now_seconds: float) -> bool:
        """Also where the clock was set back."""
        return not 0 <= now_seconds - self._last < self._pause_seconds

    def together(self, now_seconds: float) -> bool:
        """Whether the next look has the classifier."""
        waits = 0 <= now_seconds - self._last_together < self._together_pause_seconds
        return self._looks_apart + 1 >= TOGETHER_EVERY and not waits

    def spent(self, now_seconds: float, cpu_seconds: float, watches: int, *, together: bool) -> None:
        pause = cpu_seconds * max(watches, 1) / (SHARE / 2)
        self._last = now_seconds
        if together:
            self._last_together, self._together_pause_seconds, self._looks_apart = now_seconds, pause, 0
        else:
            self._pause_seconds = pause
            self._looks_apart += 1
