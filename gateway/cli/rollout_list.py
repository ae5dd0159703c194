"""Rollouts as a table, and those that are under way."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from gateway.cli.client import ask
from gateway.cli.console import table
from gateway.cli.options import Peer
from gateway.cli.rollout_text import FINAL, phase_text, traffic_text
from gateway.cli.text import NOTHING, moment, one_line
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb


def rollouts_table(rollouts: Iterable[pb.Rollout]) -> Table:
    fold = frozenset({"MODEL", "WHY"})
    drawn = table(
        "ID", "MODEL", "VERSION", "PHASE", "STEP", "TRAFFIC", "BEGAN", "WHY", right=frozenset({"ID"}), fold=fold
    )
    for rollout in rollouts:
        going = rollout.phase not in FINAL
        drawn.add_row(
            str(rollout.id),
            Text(one_line(rollout.model)),
            f"{rollout.candidate}, was {rollout.baseline}",
            phase_text(rollout.phase),
            f"{rollout.step + 1}/{rollout.steps}" if rollout.step >= 0 else NOTHING,
            traffic_text(rollout.weight_percent, rollout.shadow_percent) if going else NOTHING,
            moment(rollout.created),
            Text(one_line(rollout.reason)),
        )
    return drawn


def under_way(peer: Peer) -> pb.ListRolloutsResponse:
    """Of all models. Raises Failure."""
    found, before = pb.ListRolloutsResponse(), 0
    while True:
        page: pb.ListRolloutsResponse = ask(peer, "ListRollouts", pb.ListRolloutsRequest(limit=1000, before_id=before))
        found.rollouts.extend(rollout for rollout in page.rollouts if rollout.phase not in FINAL)
        last = page.rollouts[-1].id if page.rollouts else 0
        if not last or last == before:
            return found
        before = last


def moves(peer: Peer, rollout_id: int) -> list[pb.RolloutDecision]:
    """The decisions that moved a rollout, the newest last. Raises Failure."""
    request = pb.ListRolloutDecisionsRequest(id=rollout_id)
    response: pb.ListRolloutDecisionsResponse = ask(peer, "ListRolloutDecisions", request)
    return [decision for decision in response.decisions if decision.moved]
