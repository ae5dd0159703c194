"""A rollout's plan: read from a file, told in a paragraph, and outlined with what would happen."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from gateway.cli.columns import Column, fitted
from gateway.cli.failure import WRONG_USAGE, Failure
from gateway.cli.rollout_text import figure, traffic_text
from gateway.cli.text import NOTHING, one_line, short_digest
from gateway.report.text import age, counted, listed, number
from runtime.repository.document import DOCUMENT_LIMIT_BYTES, read_document
from runtime.rollout.gates import AgreementGate, ErrorGate, Gate, LatencyGate, MeanGate, QualityGate
from runtime.rollout.plan import Plan, Step, read_plan
from runtime.rollout.problems import PlanError

STANDARD_INPUT = "-"
STEPS = (
    Column("STEP"), Column("WEIGHT"), Column("COPIES"), Column("AT LEAST", rank=1), Column("REQUESTS"),
    Column("AT MOST", rank=2),
)  # fmt: skip
GATES = (Column("GATE", least=12), Column("IN STEPS", least=8), Column("LEVEL", rank=1), Column("ALLOWED", least=30))


def read_plan_file(file: str) -> tuple[str, Plan]:
    """The text and the plan in it. Raises Failure with every problem."""
    name = "standard input" if file == STANDARD_INPUT else file
    try:
        if file == STANDARD_INPUT:
            data = sys.stdin.buffer.read(DOCUMENT_LIMIT_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                data = opened.read(DOCUMENT_LIMIT_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise Failure(f"{name} cannot be read: {error.strerror}", WRONG_USAGE) from None
    except UnicodeDecodeError as error:
        raise Failure(f"{name} is not UTF-8: see byte {error.start:,}", WRONG_USAGE) from None
    document, problems = read_document(text)
    if not problems:
        try:
            return text, read_plan(document)
        except PlanError as error:
            problems = list(error.problems)
    count = counted(len(problems), "problem")
    raise Failure("\n  ".join([f"{name} has {count}:", *map(one_line, problems)]), WRONG_USAGE)


def outline(plan: Plan, warnings: Sequence[str], width: int | None) -> Group:
    """What a rollout by this plan would do. `width`: of the window, None where it does not matter."""
    seconds, requests = sum(step.min_duration_seconds for step in plan.steps), _least_requests(plan)
    parts: list[RenderableType] = [
        Text.assemble(
            (one_line(plan.model), "bold"),
            f"  version {one_line(plan.candidate)} instead of {one_line(plan.baseline)}, "
            f"in {counted(len(plan.steps), 'step')}  plan {short_digest(plan.digest)}",
        ),
        Text(
            f"live after {age(seconds)} at the earliest, and after {requests:,} requests to the model, "
            f"of which the candidate answers {sum(step.min_requests for step in plan.steps):,}, copies included"
        ),
        Text(),
        fitted(STEPS, [_step_row(plan, at) for at in range(len(plan.steps))], width),
        Text(),
        fitted(GATES, [_gate_row(plan, name, gate) for name, gate in plan.gates.named().items()], width),
        Text(),
        Text(rules(plan)),
        Text(f"{levels(plan)}"),
    ]
    if warnings:
        parts += [Text(), *(Text(f"warning: {one_line(warning)}", style="yellow") for warning in warnings)]
    return Group(*parts)


def outline_json(plan: Plan, warnings: Sequence[str]) -> dict[str, Any]:
    return {
        "plan": plan.model_dump(mode="json"),
        "plan_digest": plan.digest,
        "least_seconds": sum(step.min_duration_seconds for step in plan.steps),
        "least_candidate_requests": sum(step.min_requests for step in plan.steps),
        "least_requests": _least_requests(plan),
        "harm_level_of_each_gate_in_each_step": plan.harm_level,
        "gates_in_force": [list(plan.in_force(at)) for at in range(len(plan.steps))],
        "warnings": list(warnings),
    }


def paragraph(plan: Plan) -> str:
    """All of a plan that matters, in sentences."""
    steps = [f"({at}) {_step_rule(step)}" for at, step in enumerate(plan.steps, 1)]
    judged = [f"{one_line(name)} ({gate_rule(gate)})" for name, gate in plan.gates.named().items()]
    return f"{'; '.join(steps)}; then live. Judged by {listed(judged, len(judged))}. {rules(plan)}"


def rules(plan: Plan) -> str:
    """What follows what."""
    passes = {"no_harm": "no gate has shown harm", "evidence": "every gate has shown safety"}[plan.promote_on]
    passed = {"promote": "the next one begins by itself", "hold": "an operator decides what follows"}[plan.on_passed]
    harm = {"roll_back": "rolls back", "hold": "puts it on hold"}[plan.on_harm]
    long = {
        "inconclusive": "is inconclusive",
        "hold": "is put on hold",
        "wait": "goes on",
        "replay": "is judged by a replay of earlier rows",
    }[plan.at_max_duration]
    crashes = "a crash" if plan.hard.crashes == 1 else f"{plan.hard.crashes:,} crashes"
    return (
        f"A step passes when {passes}; then {passed}. Harm {harm}; a step that takes too long {long}. A failed load, "
        f"{crashes}, or {plan.hard.errors:,} errors among a step's first {plan.hard.first_requests:,} requests "
        "roll back at once."
    )


def levels(plan: Plan) -> str:
    return (
        f"A candidate that is no worse than allowed is stopped with a probability of at most {plan.alpha:g}: "
        f"{number(plan.harm_level, 3)} for each gate in each step."
    )


def gate_rule(gate: Gate) -> str:
    """What the gate allows."""
    match gate:
        case ErrorGate():  # and QualityGate
            what = "wrong answers" if isinstance(gate, QualityGate) else "errors"
            factor = "" if gate.ratio == 1 else f"{number(gate.ratio)} × "
            more = f" + {figure(gate.margin, '%')}" if gate.margin else ""
            return f"share of {what} <= {factor}baseline's{more}"
        case LatencyGate():
            return f"latency <= {number(gate.ratio)} × baseline's"
        case AgreementGate():
            return f"at least {figure(gate.min_share, '%')} of copies answered alike"
        case MeanGate():
            return f"mean within {number(gate.margin)} of the baseline's"
    return "no drift against the baseline"


def _step_rule(step: Step) -> str:
    longest = step.max_duration_seconds
    most = f", {age(longest)} at most" if longest is not None else ""
    return (
        f"{traffic_text(step.weight_percent, step.shadow_percent)} for {age(step.min_duration_seconds)} and "
        f"{counted(step.min_requests, 'request')} at least{most}"
    )


def _least_requests(plan: Plan) -> int:
    """To the model: a candidate that answers 5 % needs twenty times as many for its own."""
    return sum(
        round(100 * step.min_requests / (step.shadow_percent if step.is_shadow else step.weight_percent))
        for step in plan.steps
    )


def _step_row(plan: Plan, at: int) -> list[Text]:
    step = plan.steps[at]
    longest = step.max_duration_seconds
    cells = (
        str(at + 1),
        f"{step.weight_percent:g} %" if step.weight_percent else NOTHING,
        f"{step.shadow_percent:g} %" if step.shadow_percent else NOTHING,
        age(step.min_duration_seconds),
        f"{step.min_requests:,}",
        age(longest) if longest is not None else NOTHING,
    )
    return [Text(cell) for cell in cells]


def _gate_row(plan: Plan, name: str, gate: Gate) -> list[Text]:
    steps = [str(at + 1) for at, step in enumerate(plan.steps) if step.has(gate)]
    return [Text(cell) for cell in (one_line(name), ", ".join(steps), number(plan.harm_level, 3), gate_rule(gate))]
