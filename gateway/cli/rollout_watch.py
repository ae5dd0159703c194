"""`driftgate rollout watch`: a rollout until it has ended: a screen at a terminal, else a line for each change."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from gateway.cli.bars import marks
from gateway.cli.client import stream
from gateway.cli.console import can_redraw, show, show_json
from gateway.cli.failure import ABORTED, INCONCLUSIVE, ROLLED_BACK, UNREACHABLE, Failure
from gateway.cli.options import Peer
from gateway.cli.rollout_list import moves
from gateway.cli.rollout_screen import DECISIONS, rollout_screen
from gateway.cli.rollout_text import FINAL, phase_text, step_text, traffic_text
from gateway.cli.text import moment, one_line
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

STATUSES = {
    pb.ROLLOUT_PHASE_LIVE: 0,
    pb.ROLLOUT_PHASE_ROLLED_BACK: ROLLED_BACK,
    pb.ROLLOUT_PHASE_ABORTED: ABORTED,
    pb.ROLLOUT_PHASE_INCONCLUSIVE: INCONCLUSIVE,
}
"""Of the command. An inconclusive rollout has not ended, but nothing more happens until an operator decides."""

RETRY_PAUSE_SECONDS = 1.0


def watch_rollout(peer: Peer, request: pb.WatchRolloutRequest, retry_seconds: float, *, as_json: bool) -> int:
    """The command's exit status. Raises Failure, and KeyboardInterrupt."""
    updates = _until_over(_updates(peer, request, retry_seconds))
    if as_json:
        last = _as_json(updates)
    elif can_redraw():
        last = _on_screen(peer, updates)
    else:
        last = _as_lines(updates)
    return STATUSES.get(last.phase, 0)


def _updates(peer: Peer, request: pb.WatchRolloutRequest, retry_seconds: float) -> Iterator[pb.RolloutUpdate]:
    """Goes on with a gateway that is started anew: rollouts outlive it. Raises Failure."""
    was_reached, lost_at = False, None
    while True:
        failure = Failure(f"the gateway at {peer.address} ended the watch: it is shutting down", UNREACHABLE)
        try:
            for update in stream(peer, "WatchRollout", request):
                request, was_reached, lost_at = pb.WatchRolloutRequest(id=update.rollout.id), True, None
                yield update
        except Failure as found:
            failure = found
        now = time.monotonic()
        lost_at = now if lost_at is None else lost_at
        if not (was_reached and _is_passing(failure)) or now - lost_at >= retry_seconds:
            raise failure
        time.sleep(RETRY_PAUSE_SECONDS)


def _is_passing(failure: Failure) -> bool:
    """Not reached, or not yet ready."""
    return failure.exit_code == UNREACHABLE or failure.message.startswith("UNAVAILABLE: ")


def _until_over(updates: Iterator[pb.RolloutUpdate]) -> Iterator[pb.RolloutUpdate]:
    for update in updates:
        yield update
        if update.rollout.phase in STATUSES:
            return


def _as_json(updates: Iterator[pb.RolloutUpdate]) -> pb.Rollout:
    last = pb.Rollout()
    for update in updates:
        show_json(update, indent=None)
        last = update.rollout
    return last


def _on_screen(peer: Peer, updates: Iterator[pb.RolloutUpdate]) -> pb.Rollout:
    """On a screen of its own; how it ended stays below the command."""
    console, drawn = Console(highlight=False, markup=False), marks()
    first = next(updates)
    decisions = deque(moves(peer, first.rollout.id), DECISIONS)
    last = first.rollout
    with Live(console=console, screen=True, auto_refresh=False) as live:
        live.update(rollout_screen(last, decisions, drawn, *console.size), refresh=True)
        for update in updates:
            last = update.rollout
            if update.decision.moved and (not decisions or update.decision.number > decisions[-1].number):
                decisions.append(update.decision)
            live.update(rollout_screen(last, decisions, drawn, *console.size), refresh=True)
    show(rollout_screen(last, decisions, drawn, console.width))
    return last


def _as_lines(updates: Iterator[pb.RolloutUpdate]) -> pb.Rollout:
    before, last = None, pb.Rollout()
    for update in updates:
        last = update.rollout
        for line in change_lines(before, update):
            show(line, soft_wrap=True)
        before = last
    return last


def change_lines(before: pb.Rollout | None, update: pb.RolloutUpdate) -> list[Text]:
    """What is new since `before`: the rollout has moved, or a gate says something else. Of the first update, all."""
    after, notes = update.rollout, list[str]()
    if update.dropped:
        notes.append(f"({update.dropped:,} updates before it lost: this watcher reads too slowly)")
    if before is None or update.decision.moved or (before.phase, before.step) != (after.phase, after.step):
        notes.insert(0, one_line(after.reason))
    if before is not None and before.step == after.step:
        said = {reading.gate: reading.says for reading in before.readings}
        changed = [reading for reading in after.readings if said.get(reading.gate, reading.says) != reading.says]
        notes += [f"{one_line(reading.gate)}: {one_line(reading.says)}" for reading in changed]
    stamp = after.last_look if after.HasField("last_look") else after.created
    step = "" if after.phase in FINAL else step_text(after)
    traffic = f"{step}, {traffic_text(after.weight_percent, after.shadow_percent)}" if step else ""
    phase = phase_text(after.phase)
    phase.pad_right(max(0, len("inconclusive") - len(phase)))
    where = f"  {one_line(after.model)}/{after.candidate}{f'  {traffic}' if traffic else ''}"
    return [Text.assemble(f"{moment(stamp, 'milliseconds')}  ", phase, where, f"  {note}") for note in notes]
