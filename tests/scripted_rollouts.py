"""Rollouts that a test moves by hand: real plans, states and decisions, without traffic, versions or a store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from gateway.control.audit import Actor
from gateway.control.rollout_views import DecisionView, RolloutNews, RolloutView
from runtime.errors import NotFound, Overloaded
from runtime.rollout.counts import ArmCounts, Counts, DriftSign, Observation
from runtime.rollout.decide import command, recompute, step
from runtime.rollout.decision import Command, Decision, Verb
from runtime.rollout.latency import bucket_of
from runtime.rollout.phase import FINAL
from runtime.rollout.plan import Plan
from runtime.rollout.rollout import draft

START_SECONDS = 1_750_000_000.0
WAITING = 8
WATCHERS = 4

PLAN = """
model: fraud
candidate: 3
baseline: 2
steps:
  - {shadow_percent: 10, min_duration_seconds: 60, min_requests: 100}
  - {weight_percent: 5, shadow_percent: 10, min_duration_seconds: 300, min_requests: 1000, max_duration_seconds: 600}
  - {weight_percent: 25, min_duration_seconds: 300, min_requests: 1000}
gates:
  errors: {margin: 0.005}
  latency: [{quantile: 0.99, ratio: 1.2}]
  agreement: {min_share: 0.99}
  drift: [inputs]
"""


class ScriptedRollouts:
    """A RolloutsApi. `seconds` is its clock; `look` is what a tick is to the real one."""

    def __init__(self) -> None:
        self.seconds = START_SECONDS
        self.views: dict[int, RolloutView] = {}
        self.kept: dict[int, list[DecisionView]] = {}
        self.warnings: list[str] = []
        self.refuse: Exception | None = None
        self.watchers: dict[asyncio.Queue[RolloutNews], tuple[int, int]] = {}

    async def check(self, plan: Plan) -> tuple[RolloutView, list[str]]:
        self._maybe_refuse()
        return self._draft(plan, 0), self.warnings

    async def start(self, plan: Plan, actor: Actor) -> tuple[RolloutView, list[str]]:
        self._maybe_refuse()
        view = self._draft(plan, len(self.views) + 1)
        self.views[view.id], self.kept[view.id] = view, []
        return self._command(view.id, Verb.START, actor), self.warnings

    async def command(self, rollout_id: int, verb: Verb, actor: Actor) -> RolloutView:
        self._maybe_refuse()
        return self._command(rollout_id, verb, actor)

    def find(self, rollout_id: int, model: str, *, under_way: bool = False) -> int:
        found = [
            view.id for view in self.views.values()
            if rollout_id in (0, view.id) and model in ("", view.model)
            and not (under_way and view.rollout.phase in FINAL)
        ]  # fmt: skip
        if not found:
            raise NotFound(f"no rollout {rollout_id or model!r}{' under way' if under_way else ''}")
        return found[-1]

    async def view(self, rollout_id: int) -> RolloutView:
        return self.views[rollout_id]

    async def listed(self, model: str, limit: int, before_id: int) -> list[RolloutView]:
        newest = sorted(self.views.values(), key=lambda view: -view.id)
        found = [v for v in newest if model in ("", v.model) and (not before_id or v.id < before_id)]
        return found[:limit]

    async def decisions(self, rollout_id: int, limit: int, after: int) -> list[DecisionView]:
        return [view for view in self.kept[rollout_id] if view.number > after][:limit]

    @contextmanager
    def watching(self, rollout_id: int) -> Iterator[asyncio.Queue[RolloutNews]]:
        if len(self.watchers) >= WATCHERS:
            raise Overloaded("too many watchers are connected", retry_after_seconds=1.0)
        queue: asyncio.Queue[RolloutNews] = asyncio.Queue(WAITING)
        self.watchers[queue] = (rollout_id, 0)
        try:
            yield queue
        finally:
            del self.watchers[queue]

    def look(self, rollout_id: int, after_seconds: float, **seen: Any) -> Decision:
        view = self.views[rollout_id]
        self.seconds += after_seconds
        observation = Observation(view.rollout.epoch, **seen)
        rollout, decision, _ = step(view.plan, view.rollout, self.seconds, observation)
        if "another look" in decision.reason:  # a step is passed by no look that brings most of its requests
            rollout, decision, _ = step(view.plan, rollout, self.seconds, observation)
        self._told(replace(view, rollout=rollout), decision, 0)
        return decision

    def _command(self, rollout_id: int, verb: Verb, actor: Actor) -> RolloutView:
        view = self.views[rollout_id]
        self.seconds += 1.0
        asked = Command(verb, actor.name, actor.reason)
        rollout, decision, _ = command(view.plan, view.rollout, self.seconds, asked)
        return self._told(replace(view, rollout=rollout), decision, 10 + len(self.kept[rollout_id]))

    def _told(self, view: RolloutView, decision: Decision, audit_id: int) -> RolloutView:
        ended = self.seconds if view.rollout.phase in FINAL else 0.0
        view = self.views[view.id] = replace(view, last=decision, ended_seconds=ended)
        kept = [each for each in self.kept[view.id] if each.decision.moved]
        self.kept[view.id] = kept
        found = DecisionView(len(kept) + 1, decision, audit_id, recompute(view.plan, decision) == decision)
        kept.append(found)
        for queue, (rollout_id, dropped) in self.watchers.items():
            if rollout_id != view.id:
                continue
            if queue.full():
                self.watchers[queue] = (rollout_id, dropped + 1)
                continue
            queue.put_nowait(RolloutNews(view, found, dropped))
            self.watchers[queue] = (rollout_id, 0)
        return view

    def _draft(self, plan: Plan, rollout_id: int) -> RolloutView:
        return RolloutView(
            rollout_id, plan.model, int(plan.baseline), int(plan.candidate), plan, draft(plan), self.seconds
        )

    def _maybe_refuse(self) -> None:
        if self.refuse is not None:
            raise self.refuse


def counts(
    candidate: int, baseline: int, errors: tuple[int, int] = (0, 0), compared: int = 0, disagreed: int = 0,
    slowness: float = 1.0,
) -> Counts:  # fmt: skip
    """Latencies from 5 to 80 ms, in the same shares for both versions."""
    arms = []
    for requests, failed, factor in ((candidate, errors[0], slowness), (baseline, errors[1], 1.0)):
        answered = requests - failed
        shares = ((0.005, 60), (0.01, 30), (0.02, 8), (0.08, 2))
        latency = {bucket_of(seconds * factor): answered * share // 100 for seconds, share in shares}
        arms.append(ArmCounts(requests, failed, tuple(sorted((b, n) for b, n in latency.items() if n))))
    return Counts(*arms, compared, compared - disagreed)


STABLE = (("inputs", DriftSign.STABLE),)
