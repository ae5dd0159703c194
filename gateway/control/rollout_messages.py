"""Rollouts and their decisions as the admin API's messages."""

from __future__ import annotations

import math
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.control.rollout_views import DecisionView, RolloutNews, RolloutView
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.rollout.decision import Decision
from runtime.rollout.evidence import Evidence, Reading, read
from runtime.rollout.phase import MOVING, Phase
from runtime.rollout.rollout import route


def rollout_message(view: RolloutView) -> pb.Rollout:
    plan, rollout, counts = view.plan, view.rollout, view.rollout.counts
    traffic = route(plan, rollout)
    message = pb.Rollout(
        id=view.id,
        model=view.model,
        baseline=view.baseline,
        candidate=view.candidate,
        phase=phase_value(rollout.phase),
        step=rollout.step,
        steps=len(plan.steps),
        weight_percent=traffic.weight_percent,
        shadow_percent=traffic.shadow_percent,
        active=_duration(rollout.active_seconds),
        reason=_reason(view),
        plan=plan.to_json(),
        plan_digest=plan.digest,
        candidate_requests=counts.candidate.requests,
        candidate_errors=counts.candidate.errors,
        baseline_requests=counts.baseline.requests,
        baseline_errors=counts.baseline.errors,
        compared=counts.compared,
        agreed=counts.agreed,
        readings=[_reading(reading) for reading in _readings(view)],
        state=rollout.to_json(),
    )
    for stamp, seconds in (
        (message.created, view.created_seconds),
        (message.ended, view.ended_seconds),
        (message.last_look, rollout.last_seconds or 0.0),
    ):
        if seconds:
            stamp.CopyFrom(_timestamp(seconds))
    return message


def decision_message(view: DecisionView, *, with_evidence: bool) -> pb.RolloutDecision:
    decision = view.decision
    return pb.RolloutDecision(
        number=view.number,
        time=_timestamp(decision.at_seconds),
        step_before=decision.before.step,
        phase_before=phase_value(decision.before.phase),
        step=decision.step,
        phase=phase_value(decision.phase),
        moved=decision.moved,
        sentence=decision.sentence(),
        reason=decision.reason,
        readings=[_reading(reading) for reading in decision.readings],
        actor=decision.command.actor if decision.command is not None else "",
        audit_id=view.audit_id,
        evidence=decision.to_json() if with_evidence else "",
        recomputed=view.recomputed,
    )


def update_message(news: RolloutNews) -> pb.RolloutUpdate:
    """Without evidence: a watcher is told each second, and the evidence is kept."""
    decision = decision_message(news.decision, with_evidence=False) if news.decision is not None else None
    return pb.RolloutUpdate(rollout=rollout_message(news.view), decision=decision, dropped=news.dropped)


def phase_value(phase: Phase) -> Any:
    return pb.RolloutPhase.Value(f"ROLLOUT_PHASE_{phase.name}")


def _reason(view: RolloutView) -> str:
    """What it waits for, which only the last look knows; else why it is where it is."""
    rollout, last = view.rollout, view.last
    if rollout.phase is Phase.DRAFT and view.id:
        return "the candidate is being loaded"
    waits = rollout.phase in MOVING and last is not None and _is_look_of(last, view)
    return last.reason if last is not None and waits else rollout.reason


def _is_look_of(last: Decision, view: RolloutView) -> bool:
    return last.observation is not None and not last.moved and last.before.epoch == view.rollout.epoch


def _readings(view: RolloutView) -> list[Reading]:
    """By what the rollout has gathered in its step: so a gate is there from the step's first moment on."""
    plan, rollout = view.plan, view.rollout
    if rollout.step < 0:
        return []
    kept = dict(rollout.evidence)
    gates = plan.in_force(rollout.step)
    return [
        read(name, gate, kept.get(name, Evidence()), rollout.counts_for(gate), plan) for name, gate in gates.items()
    ]


def _reading(reading: Reading) -> pb.GateReading:
    return pb.GateReading(
        gate=reading.gate,
        says=reading.says.value,
        harm=reading.harm,
        harm_needed=reading.harm_needed,
        safe=reading.safe,
        safe_needed=reading.safe_needed,
        candidate=reading.candidate,
        baseline=reading.baseline,
        allowed=reading.allowed,
        candidate_rows=reading.rows[0],
        baseline_rows=reading.rows[1],
        unit=reading.unit,
        note=reading.note,
    )


def _timestamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(round(seconds * 1e6))
    return stamp


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(math.floor(seconds * 1e9))
    return duration
