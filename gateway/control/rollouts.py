"""All rollouts of the gateway: begins them, looks at them once a second, carries out what is decided.

    restore()     before the workers are told anything: their traffic is as it was
    start_up()    once the desired state is there: what was decided and not done is done; a look follows at once
    run()         a look every tick_seconds, and at once after look_now()

Everything runs on control's event loop, but for the store, the counters' pages and drift tests, which block on threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from contextlib import AbstractContextManager
from typing import Any, Protocol

from gateway.control.audit import MAX_NAME, SYSTEM, Actor, announce_refusal
from gateway.control.rollout_archive import RolloutArchive
from gateway.control.rollout_changes import Before
from gateway.control.rollout_checks import Checked, Checks, Rates, Settings, busy_text
from gateway.control.rollout_figures import figures_of
from gateway.control.rollout_run import RolloutChanges, RolloutRun, Surroundings
from gateway.control.rollout_state import RolloutState
from gateway.control.rollout_views import DecisionView, RolloutNews, RolloutView
from gateway.control.traffic import Traffic
from gateway.errors import Precondition
from gateway.store.contract import AuditEntry, AuditRecord
from gateway.store.panes import VersionKey
from gateway.store.rollouts import NewRollout, RolloutChange, StoredRollout
from gateway.telemetry.refusals import ChangeRefusals
from gateway.telemetry.rollout_measures import RolloutFigures
from runtime.errors import NotFound, NotReady, ServingError
from runtime.profile.schema import Schema
from runtime.rollout.decision import Decision, Verb
from runtime.rollout.phase import NotPossible
from runtime.rollout.plan import Plan
from runtime.rollout.rollout import draft

log = logging.getLogger(__name__)

RATE_SECONDS = 5.0
"""Between two samples of how many requests come, for warnings."""

JUMP_SECONDS = 2.0
"""By more than this, the clock has not run fast or slow since the last look but was set."""

MAX_ENDED = 256
"""Rollouts that have ended since control's start and whose phase the metrics still tell: one of each model."""


class Audits(Protocol):
    def append_audit(self, entry: AuditEntry) -> AuditRecord: ...


class Changes(RolloutChanges, Protocol):
    """What all rollouts together ask of `Changes`."""

    refusals: ChangeRefusals

    async def rescan(self) -> Any: ...

    def before_rollout(self, model: str, candidate: int) -> Before: ...


