"""The gates of one rollout that look at panes: what is new for them at a look, and drift tests beside the looks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from gateway.background import in_background
from gateway.control.rollout_rows import RolloutRows, RowsWanted, StepRows
from gateway.control.rollout_state import DriftTests, Means, RowsState, means_plus
from gateway.store.panes import VersionKey
from runtime.rollout.counts import DriftSign
from runtime.rollout.plan import Plan

log = logging.getLogger(__name__)


def wants_panes(plan: Plan) -> bool:
    return bool(plan.gates.drift or plan.gates.means)


class PaneGates:
    """Single-threaded: on control's event loop; tests run on threads, one at a time.

    `new_means`: of panes that no stored state has yet.
    """

    def __init__(self, source: RolloutRows, plan: Plan) -> None:
        self._source = source
        self._plan = plan
        self._rows: StepRows | None = None
        self._signs: dict[str, DriftSign] = {}
        self._testing: asyncio.Task[None] | None = None
        self.new_means: tuple[Means, Means] = ((), ())

    async def open(
        self,
        baseline: VersionKey,
        candidate: VersionKey,
        since_seconds: float,
        thresholds: Mapping[str, float],
        *,
        restored: bool = False,
    ) -> None:
        """For a step that began at `since_seconds`; `restored`: before a restart of control."""
        self.close()
        gates = self._plan.gates
        wanted = RowsWanted(
            baseline,
            candidate,
            since_seconds,
            tuple(gate.name for gate in gates.means),
            gates.drift,
            self._plan.harm_level,
            thresholds,
        )
        self._rows = await asyncio.to_thread(self._source.open, wanted, restored=restored)

    def close(self) -> None:
        if self._rows is not None:
            self._source.close(self._rows)
        self._rows, self._signs, self.new_means = None, {}, ((), ())

    def look(self, state: RowsState, now_seconds: float) -> RowsState:
        """The state with what tests have shown since, and those that are begun now noted; means are in `new_means`."""
        rows = self._rows
        if rows is None:
            return state
        taken = rows.take_means()
        self.new_means = means_plus(self.new_means[0], taken[0]), means_plus(self.new_means[1], taken[1])
        signs, self._signs = self._signs, {}
        state = state.with_signs(signs)
        if self._testing is None or self._testing.done():
            due = rows.due(dict(state.drift))
            if due:
                state = state.with_tests(due)  # noted before it is made: a restart spends no level twice
                self._testing = asyncio.create_task(self._test(rows, due, now_seconds))
        return state

    def saved(self) -> None:
        """The means are in a state that is stored."""
        self.new_means = ((), ())

    async def idle(self) -> None:
        """Until no test is under way."""
        if self._testing is not None:
            await asyncio.wait([self._testing])

    async def _test(self, rows: StepRows, due: Mapping[str, DriftTests], now_seconds: float) -> None:
        try:
            signs = await in_background(rows.judge, due, now_seconds)
        except Exception:
            log.exception("drift of a rollout of %s could not be tested; the next test follows", self._plan.model)
            return
        if self._rows is rows:
            self._signs |= signs
