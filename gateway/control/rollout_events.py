"""A decision of a rollout as an audit entry and as a log event; and news of it for those who watch."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from gateway.control.audit import SYSTEM, Actor
from gateway.control.rollout_views import RolloutNews
from gateway.store.contract import AuditEntry
from gateway.telemetry.events import ROLLOUT_DECIDED, EventLog
from runtime.errors import Overloaded
from runtime.rollout.counts import ArmCounts
from runtime.rollout.decision import Decision
from runtime.rollout.evidence import Reading, Says
from runtime.rollout.phase import Phase
from runtime.rollout.plan import Plan
from runtime.rollout.rollout import route

MAX_WAITING = 256  # news per watcher: four minutes of looks
MAX_WATCHERS = 256
MAX_EVIDENCE = 4_000
"""Characters of an event's evidence: an attribute is cut at 4,096, and JSON that is cut is none. The store has all."""

MAX_DETAIL = 2_000
"""Characters of an audit entry's detail."""


def rollout_entry(
    rollout_id: int, model: str, candidate: int, digest: str, decision: Decision, actor: Actor = SYSTEM
) -> AuditEntry:
    """`actor`: who gave the command, or the gateway itself for a look."""
    return AuditEntry(
        actor=actor.name,
        peer=actor.peer,
        action=action_of(decision),
        model=model,
        version=candidate,
        digest=digest,
        outcome="done",
        detail=f"rollout {rollout_id}: {decision.sentence()}"[:MAX_DETAIL],
        reason=actor.reason,
    )


def action_of(decision: Decision) -> str:
    """Rollout step 2, rollout on hold, rollout rolled back, ..."""
    if decision.event is not None and decision.step != decision.before.step:
        return f"rollout step {decision.step + 1}"
    return f"rollout {decision.phase.value}"


def announce_decision(
    events: EventLog,
    rollout_id: int,
    plan: Plan,
    versions: tuple[int, int],
    digest: str,
    decision: Decision,
    actor: Actor,
    audit_id: int,
) -> None:
    """`versions`: baseline and candidate."""
    kind = ROLLOUT_DECIDED
    if decision.phase is Phase.ROLLED_BACK:
        kind = replace(kind, level=logging.WARNING)
    wanted = route(plan, replace(decision.before, phase=decision.phase, step=decision.step))
    events.emit(
        kind,
        model=plan.model,
        version=versions[1],
        digest=digest,
        rollout=rollout_id,
        baseline=versions[0],
        phase=decision.phase.value,
        phase_before=decision.before.phase.value,
        step=decision.step + 1 if decision.step >= 0 else None,
        step_before=decision.before.step + 1 if decision.before.step >= 0 else None,
        weight=wanted.weight_percent / 100,
        copies=wanted.shadow_percent / 100,
        reason=decision.reason,
        readings=[reading.sentence() for reading in deciding(decision)],
        evidence=evidence_of(decision),
        actor=actor.name,
        audit=audit_id,
    )


def deciding(decision: Decision) -> tuple[Reading, ...]:
    """The readings that the decision follows from: of harm those that show it, else all."""
    harmful = tuple(reading for reading in decision.readings if reading.says is Says.HARM)
    return harmful if harmful and decision.phase in (Phase.ROLLED_BACK, Phase.HOLD) else decision.readings


def evidence_of(decision: Decision) -> str:
    """As JSON, at most MAX_EVIDENCE characters; gates that find no room are counted in `more`."""
    document: dict[str, Any] = {}
    if decision.observation is not None:
        seen = decision.observation.counts
        document |= {
            "epoch": decision.observation.epoch,
            "candidate": _arm(seen.candidate),
            "baseline": _arm(seen.baseline),
            "compared": seen.compared,
            "agreed": seen.agreed,
            "crashes": decision.observation.crashes,
        }
        if decision.observation.replayed is not None:
            document["replayed_rows"] = sum(block.rows for block in decision.observation.replayed.blocks)
        if decision.observation.load_failed:
            document["load_failed"] = decision.observation.load_failed[:500]
    gates: list[dict[str, Any]] = []
    for reading in deciding(decision):
        gate = {
            "gate": reading.gate,
            "says": reading.says.value,
            "harm": [round(reading.harm, 4), round(reading.harm_needed, 4)],
            "safe": [round(reading.safe, 4), round(reading.safe_needed, 4)],
            "candidate": reading.candidate,
            "baseline": reading.baseline,
            "allowed": reading.allowed,
        }
        if len(_text(document | {"gates": [*gates, gate], "more": 99})) > MAX_EVIDENCE:
            break
        gates.append(gate)
    more = len(deciding(decision)) - len(gates)
    return _text(document | {"gates": gates} | ({"more": more} if more else {}))


def _arm(arm: ArmCounts) -> dict[str, int]:
    return {"requests": arm.requests, "errors": arm.errors}


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


class RolloutWatchers:
    """News of looks and commands to any number of watchers; a slow one loses some and is told how many.

    Single-threaded: everything runs on control's event loop.
    """

    def __init__(self) -> None:
        self._watchers: dict[asyncio.Queue[RolloutNews], tuple[int, int]] = {}  # rollout, dropped

    def has(self, rollout_id: int) -> bool:
        """Whether anybody watches."""
        return any(watched == rollout_id for watched, _ in self._watchers.values())

    def publish(self, news: RolloutNews) -> None:
        for queue, (rollout_id, dropped) in self._watchers.items():
            if rollout_id != news.view.id:
                continue
            try:
                queue.put_nowait(replace(news, dropped=dropped))
                self._watchers[queue] = rollout_id, 0
            except asyncio.QueueFull:
                self._watchers[queue] = rollout_id, dropped + 1

    @contextmanager
    def watching(self, rollout_id: int) -> Iterator[asyncio.Queue[RolloutNews]]:
        """All news of one rollout from here on. Raises Overloaded."""
        if len(self._watchers) >= MAX_WATCHERS:
            raise Overloaded(
                f"{MAX_WATCHERS} clients watch rollouts already: close some, or ask for the rollout now and then",
                retry_after_seconds=5.0,
            )
        queue: asyncio.Queue[RolloutNews] = asyncio.Queue(MAX_WAITING)
        self._watchers[queue] = rollout_id, 0
        try:
            yield queue
        finally:
            del self._watchers[queue]
