"""docs/how-to/rollouts.md's output and picture: the commands' own, of a made-up rollout by examples/rollout.yaml."""

from __future__ import annotations

import functools
import io
import re
from dataclasses import replace
from pathlib import Path

from rich.console import Console, RenderableType

import gateway
from gateway.cli import rollout_plan
from gateway.cli.bars import UNICODE
from gateway.cli.rollout_history import story
from gateway.cli.rollout_list import rollouts_table
from gateway.cli.rollout_screen import rollout_screen
from gateway.cli.rollout_watch import ChangeLines
from gateway.control.rollout_messages import decision_message, rollout_message
from gateway.control.rollout_views import DecisionView, RolloutView
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.rollout.counts import ArmCounts, Counts, DriftSign, Observation
from runtime.rollout.decide import command, recompute, step
from runtime.rollout.decision import Command, Decision, Verb
from runtime.rollout.latency import bucket_of
from runtime.rollout.plan import Plan
from runtime.rollout.rollout import draft

PLAN = Path(gateway.__file__).resolve().parents[1] / "examples" / "rollout.yaml"
WIDTH = 100
FONTS = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
START_SECONDS = 1_750_000_000.0
LOOK_SECONDS = 10.0
REQUESTS_PER_LOOK = 4_000
BASELINE_ERRORS, CANDIDATE_ERRORS = 0.004, 0.016
"""Shares. The candidate's is of its last steps: it fails for rows that come rarely, and early steps do not see it."""

LATENCIES = ((0.002, 0.62), (0.003, 0.3), (0.006, 0.06), (0.012, 0.02))
WARNING = "gates.drift and gates.means say nothing in steps of copies: rows of copies are not measured"
SHOWN = 96
"""The look that the screen is of: in the third step, when evidence of harm gathers."""


def plan() -> str:
    return f"```yaml\n{PLAN.read_text().strip()}\n```"


def outline() -> str:
    return _shown(rollout_plan.outline(_plan(), [WARNING], WIDTH))


def lines() -> str:
    changes = ChangeLines()
    return _shown(*(line for update in _told()[0] for line in changes.lines(update)), width=400)


def history() -> str:
    updates, decisions = _told()
    found = pb.ListRolloutDecisionsResponse(rollout=updates[-1].rollout, decisions=decisions)
    return _shown(*story(found, UNICODE, WIDTH))


def listed() -> str:
    return _shown(rollouts_table([_told()[0][SHOWN].rollout]), width=140)


def picture() -> str:
    """The screen as SVG, with the fonts that a reader has."""
    updates, decisions = _told()
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(rollout_screen(updates[SHOWN].rollout, decisions[:3], UNICODE, WIDTH))
    svg = console.export_svg(title="driftgate rollout watch breast_cancer", unique_id="rollout")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # they would be loaded from elsewhere
    return svg.replace("Fira Code, monospace", FONTS) + "\n"


@functools.cache
def _plan() -> Plan:
    return rollout_plan.read_plan_file(str(PLAN))[1]


@functools.cache
def _told() -> tuple[list[pb.RolloutUpdate], list[pb.RolloutDecision]]:
    """All that a watcher was told, and the decisions that moved something."""
    plan = _plan()
    view = RolloutView(7, plan.model, 1, 3, plan, draft(plan), START_SECONDS)
    started = Command(Verb.START, "token:olga", "trained on June")
    rollout, decision, _ = command(plan, view.rollout, START_SECONDS + 1, started)
    updates, moved = [], list[pb.RolloutDecision]()
    seconds, looks = START_SECONDS + 1, 0
    while True:
        kept = DecisionView(len(moved) + 1, decision, 41 + len(moved), _is_the_same(plan, decision))
        ended = 0.0 if rollout.phase.value != "rolled back" else seconds
        view = replace(view, rollout=rollout, last=decision, ended_seconds=ended)
        message = decision_message(kept, with_evidence=False)
        updates.append(pb.RolloutUpdate(rollout=rollout_message(view), decision=message))
        moved += [message] if decision.moved else []
        if ended:
            return updates, moved
        looks = looks + 1 if rollout.epoch == decision.before.epoch else 1
        seconds += LOOK_SECONDS
        rollout, decision, _ = step(plan, rollout, seconds, _look(plan, rollout.step, rollout.epoch, looks))


def _is_the_same(plan: Plan, decision: Decision) -> bool:
    return recompute(plan, decision) == decision


def _look(plan: Plan, at: int, epoch: int, looks: int) -> Observation:
    rules = plan.steps[at]
    requests = looks * REQUESTS_PER_LOOK
    copies = round(requests * rules.shadow_percent / 100)
    served = round(requests * rules.weight_percent / 100)
    candidate = copies if rules.is_shadow else served
    share = BASELINE_ERRORS if at < 2 else CANDIDATE_ERRORS
    arms = _arm(candidate, share, 1.06), _arm(requests - served, BASELINE_ERRORS, 1.0)
    sign = DriftSign.STABLE if served > 500 else DriftSign.UNKNOWN
    drift = tuple((name, sign) for name in plan.gates.drift)
    return Observation(epoch, Counts(*arms, copies, round(0.992 * copies)), "story", drift)


def _arm(requests: int, share: float, slowness: float) -> ArmCounts:
    errors = round(requests * share)
    latency = {bucket_of(seconds * slowness): round((requests - errors) * part) for seconds, part in LATENCIES}
    return ArmCounts(requests, errors, tuple(sorted((bucket, count) for bucket, count in latency.items() if count)))


def _shown(*renderables: RenderableType, width: int = WIDTH) -> str:
    page = io.StringIO()
    Console(file=page, highlight=False, markup=False, width=width).print(*renderables, sep="\n")
    return "```text\n" + "\n".join(line.rstrip() for line in page.getvalue().splitlines()) + "\n```"
