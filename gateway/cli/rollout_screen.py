"""A rollout as a screen: how far it is, what it waits for, what its gates have gathered, what was decided last.

fraud  3 instead of 2  canary, step 2 of 3                rollout 7
✓ copies 10 %  ● 5 %, copies 10 %  ○ 25 %  ○ live
waits for 120 of 300 s

time      ██████░░░░░░░░░  120 s of 5 min, 10 min at most
requests  ███████████████  1,203 of 1,000
...
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.cli.bars import Marks, bar
from gateway.cli.columns import Column, fitted
from gateway.cli.rollout_text import (
    FINAL,
    HARM,
    JUDGED,
    SAFE,
    STYLES,
    gate_mark,
    move_text,
    part,
    phase_text,
    plan_of,
    step_text,
    told,
    traffic_text,
)
from gateway.cli.text import NOTHING, moment, one_line
from gateway.report.text import age, counted, share
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.rollout.plan import Plan

WIDEST = 140
"""Of a screen without a window, and of lines in one: longer ones are hard to read."""
REASON_LINES = 3
DECISIONS = 5
BAR_CELLS = ((110, 12), (90, 8), (72, 6), (0, 4))
"""From so many columns on, so many cells of a gate's bar."""
GATES = (
    Column("GATE", least=19), Column("CANDIDATE"), Column("BASELINE", rank=2), Column("ALLOWED", rank=1),
    Column("ROWS", rank=4), Column("HARM"), Column("SAFETY"), Column("SAYS", rank=3, least=16),
)  # fmt: skip
PATH_GAP = "  "


def rollout_screen(
    rollout: pb.Rollout,
    decisions: Sequence[pb.RolloutDecision],
    marks: Marks,
    width: int | None = None,
    height: int | None = None,
) -> Group:
    """`decisions`: those that moved it, the newest last. `width`, `height`: of the window, None where it has no bounds.

    What a window has no room for is left out: first older decisions, then gates that are furthest from saying anything.
    """
    cells = min(width or WIDEST, WIDEST)
    plan = plan_of(rollout)
    head = [*_title(rollout, cells), _path(rollout, plan, marks, cells), *_reason(rollout, cells)]
    body = [Text(), *_progress(rollout, plan, marks, cells)] if rollout.phase in JUDGED and plan is not None else []
    arms = [Text(), *_arms(rollout, plan)] if rollout.step >= 0 else []
    fixed = [*head, *body, *arms]
    room = None if height is None else max(height - len(fixed), 0)
    gates, taken = _gates(rollout, marks, width, room)
    return Group(*fixed, *gates, *_last(decisions, marks, cells, None if room is None else room - taken))


def gates_table(readings: Sequence[pb.GateReading], marks: Marks, width: int | None) -> Table:
    return fitted(GATES, [_gate_row(reading, marks, width) for reading in readings], width)


def _title(rollout: pb.Rollout, cells: int) -> list[Text]:
    step = step_text(rollout) if rollout.phase not in FINAL else ""
    left = Text.assemble(
        (one_line(rollout.model), "bold"),
        f"  {rollout.candidate} instead of {rollout.baseline}  ",
        phase_text(rollout.phase),
        f", {step}" if step else "",
    )
    right = f"rollout {rollout.id}" + (f", {moment(rollout.last_look)[11:]}" if rollout.HasField("last_look") else "")
    if left.cell_len + len(right) + 2 <= cells:
        left.append(right.rjust(cells - left.cell_len), "dim")
    left.truncate(cells, overflow="ellipsis")
    return [left]


def _path(rollout: pb.Rollout, plan: Plan | None, marks: Marks, cells: int) -> Text:
    """The steps on one line; where there are too many, those around the present one."""
    if plan is None:
        return Text(f"step {rollout.step + 1} of {rollout.steps}")
    stops = [traffic_text(step.weight_percent, step.shadow_percent) for step in plan.steps]
    parts = [_stop(rollout, at, name, marks) for at, name in enumerate([*stops, "live"])]
    present = min(max(rollout.step, 0), len(parts) - 1) if rollout.phase != pb.ROLLOUT_PHASE_LIVE else len(parts) - 1
    first, last = 0, len(parts) - 1

    def drawn() -> Text:
        before = [Text(f"{first} {marks.done}", "green")] if first else []
        after = [Text(f"{marks.more} {len(parts) - 1 - last} more", "dim")] if last < len(parts) - 1 else []
        return Text(PATH_GAP).join([*before, *parts[first : last + 1], *after])

    while drawn().cell_len > cells and first < last:
        if first < present:
            first += 1
        else:
            last -= 1
    path = drawn()
    path.truncate(cells, overflow="ellipsis")
    return path


def _stop(rollout: pb.Rollout, at: int, name: str, marks: Marks) -> Text:
    phase = rollout.phase
    if phase == pb.ROLLOUT_PHASE_LIVE or at < rollout.step:
        return Text(f"{marks.done} {name}", "bold green" if at == rollout.steps else "green")
    if at > rollout.step or at == rollout.steps:
        return Text(f"{marks.ahead} {name}", "dim")
    if phase in FINAL:
        return Text(f"{marks.harm} {name}", "bold red")
    mark = marks.now if phase in (pb.ROLLOUT_PHASE_SHADOW, pb.ROLLOUT_PHASE_CANARY) else marks.waits
    return Text(f"{mark} {name}", f"bold {STYLES.get(phase, '')}".strip())


