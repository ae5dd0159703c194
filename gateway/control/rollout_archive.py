"""Rollouts and decisions as they are stored, for the admin API. Its methods block on the store."""

from __future__ import annotations

import logging

from gateway.control.rollout_state import RolloutState
from gateway.control.rollout_views import DecisionView, RolloutView
from gateway.store.contract import StoreCorrupt
from gateway.store.database import DAMAGED
from gateway.store.rollouts import RolloutStore, StoredDecision, StoredRollout
from runtime.errors import NotFound
from runtime.rollout.decide import recompute
from runtime.rollout.decision import Decision
from runtime.rollout.plan import Plan

log = logging.getLogger(__name__)


class RolloutArchive:
    """Raises NotFound, and StoreError where what is stored cannot be read."""

    def __init__(self, store: RolloutStore) -> None:
        self._store = store

    def view(self, rollout_id: int) -> RolloutView:
        stored = self._stored(rollout_id)
        return _view(stored, self._store.last_decisions([stored.id]).get(stored.id))

    def listed(self, model: str, limit: int, before_id: int) -> list[RolloutView]:
        """What cannot be read is left out, and told in the log: it is no reason to show none of the others."""
        found = self._store.listed(model, limit, before_id)
        last = self._store.last_decisions([each.id for each in found])
        views = []
        for each in found:
            try:
                views.append(_view(each, last.get(each.id)))
            except StoreCorrupt as error:
                log.warning("%s: %s", error.message, error.detail)
        return views

    def decisions(self, rollout_id: int, limit: int, after: int) -> list[DecisionView]:
        """Each computed anew."""
        stored = self._stored(rollout_id)
        rows = self._store.decisions(rollout_id, limit, after)
        try:
            plan = Plan.from_json(stored.plan)
            return [_decision_view(plan, row) for row in rows]
        except ValueError as error:
            raise _damaged(stored.id, error) from error

    def _stored(self, rollout_id: int) -> StoredRollout:
        stored = self._store.get(rollout_id)
        if stored is None:
            raise NotFound(f"no rollout {rollout_id}")
        return stored


def _view(stored: StoredRollout, last: StoredDecision | None) -> RolloutView:
    try:
        return RolloutView(
            stored.id,
            stored.model,
            stored.baseline,
            stored.candidate,
            Plan.from_json(stored.plan),
            RolloutState.from_json(stored.state).rollout,
            stored.created_at.timestamp(),
            stored.ended_at.timestamp() if stored.ended_at is not None else 0.0,
            Decision.from_json(last.data) if last is not None else None,
        )
    except ValueError as error:
        raise _damaged(stored.id, error) from error


def _damaged(rollout_id: int, error: ValueError) -> StoreCorrupt:
    where = DAMAGED.format(where="the state database")
    return StoreCorrupt(f"rollout {rollout_id} in {where}", detail=repr(error))


def _decision_view(plan: Plan, row: StoredDecision) -> DecisionView:
    decision = Decision.from_json(row.data)
    try:
        same = recompute(plan, decision) == decision
    except ValueError:
        same = False
    return DecisionView(row.number, decision, row.audit_id, same)
