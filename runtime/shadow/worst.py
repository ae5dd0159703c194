"""The worst disagreements: of all that was seen those of the greatest severity, the earliest of equal ones.

Memory: `most` of them, each with bounded texts. Merge: the worst of both; any order and any tree gives the same.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass

MOST_WORST = 1_000
"""The most that a route may ask for."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One row on which a shadow gave another answer.

    `row`: within its request. `output`: what was compared first of what disagrees. `severity`: see docs/shadows.md.
    `inputs`: JSON, "" where they are not kept.
    """

    unix_ns: int
    request_id: str
    row: int
    output: str
    severity: float
    primary_value: str
    shadow_value: str
    inputs: str = ""

    @property
    def rank(self) -> tuple[float, int, str, int, str, str, str, str]:
        """Ascending from the worst. All of it, so that no two differ and have the same."""
        return (
            -self.severity, self.unix_ns, self.request_id, self.row, self.output,
            self.primary_value, self.shadow_value, self.inputs,
        )  # fmt: skip


class Worst:
    def __init__(self, most: int, kept: Iterable[Disagreement] = ()) -> None:
        if not 0 <= most <= MOST_WORST:
            raise ValueError(f"expected 0 to {MOST_WORST} disagreements to keep, got {most}")
        self.most = most
        self.kept = heapq.nsmallest(most, kept, key=lambda each: each.rank)

    def bar(self, unix_ns: int) -> float:
        """No severity below it finds room, of a row of that time; one that reaches it may."""
        if len(self.kept) < self.most:
            return -math.inf
        if not self.kept:
            return math.inf
        last = self.kept[-1]
        return math.nextafter(last.severity, math.inf) if unix_ns > last.unix_ns else last.severity

    def add(self, found: Iterable[Disagreement]) -> None:
        self.kept = heapq.nsmallest(self.most, [*self.kept, *found], key=lambda each: each.rank)

    def merge(self, theirs: Worst) -> None:
        """Keeps as many as the one that keeps more."""
        self.most = max(self.most, theirs.most)
        self.add(theirs.kept)

    def copy(self) -> Worst:
        return Worst(self.most, self.kept)