def _reason(rollout: pb.Rollout, cells: int) -> list[Text]:
    lines = textwrap.wrap(one_line(rollout.reason), cells, max_lines=REASON_LINES, placeholder=" ...")
    return [Text(line) for line in lines]


def _progress(rollout: pb.Rollout, plan: Plan, marks: Marks, cells: int) -> list[Text]:
    step = plan.steps[rollout.step]
    active = rollout.active.ToNanoseconds() / 1e9
    longest = step.max_duration_seconds
    most = f", {age(longest)} at most" if longest is not None else ""
    time_text = f"{age(active)} of {age(step.min_duration_seconds)}{most}"
    requests_text = f"{rollout.candidate_requests:,} of {step.min_requests:,}"
    room = max(min(cells - 12 - max(len(time_text), len(requests_text)), 40), 4)
    rows = (
        ("time", active, step.min_duration_seconds, time_text),
        ("requests", float(rollout.candidate_requests), float(step.min_requests), requests_text),
    )
    return [
        Text.assemble(
            f"{label:<10}",
            _bar(value / needed if needed else 1.0, room, "green" if value >= needed else "cyan", marks),
            f"  {text}",
        )
        for label, value, needed, text in rows
    ]


def _arms(rollout: pb.Rollout, plan: Plan | None) -> list[Text]:
    arms = (
        ("candidate", rollout.candidate_requests, rollout.candidate_errors),
        ("baseline", rollout.baseline_requests, rollout.baseline_errors),
    )
    wide = max(len(f"{requests:,}") for _, requests, _ in arms)
    wide_errors = max(len(f"{errors:,}") for _, _, errors in arms)
    lines = [
        Text.assemble(
            f"{label:<10}{requests:>{wide},} requests  ",
            f"{errors:>{wide_errors},} errors",
            f"  {share(errors, requests)}" if requests else "",
        )
        for label, requests, errors in arms
    ]
    if rollout.compared and (plan is None or plan.steps[rollout.step].shadow_percent):  # else those of a step before
        compared, agreed = f"{rollout.compared:>{wide},}", f"{rollout.agreed:>{wide_errors},}"
        lines.append(
            Text(f"{'compared':<10}{compared} copies    {agreed} agreed  {share(rollout.agreed, rollout.compared)}")
        )
    return lines


def _gates(rollout: pb.Rollout, marks: Marks, width: int | None, room: int | None) -> tuple[list[RenderableType], int]:
    """The gates' table and how many lines it takes, with a blank one above; `room`: lines that there are."""
    readings = list(rollout.readings)
    if not readings or (room is not None and room < 3):  # a blank line, the header, a gate
        return [], 0
    rows = len(readings) if room is None else room - 2
    hidden = len(readings) - rows + 1 if rows < len(readings) else 0  # the line that says so takes one too
    if hidden:
        loud = sorted(readings, key=_loudness, reverse=True)[: max(len(readings) - hidden, 1)]
        readings = [reading for reading in readings if reading in loud]
    parts: list[RenderableType] = [Text(), gates_table(readings, marks, width)]
    if hidden and rows > 1:
        parts.append(Text(f"{counted(hidden, 'more gate')}, further from saying anything", style="dim"))
    return parts, len(readings) + len(parts)


def _loudness(reading: pb.GateReading) -> tuple[bool, float]:
    return reading.says == HARM, max(part(reading, "harm") or 0.0, part(reading, "safe") or 0.0)


def _gate_row(reading: pb.GateReading, marks: Marks, width: int | None) -> list[Text]:
    style = {HARM: "bold red", SAFE: "green"}.get(reading.says, "")
    rows = f"{reading.candidate_rows:,}/{reading.baseline_rows:,}" if reading.candidate_rows else NOTHING
    return [
        Text.assemble(gate_mark(reading, marks), f" {one_line(reading.gate)}"),
        Text(told(reading, "candidate"), style),
        *(Text(text) for text in (told(reading, "baseline"), told(reading, "allowed"), rows)),
        _evidence(reading, "harm", "red", marks, width),
        _evidence(reading, "safe", "green", marks, width),
        Text(one_line(reading.note or reading.says), style or "dim"),
    ]


def _evidence(reading: pb.GateReading, side: str, style: str, marks: Marks, width: int | None) -> Text:
    """As "███░░░  52 %" of what is needed."""
    found = part(reading, side)
    if found is None:
        return Text(NOTHING, "dim")
    cells = next(cells for least, cells in BAR_CELLS if (width or WIDEST) >= least)
    percent = 100 if found >= 1 else min(round(100 * found), 99)
    return Text.assemble(_bar(found, cells, style, marks), f" {percent:>3} %")


def _bar(value: float, cells: int, style: str, marks: Marks) -> Text:
    full, empty = bar(value, cells, marks)
    return Text.assemble((full, style), (empty, "dim"))


def _last(decisions: Sequence[pb.RolloutDecision], marks: Marks, cells: int, room: int | None) -> list[RenderableType]:
    most = DECISIONS if room is None else min(room - 2, DECISIONS)
    if most < 1 or not decisions:
        return []
    lines: list[RenderableType] = [Text(), Text("LAST DECISIONS", "bold")]
    for decision in list(decisions)[-most:][::-1]:
        line = Text.assemble(
            f"{moment(decision.time)[11:19]}  ",
            (move_text(decision, marks), STYLES.get(decision.phase, "")),
            f": {one_line(decision.reason)}",
        )
        line.truncate(cells, overflow="ellipsis")
        lines.append(line)
    return lines
