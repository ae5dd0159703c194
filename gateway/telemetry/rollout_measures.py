"""What the metrics tell of rollouts: where each is, and how far its gates are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RolloutFigures:
    """One rollout. `step`: from 1, 0 before the first. Shares 0..1. `requests`, `errors`: by arm, in the step.

    `evidence`: by gate and side, of what is needed: from 1 on it is shown.
    """

    model: str
    version: int
    phase: str
    step: int
    weight: float
    copies: float
    requests: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    evidence: Mapping[tuple[str, str], float] = field(default_factory=dict)


Rows = Iterable[Any]
"""As `measure.Row` has them."""


def _own(of: RolloutFigures) -> tuple[str, int]:
    return of.model, of.version


ROLLOUTS: Mapping[str, Callable[[RolloutFigures], Rows]] = {
    "phase": lambda of: [((*_own(of), of.phase), 1)],
    "step": lambda of: [(_own(of), of.step)],
    "weight": lambda of: [(_own(of), of.weight)],
    "copies": lambda of: [(_own(of), of.copies)],
    "requests": lambda of: [((*_own(of), arm), count) for arm, count in of.requests.items()],
    "errors": lambda of: [((*_own(of), arm), count) for arm, count in of.errors.items()],
    "evidence": lambda of: [((*_own(of), gate, side), share) for (gate, side), share in of.evidence.items()],
}
"""By the last part of a source: attributes in the instruments' order, and values."""
