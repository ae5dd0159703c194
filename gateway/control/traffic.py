"""What a rollout under way makes of a model's route."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from gateway.routing.table import target_version
from runtime.routing.route import LEAST_WEIGHT, Route, Shadow, Variant
from runtime.routing.shadow_document import LEAST_PERCENT

BASELINE, CANDIDATE = "baseline", "candidate"
"""The variants of a rollout's split: what a request of one of them counts for."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """`weight_percent`: of the requests that reach the split, for the candidate. `shadow_percent`: of the baseline's
    answered requests, copied to it.
    """

    baseline: int
    candidate: int
    weight_percent: float
    shadow_percent: float


class RolloutsUnderWay(Protocol):
    """What changes of the desired state have to know of rollouts."""

    def traffic(self, model: str) -> Traffic | None:
        """None: no rollout of the model is under way."""

    def busy(self, model: str) -> str:
        """Why the versions, the default and the split of a model cannot be changed now; "": they can."""

    def find(self, rollout_id: int, model: str, *, under_way: bool = False) -> int:
        """As `RolloutsApi.find`."""


def with_traffic(route: Route, traffic: Traffic | None, labels: Mapping[str, int] | None = None) -> Route:
    """The operators' route with the part that a rollout takes: its split, and the copies for the candidate.

    Rules, stickiness and salt stay the operators', so a client that sends a key keeps its variant from step to step.
    Variants stand in the split at a weight of 0 too: their names are what requests are counted by. While the rollout
    copies, the operators' own copies for its candidate rest, or a request would be copied twice; what they say of
    tolerance and of disagreements that are kept holds for its copies. `labels`: where those in `route` lead.
    """
    if traffic is None:
        return route
    target = str(traffic.candidate)
    split = (
        Variant(BASELINE, str(traffic.baseline), _weight(100.0 - traffic.weight_percent)),
        Variant(CANDIDATE, target, _weight(traffic.weight_percent)),
    )
    if traffic.shadow_percent <= 0:
        return replace(route, split=split)
    theirs, others = Shadow(target), []
    for shadow in route.shadows:
        if target_version(shadow.target, labels or {}) == traffic.candidate:
            theirs = shadow
        else:
            others.append(shadow)
    share = max(traffic.shadow_percent, LEAST_PERCENT) / 100
    copies = replace(theirs, target=target, share=share, of=str(traffic.baseline))
    return replace(route, split=split, shadows=(*others, copies))


def _weight(percent: float) -> float:
    """What is more than nothing stays so, as the least that a route takes."""
    return max(percent, LEAST_WEIGHT) if percent > 0 else 0.0
