"""`driftgate rollout history`: all that was decided of a rollout, by whom, and from what."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from gateway.cli.bars import Marks, marks
from gateway.cli.client import ask
from gateway.cli.console import show, show_json, window_width
from gateway.cli.options import Peer
from gateway.cli.rollout_plan import paragraph
from gateway.cli.rollout_screen import WIDEST, gates_table
from gateway.cli.rollout_text import FINAL, HARM, STYLES, move_text, phase_text, plan_of, step_text
from gateway.cli.text import moment, one_line, short_digest
from gateway.report.text import age, counted, seconds_of
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

INDENT = 3


def show_history(peer: Peer, request: pb.ListRolloutDecisionsRequest, *, as_json: bool) -> None:
    """Raises Failure."""
    found = _all(peer, request)
    if as_json:
        show_json(found)
        return
    width = window_width()
    show(*story(found, marks(), width))


def _all(peer: Peer, request: pb.ListRolloutDecisionsRequest) -> pb.ListRolloutDecisionsResponse:
    """Page after page: an answer may end before all is told."""
    found: pb.ListRolloutDecisionsResponse = ask(peer, "ListRolloutDecisions", request)
    page = found
    while page.decisions:
        last = page.decisions[-1].number
        rest = pb.ListRolloutDecisionsRequest(id=found.rollout.id, after=last, with_evidence=request.with_evidence)
        page = ask(peer, "ListRolloutDecisions", rest)
        found.decisions.extend(decision for decision in page.decisions if decision.number > last)
    return found


def story(found: pb.ListRolloutDecisionsResponse, marks: Marks, width: int | None) -> Iterator[RenderableType]:
    """`width`: of the window, None where it does not matter."""
    cells = min(width or WIDEST, WIDEST)
    rollout = found.rollout
    yield _title(rollout)
    plan = plan_of(rollout)
    text = paragraph(plan) if plan is not None else "The plan is of another version of driftgate."
    yield from (Text(line) for line in textwrap.wrap(f"Plan {short_digest(rollout.plan_digest)}: {text}", cells))
    for decision in found.decisions:
        yield Text()
        yield from _told(decision, marks, width, cells)


def _title(rollout: pb.Rollout) -> Text:
    step = "" if rollout.phase in FINAL else step_text(rollout)
    times = f"began {moment(rollout.created)}"
    if rollout.HasField("ended"):
        took = age(seconds_of(rollout.ended) - seconds_of(rollout.created))
        times += f", ended {moment(rollout.ended)} after {took}"
    return Text.assemble(
        (f"{one_line(rollout.model)}", "bold"),
        f"  rollout {rollout.id}: {rollout.candidate} instead of {rollout.baseline}  ",
        phase_text(rollout.phase),
        f", {step}" if step else "",
        f"  {times}",
    )


def _told(decision: pb.RolloutDecision, marks: Marks, width: int | None, cells: int) -> Iterator[RenderableType]:
    audit = f"  audit {decision.audit_id}" if decision.audit_id else ""
    what = (
        move_text(decision, marks) if decision.moved else f"{move_text(decision, marks)} (the last look, nothing moved)"
    )
    yield Text.assemble(
        f"{decision.number:>{INDENT - 1}} {moment(decision.time)}  ",
        (what, STYLES.get(decision.phase, "")),
        f"{audit}  ",
        _proof(decision, marks),
    )
    for line in textwrap.wrap(one_line(decision.reason), cells - INDENT):
        yield Text(" " * INDENT + line)
    readings = _deciding(decision)
    if readings:
        inner = None if width is None else width - INDENT
        yield Padding(gates_table(readings, marks, inner), (0, 0, 0, INDENT), expand=False)
        others = len(decision.readings) - len(readings)
        if others:
            yield Text(f"{' ' * INDENT}{counted(others, 'other gate')} had shown no harm", "dim")
    if decision.evidence:
        yield Text(_evidence(decision.evidence))


def _proof(decision: pb.RolloutDecision, marks: Marks) -> Text:
    if decision.recomputed:
        return Text(f"{marks.done} recomputed", "dim")
    return Text(f"{marks.harm} does not follow from what is kept of it: one of the two was altered", "bold red")


def _deciding(decision: pb.RolloutDecision) -> list[pb.GateReading]:
    """The gates that harm was shown by; of a decision that needed all of them, all."""
    readings = list(decision.readings)
    return [reading for reading in readings if reading.says == HARM] or readings


def _evidence(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, sort_keys=True)
    except ValueError:
        return one_line(text)