class Rollouts:
    """Implements RolloutsApi and RolloutsUnderWay."""

    def __init__(
        self,
        around: Surroundings,
        changes: Changes,
        audits: Audits,
        settings: Settings,
    ) -> None:
        self._around = around
        self._changes = changes
        self._audits = audits
        self._clock, self._steady = around.clock, around.steady
        self._archive = RolloutArchive(around.store)
        self._rates = Rates()
        self._checks = Checks(changes, settings, self.busy, self._schema, self._rates)
        self._runs: dict[int, RolloutRun] = {}
        self._ended: dict[str, RolloutRun] = {}
        self._newest: dict[str, int] = {}  # by model
        self._starting: set[str] = set()
        self._restored = False
        self._wake = asyncio.Event()
        self._sampled = -RATE_SECONDS
        self._last_now: tuple[float, float] | None = None  # by the clock, and by one that nobody sets

    # RolloutsUnderWay

    def traffic(self, model: str) -> Traffic | None:
        run = self._of(model)
        return run.traffic if run is not None else None

    def busy(self, model: str) -> str:
        run = self._of(model)
        if run is not None:
            return busy_text(run.id, run.plan, run.state)
        if model in self._starting:
            return f"a rollout of model {model!r} is being started: wait for it"
        return ""

    def under_way(self, model: str) -> int:
        """The id of the model's rollout that has not ended; 0: there is none."""
        run = self._of(model)
        return run.id if run is not None else 0

    def _of(self, model: str) -> RolloutRun | None:
        return next((run for run in self._runs.values() if run.model == model and not run.settled), None)

    # Life

    async def restore(self) -> None:
        """What is stored. From here on `traffic` is what it was. Raises StoreError."""
        store = self._around.store
        self._newest = await asyncio.to_thread(store.newest)
        stored = await asyncio.to_thread(store.under_way)
        last = await asyncio.to_thread(store.last_decisions, [each.id for each in stored])
        for each in stored:
            try:
                run = RolloutRun(
                    self._around,
                    each,
                    Plan.from_json(each.plan),
                    RolloutState.from_json(each.state).resumed(self._around.counters.gateway),
                    Decision.from_json(last[each.id].data) if each.id in last else None,
                )
            except ValueError:
                log.exception("rollout %d of %s cannot be read, and is given up", each.id, each.model)
                await self._give_up(each)
                continue
            self._runs[each.id] = run

    async def start_up(self) -> None:
        """Once the desired state is there, and workers take orders."""
        for run in list(self._runs.values()):
            await run.restore_rows()
            run.start(restored=True)
        self._restored = True
        self.look_now()

    async def _give_up(self, stored: StoredRollout) -> None:
        """Its traffic is gone with it; versions and default stay as they are, for an operator to put right."""
        entry = AuditEntry(
            SYSTEM.name, "", "rollout given up", stored.model, stored.candidate, "", "failed",
            f"rollout {stored.id}: what is stored of it cannot be read; check the model's versions and default", "",
        )  # fmt: skip
        await asyncio.to_thread(self._audits.append_audit, entry)
        change = RolloutChange(stored.state, ended=True, settled=True)
        await asyncio.to_thread(self._around.store.save, stored.id, change)

    async def run(self, tick_seconds: float) -> None:
        """Until it is cancelled."""
        while True:
            # Not wait_for: cancelled in the moment in which the event is set, it would lose the cancellation.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(tick_seconds):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.tick(self._now())
            except Exception:
                log.exception("rollouts could not be looked at; the next look follows")

    def _now(self) -> float:
        """By the clock; where somebody has set it since the last time, rollouts under way are told."""
        now, steady = self._clock(), self._steady()
        if self._last_now is not None:
            jump = (now - self._last_now[0]) - (steady - self._last_now[1])
            if abs(jump) > JUMP_SECONDS:
                log.warning("the clock was set by %+.1f s; this is no time of a rollout's step", jump)
                for run in self._runs.values():
                    run.clock_jumped(jump)
        self._last_now = now, steady
        return now

    def look_now(self) -> None:
        """Something has happened that may end a rollout, such as the end of a worker's process."""
        self._wake.set()

    async def tick(self, now_seconds: float) -> None:
        """A look at each rollout under way, once the desired state is there."""
        if not self._restored:
            return
        due = time.monotonic() - self._sampled >= RATE_SECONDS
        if not (self._runs or due):
            return
        reading = await asyncio.to_thread(self._around.counters.read)
        if due:
            self._sampled = time.monotonic()
            self._rates.add(self._sampled, reading.requests())
        looks = [run.look(reading, now_seconds) for run in list(self._runs.values())]
        for failed in await asyncio.gather(*looks, return_exceptions=True):
            if isinstance(failed, Exception):
                log.error("a rollout could not be looked at; the next look follows", exc_info=failed)
        for run in [run for run in self._runs.values() if run.settled]:
            del self._runs[run.id]
            self._ended.pop(run.model, None)
            self._ended[run.model] = run
            while len(self._ended) > MAX_ENDED:
                del self._ended[next(iter(self._ended))]

    async def idle(self) -> None:
        """Until what was decided is done, or cannot be done now."""
        await asyncio.gather(*(run.idle() for run in self._runs.values()))

    async def close(self) -> None:
        await asyncio.gather(*(run.close() for run in self._runs.values()))

    # RolloutsApi

    async def check(self, plan: Plan) -> tuple[RolloutView, list[str]]:
        checked = await self._checked(plan)
        view = RolloutView(0, plan.model, checked.baseline, checked.candidate, plan, draft(plan), self._clock())
        return view, list(checked.warnings)

    async def start(self, plan: Plan, actor: Actor) -> tuple[RolloutView, list[str]]:
        try:
            return await self._start(plan, actor)
        except ServingError as error:
            await self._refused("start rollout", plan.model, 0, actor, error.message)
            raise

    async def _start(self, plan: Plan, actor: Actor) -> tuple[RolloutView, list[str]]:
        checked = await self._checked(plan)
        if busy := self.busy(plan.model):  # another came while this one was checked
            raise Precondition(busy)
        self._starting.add(plan.model)
        try:
            model = self._changes.desired[plan.model]
            state = RolloutState(draft(plan), actor.name, actor.peer, actor.reason)
            before = self._changes.before_rollout(plan.model, checked.candidate).to_json()
            new = NewRollout(plan.model, checked.baseline, checked.candidate, plan.to_json(), state.to_json(), before)
            digest = next((v.digest for v in model.versions if v.version == checked.candidate), "")
            detail = (
                f"rollout from version {checked.baseline} to {checked.candidate}, {len(plan.steps)} steps, "
                f"plan {plan.digest}"
            )
            entry = AuditEntry(
                actor.name, actor.peer, "start rollout", plan.model, checked.candidate, digest, "done", detail,
                actor.reason,
            )  # fmt: skip
            stored, _ = await asyncio.to_thread(lambda: self._around.store.create(new, audit=entry))
            run = RolloutRun(self._around, stored, plan, state)
            self._runs[run.id] = run
            self._newest[run.model] = run.id
        finally:
            self._starting.discard(plan.model)
        run.start()
        return run.view(), list(checked.warnings)

    async def command(self, rollout_id: int, verb: Verb, actor: Actor) -> RolloutView:
        self._require_restored()
        run = self._runs.get(rollout_id)
        try:
            if run is None:
                ended = await asyncio.to_thread(self._archive.view, rollout_id)
                phase = ended.rollout.phase.value
                raise Precondition(f"rollout {rollout_id} of model {ended.model!r} has ended ({phase}): start another")
            try:
                await run.command(verb, actor, self._now())
            except NotPossible as error:
                raise Precondition(f"rollout {rollout_id} of model {run.model!r}: {error}") from None
        except ServingError as error:
            if run is not None:
                await self._refused(f"{verb.value} rollout", run.model, run.versions[1], actor, error.message)
            raise
        return run.view()

    def find(self, rollout_id: int, model: str, *, under_way: bool = False) -> int:
        self._require_restored()
        if rollout_id:
            if not 0 < rollout_id <= max(self._newest.values(), default=0):
                raise NotFound(f"no rollout {rollout_id}")
            return rollout_id
        if under_way:
            run = self._of(model)
            if run is None:
                raise NotFound(f"no rollout of model {model[:MAX_NAME]!r} is under way")
            return run.id
        if model not in self._newest:
            raise NotFound(f"there has been no rollout of model {model[:MAX_NAME]!r}")
        return self._newest[model]

    async def view(self, rollout_id: int) -> RolloutView:
        run = self._runs.get(rollout_id)
        return run.view() if run is not None else await asyncio.to_thread(self._archive.view, rollout_id)

    async def listed(self, model: str, limit: int, before_id: int) -> list[RolloutView]:
        return await asyncio.to_thread(self._archive.listed, model, limit, before_id)

    async def decisions(self, rollout_id: int, limit: int, after: int) -> list[DecisionView]:
        return await asyncio.to_thread(self._archive.decisions, rollout_id, limit, after)

    def watching(self, rollout_id: int) -> AbstractContextManager[asyncio.Queue[RolloutNews]]:
        return self._around.watchers.watching(rollout_id)

    async def _checked(self, plan: Plan) -> Checked:
        self._require_restored()
        await self._changes.rescan()
        reading = await asyncio.to_thread(self._around.counters.read)
        self._rates.add(time.monotonic(), reading.requests())
        return self._checks.check(plan, reading.lost)

    def _require_restored(self) -> None:
        if not self._restored:
            raise NotReady("the gateway is starting, and rollouts are not there yet: try again in some seconds")

    async def _refused(self, action: str, model: str, version: int, actor: Actor, why: str) -> None:
        entry = AuditEntry(actor.name, actor.peer, action, model[:MAX_NAME], version, "", "refused", why, actor.reason)
        with contextlib.suppress(ServingError):  # the caller hears of the first error
            await asyncio.to_thread(self._audits.append_audit, entry)
        announce_refusal(self._changes.refusals, action, model, actor, "refused", why)

    def _schema(self, model: str, version: int) -> Schema | None:
        desired = self._changes.desired.get(model)
        versions = desired.versions if desired is not None else ()
        digest = next((each.digest for each in versions if each.version == version), "")
        rows = self._around.rows
        return rows.schema(VersionKey(model, version, digest)) if rows is not None else None

    # Metrics

    def figures(self) -> list[RolloutFigures]:
        """Of those under way, and of each model's last one. Any thread."""
        under_way = list(self._runs.values())
        models = {run.model for run in under_way}
        ended = [run for run in list(self._ended.values()) if run.model not in models]
        return [figures_of(run.view()) for run in (*under_way, *ended)]
