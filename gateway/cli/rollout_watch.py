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
from gateway.cli.rollout_text import FINAL, HARM, SAFE, phase_text, step_text, traffic_text
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
    changes, last = ChangeLines(), pb.Rollout()
    for update in updates:
        for line in changes.lines(update):
            show(line, soft_wrap=True)
        last = update.rollout
    return last


class ChangeLines:
    """What is new since the updates before: the rollout has moved, or a gate says something for the first time."""

    def __init__(self) -> None:
        self._place: tuple[int, int] | None = None
        self._said: set[tuple[str, str]] = set()

    def lines(self, update: pb.RolloutUpdate) -> list[Text]:
        rollout, notes = update.rollout, list[str]()
        if update.dropped:
            notes.append(f"({update.dropped:,} updates before it lost: this watcher reads too slowly)")
        if update.decision.moved or self._place != (rollout.phase, rollout.step):
            notes.append(one_line(rollout.reason))
            self._place = (rollout.phase, rollout.step)
            self._said = _said(rollout)
        else:
            new = _said(rollout) - self._said
            notes += [f"{one_line(gate)}: {one_line(says)}" for gate, says in sorted(new)]
            self._said |= new
        return [_line(rollout, note) for note in notes]


def _said(rollout: pb.Rollout) -> set[tuple[str, str]]:
    return {(reading.gate, reading.says) for reading in rollout.readings if reading.says in (HARM, SAFE)}


def _line(rollout: pb.Rollout, note: str) -> Text:
    stamp = rollout.last_look if rollout.HasField("last_look") else rollout.created
    step = "" if rollout.phase in FINAL else step_text(rollout)
    traffic = f"  {step}, {traffic_text(rollout.weight_percent, rollout.shadow_percent)}" if step else ""
    phase = phase_text(rollout.phase)
    phase.pad_right(max(0, len("inconclusive") - len(phase)))
    where = f"  {one_line(rollout.model)}/{rollout.candidate}{traffic}"
    return Text.assemble(f"{moment(stamp, 'milliseconds')}  ", phase, where, f"  {note}")
