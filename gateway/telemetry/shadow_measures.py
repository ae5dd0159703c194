"""What the metrics tell of shadows, as figures of each pair of versions; control keeps them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gateway.telemetry.drift_measures import Rows


@dataclass(frozen=True, slots=True)
class PairFigures:
    """`requests`: since control's start, by outcome (agreed, disagreed, failed, shed) and the reason of shed ones.

    `agreement`, `latency_ratio`: over the drift window; None where nothing was compared in it.
    """

    model: str
    primary: int
    shadow: int
    requests: Mapping[tuple[str, str], int] = field(default_factory=dict)
    waiting: int = 0
    agreement: float | None = None
    latency_ratio: float | None = None


def _requests(of: PairFigures) -> Rows:
    for (outcome, reason), count in sorted(of.requests.items()):
        yield (of.model, of.primary, of.shadow, outcome, reason or None), count


def _gauge(read: Callable[[PairFigures], float | None]) -> Callable[[PairFigures], Rows]:
    def rows(of: PairFigures) -> Rows:
        value = read(of)
        return [((of.model, of.primary, of.shadow), value)] if value is not None else []

    return rows


SHADOW: Mapping[str, Callable[[PairFigures], Rows]] = {
    "requests": _requests,
    "waiting": _gauge(lambda of: of.waiting),
    "agreement": _gauge(lambda of: of.agreement),
    "slowdown": _gauge(lambda of: of.latency_ratio),
}
"""By the last part of a source: attributes in the instruments' order, and values."""
