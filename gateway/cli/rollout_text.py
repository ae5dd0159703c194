"""What rollouts say, as people read it: phases, figures, evidence, moves. Pure."""

from __future__ import annotations

from rich.text import Text

from gateway.cli.bars import Marks
from gateway.cli.text import NOTHING, one_line
from gateway.report.text import number
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.rollout.plan import Plan

FINAL = frozenset({pb.ROLLOUT_PHASE_LIVE, pb.ROLLOUT_PHASE_ROLLED_BACK, pb.ROLLOUT_PHASE_ABORTED})
MOVING = frozenset({pb.ROLLOUT_PHASE_SHADOW, pb.ROLLOUT_PHASE_CANARY})
JUDGED = MOVING | {pb.ROLLOUT_PHASE_HOLD}
HARM, SAFE = "harm shown", "shown to be safe"
STYLES = {
    pb.ROLLOUT_PHASE_SHADOW: "cyan",
    pb.ROLLOUT_PHASE_CANARY: "cyan",
    pb.ROLLOUT_PHASE_HOLD: "yellow",
    pb.ROLLOUT_PHASE_INCONCLUSIVE: "yellow",
    pb.ROLLOUT_PHASE_LIVE: "bold green",
    pb.ROLLOUT_PHASE_ROLLED_BACK: "bold red",
    pb.ROLLOUT_PHASE_ABORTED: "bold red",
}
NAMES = {pb.ROLLOUT_PHASE_HOLD: "on hold"}


def phase_name(phase: pb.RolloutPhase) -> str:
    """ROLLOUT_PHASE_ROLLED_BACK → "rolled back"; a phase that this client does not know yet → its number."""
    if phase not in pb.RolloutPhase.values():
        return f"phase {phase}"
    known = NAMES.get(phase)
    return known or pb.RolloutPhase.Name(phase).removeprefix("ROLLOUT_PHASE_").replace("_", " ").lower()


def phase_text(phase: pb.RolloutPhase) -> Text:
    return Text(phase_name(phase), style=STYLES.get(phase, ""))


def plan_of(rollout: pb.Rollout) -> Plan | None:
    """None where this client cannot read it: it is of another version of the gateway."""
    try:
        return Plan.from_json(rollout.plan)
    except ValueError:
        return None


def traffic_text(weight_percent: float, shadow_percent: float) -> str:
    """As "5 %, copies 10 %"."""
    parts = [f"{weight_percent:g} %"] if weight_percent else []
    parts += [f"copies {shadow_percent:g} %"] if shadow_percent else []
    return ", ".join(parts) or NOTHING


def step_text(rollout: pb.Rollout) -> str:
    """As "step 2 of 3"; "" before the first."""
    return f"step {rollout.step + 1} of {rollout.steps}" if rollout.step >= 0 else ""


def figure(value: float | None, unit: str) -> str:
    """0.0123 in "%" → "1.23 %", in "s" → "12.3 ms"."""
    if value is None:
        return NOTHING
    if unit == "%":
        return f"{number(100 * value, 3)} %"
    if unit == "s":
        return f"{number(1000 * value, 3)} ms" if value < 0.9995 else f"{number(value, 3)} s"
    return number(value)


def told(reading: pb.GateReading, field: str) -> str:
    return figure(getattr(reading, field) if reading.HasField(field) else None, one_line(reading.unit))


def part(reading: pb.GateReading, side: str) -> float | None:
    """Evidence for "harm" or "safe" as a part of what is needed, 0..1; None of a gate that is judged elsewhere."""
    needed = getattr(reading, f"{side}_needed")
    if reading.gate.startswith("drift ") or needed <= 0:
        return None
    return float(min(max(getattr(reading, side) / needed, 0.0), 1.0))


def gate_mark(reading: pb.GateReading, marks: Marks) -> Text:
    if reading.says == HARM:
        return Text(marks.harm, "bold red")
    return Text(marks.done, "green") if reading.says == SAFE else Text(marks.ahead, "dim")


def move_text(decision: pb.RolloutDecision, marks: Marks) -> str:
    """As "shadow → canary, step 1 → 2"."""
    before, after = phase_name(decision.phase_before), phase_name(decision.phase)
    moved = after if before == after else f"{before} {marks.arrow} {after}"
    if decision.step == decision.step_before or decision.step_before < 0:
        return f"{moved}, step {decision.step + 1}" if decision.step >= 0 else moved
    return f"{moved}, step {decision.step_before + 1} {marks.arrow} {decision.step + 1}"
