"""A rollout as the admin API shows it, and what the API asks of whoever runs rollouts."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from gateway.control.audit import Actor
from runtime.rollout.decision import Decision, Verb
from runtime.rollout.plan import Plan
from runtime.rollout.rollout import Rollout


@dataclass(frozen=True, slots=True)
class RolloutView:
    """`id` 0: not stored, of a dry run. `ended_seconds` 0: it has not ended. `last`: the last look or command."""

    id: int
    model: str
    baseline: int
    candidate: int
    plan: Plan
    rollout: Rollout
    created_seconds: float
    ended_seconds: float = 0.0
    last: Decision | None = None


@dataclass(frozen=True, slots=True)
class DecisionView:
    """`number` from 1, within the rollout. `recomputed`: computed anew from its evidence, it is the same."""

    number: int
    decision: Decision
    audit_id: int
    recomputed: bool


@dataclass(frozen=True, slots=True)
class RolloutNews:
    """`decision` None: as it was when the watch began."""

    view: RolloutView
    decision: DecisionView | None = None
    dropped: int = 0


class RolloutsApi(Protocol):
    """Runs on control's event loop. Raises ServingError."""

    async def check(self, plan: Plan) -> tuple[RolloutView, list[str]]:
        """A draft with id 0, and warnings; raises InvalidRequest or Precondition with every problem."""

    async def start(self, plan: Plan, actor: Actor) -> tuple[RolloutView, list[str]]:
        """Returns when the rollout is stored and under way: loading the candidate may still go on."""

    async def command(self, rollout_id: int, verb: Verb, actor: Actor) -> RolloutView:
        """Raises NotFound, or Precondition where the phase does not allow it."""

    def find(self, rollout_id: int, model: str, *, under_way: bool = False) -> int:
        """The rollout of this id, or the model's newest (`under_way`: that has not ended); raises NotFound."""

    async def view(self, rollout_id: int) -> RolloutView: ...

    async def listed(self, model: str, limit: int, before_id: int) -> list[RolloutView]: ...

    async def decisions(self, rollout_id: int, limit: int, after: int) -> list[DecisionView]: ...

    def watching(self, rollout_id: int) -> AbstractContextManager[asyncio.Queue[RolloutNews]]:
        """Bounded: a slow watcher loses news and is told how many. Raises Overloaded for too many watchers."""
