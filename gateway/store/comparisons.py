"""What a store keeps of the comparisons of shadows: panes of time, and each pair's totals since the gateway's start.

It raises what `contract` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from runtime.profile.pane import Pane, PaneChanges
from runtime.shadow.pair import PairKey

TOTALS_LENGTH = 0
"""The length in seconds under which totals are stored: no pane has it. They end where they begin, at the start."""


@dataclass(frozen=True, slots=True)
class ComparisonTick:
    """What has changed since the tick before. Times are whole seconds since the epoch.

    `totals`: of pairs that have changed, as a pane of length TOTALS_LENGTH; they count from `started_seconds`, and
    those of another start are removed. `retain_seconds`: panes that end longer ago are removed, whose ever they are.
    """

    now_seconds: int
    retain_seconds: int
    started_seconds: int
    panes: Mapping[PairKey, PaneChanges] = field(default_factory=dict)
    totals: Mapping[PairKey, Pane] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.retain_seconds < 1:
            raise ValueError(f"retain_seconds: expected 1 or more, got {self.retain_seconds}")


class ComparisonStore(Protocol):
    """Durable, and may be called from any thread, as PaneStore."""

    def put_comparisons(self, tick: ComparisonTick) -> None:
        """Writes all of it or nothing, in one transaction. The same tick again changes nothing more."""

    def load_comparisons(self) -> dict[PairKey, list[Pane]]:
        """Panes of every pair, by length, then by time; no totals."""

    def load_totals(self, started_seconds: int) -> dict[PairKey, Pane]:
        """Of the gateway that was started then."""
