"""What a rollout under way makes of a model's route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


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
