"""One rollout under way: looks at it, stores what is decided, then makes the world as it wants it.

    look, command      under the rollout's lock: count → decide → store, with audit; nothing is visible yet
    apply              beside it, one at a time: workers take up the traffic; after an end the desired state is settled

Durable first, then visible: so whatever ends control in between, the next one finds what was decided and does the rest,
all of which may be done twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from gateway.control.audit import SYSTEM, Actor
from gateway.control.rollout_changes import Before
from gateway.control.rollout_checks import DesiredState
from gateway.control.rollout_counts import Counters, Reading, Totals
from gateway.control.rollout_events import RolloutWatchers, announce_decision, rollout_entry
from gateway.control.rollout_pane_gates import PaneGates, wants_panes
from gateway.control.rollout_replay import ReplayDesk, ReplayRun, ReplayWanted
from gateway.control.rollout_rows import RolloutRows
from gateway.control.rollout_state import RolloutState
from gateway.control.rollout_views import DecisionView, RolloutNews, RolloutView
from gateway.control.traffic import Traffic
from gateway.store.contract import StoreError
from gateway.store.panes import VersionKey
from gateway.store.rollouts import NewDecision, RolloutChange, RolloutStore, StoredDecision, StoredRollout
from gateway.telemetry.events import EventLog
from gateway.throttle import Throttle
from runtime.errors import ServingError
from runtime.rollout.decide import command, recompute, step
from runtime.rollout.decision import Command, Decision, Verb
from runtime.rollout.phase import FINAL, JUDGED, MOVING, Phase
from runtime.rollout.plan import Plan
from runtime.rollout.rollout import Rollout, route

log = logging.getLogger(__name__)

Decided = tuple[Decision, Actor]


class RolloutChanges(DesiredState, Protocol):
    """What a rollout asks of `Changes`. All of it may be done again; each raises ServingError."""

    async def begin_rollout(self, model: str, baseline: int, candidate: int, actor: Actor) -> Before:
        """Loads the candidate beside what is served, and pins the default. Answers what was before."""

    async def end_rollout(
        self, model: str, baseline: int, candidate: int, before: Before, *, live: bool, actor: Actor
    ) -> Any:
        """Makes the candidate the default (`live`), or brings back what was `before`."""

    async def refresh(self, model: str) -> None:
        """Tells the workers of the model's traffic, and waits until they have taken it up."""


@dataclass(frozen=True)
class Surroundings:
    """What all rollouts share. `rows` None: nothing is measured; `replays` None: nothing can be replayed.
    `thresholds`: of drift, by version.

    `clock`: Unix time, seconds; `steady`: seconds that nobody sets.
    """

    store: RolloutStore
    changes: RolloutChanges
    counters: Counters
    events: EventLog
    watchers: RolloutWatchers
    rows: RolloutRows | None = None
    thresholds: Callable[[VersionKey], Mapping[str, float]] = lambda _key: {}
    clock: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    replays: ReplayDesk | None = None


class RolloutRun:
    """Single-threaded: on control's event loop."""

    def __init__(
        self, around: Surroundings, stored: StoredRollout, plan: Plan, state: RolloutState, last: Decision | None = None
    ) -> None:
        self.id = stored.id
        self.plan = plan
        self.state = state
        self.last = last
        self.settled = stored.settled
        """Its end is done, and nothing is left to do."""
        self._around = around
        self._stored = stored
        self._before = stored.before
        self._ended_seconds = stored.ended_at.timestamp() if stored.ended_at is not None else 0.0
        self._lock = asyncio.Lock()
        self._withheld = False  # harm was seen and could not be stored
        self._gates = PaneGates(around.rows, plan) if around.rows is not None and wants_panes(plan) else None
        self._ended_by = SYSTEM
        self._read = 0  # the last reading's number
        self._owes = False
        self._looked = asyncio.Event()
        self._beginning: asyncio.Task[None] | None = None
        self._applying: asyncio.Task[None] | None = None
        self._replay = ReplayRun(around.replays, f"rollout {stored.id} of {plan.model}")
        self._complaints: Throttle[str] = Throttle("others")

    @property
    def model(self) -> str:
        return self.plan.model

    @property
    def rollout(self) -> Rollout:
        return self.state.rollout

    @property
    def versions(self) -> tuple[int, int]:
        """Baseline and candidate."""
        return self._stored.baseline, self._stored.candidate

    @property
    def traffic(self) -> Traffic | None:
        """What workers should make of the model's route now."""
        phase = self.rollout.phase
        if not self.state.loaded or self.settled or phase in (Phase.DRAFT, Phase.ROLLED_BACK, Phase.ABORTED):
            return None
        if self._withheld:
            return Traffic(*self.versions, 0.0, 0.0)
        wanted = route(self.plan, self.rollout)
        return Traffic(*self.versions, wanted.weight_percent, wanted.shadow_percent)

    def view(self) -> RolloutView:
        return RolloutView(
            self.id,
            self.model,
            *self.versions,
            self.plan,
            self.rollout,
            self._stored.created_at.timestamp(),
            self._ended_seconds,
            self.last,
        )

    # The beginning

    def start(self, *, restored: bool = False) -> None:
        """Once, after its creation or after a restart of control: goes on with whatever has not been done."""
        if self.rollout.phase in FINAL or self.state.loaded:
            self.apply()
        else:
            self._beginning = asyncio.create_task(self._begin(again=restored))

    async def restore_rows(self) -> None:
        """After a restart, before the first look."""
        if self.rollout.phase in JUDGED and self.state.loaded:
            await self._open_rows(restored=True)

    async def _begin(self, *, again: bool) -> None:
        """Loads the candidate. That it cannot be loaded is the first thing that is decided of the rollout.

        again: it may have been done, and not been noted; then what was before is known from the first time.
        """
        around, starter = self._around, Actor(self.state.actor, self.state.peer, self.state.asked_because)
        before, failure = None, ""
        try:
            before = (await around.changes.begin_rollout(self.model, *self.versions, starter)).to_json()
        except ServingError as error:
            failure = error.message
        except Exception:
            log.exception("rollout %d of %s: its candidate could not be loaded", self.id, self.model)
            failure = "an internal error; control's log has more"
        if before is not None and not again:
            self._before = before
        while not await self._begun(failure, starter):
            self._looked.clear()  # the store cannot be written: nothing is visible before it is durable
            await self._looked.wait()
        self.apply()

    async def _begun(self, failure: str, starter: Actor) -> bool:
        reading = await asyncio.to_thread(self._around.counters.read)
        async with self._lock:
            if self.rollout.phase in FINAL:
                return True  # aborted meanwhile
            now = self._around.clock()
            after, decided = self.rollout, list[Decided]()
            if after.phase is Phase.DRAFT:
                asked = Command(Verb.START, starter.name, starter.reason)
                after, first, _ = command(self.plan, after, now, asked)
                decided.append((first, starter))
            state = self._counting_anew(self.state, after, reading, now)
            if failure:
                state, observation = state.looked(self._totals(reading, after))
                observation = replace(observation, load_failed=failure)
                after, second, _ = step(self.plan, after, now, observation)
                decided.append((second, SYSTEM))
            state = replace(state, rollout=after, loaded=not failure)
            return await self._keep(state, decided, reading)

    # Looks and commands

    def clock_jumped(self, seconds: float) -> None:
        """Somebody has set the clock: what it went on by is no time of the step, and what it went back by is none."""
        last = self.rollout.last_seconds
        if last is not None:
            self.state = replace(self.state, rollout=replace(self.rollout, last_seconds=last + seconds))

    async def look(self, reading: Reading, now_seconds: float) -> None:
        """Counts, decides and stores; what is visible follows beside it."""
        self._looked.set()
        if self._owes and (self._applying is None or self._applying.done()):
            self.apply()
        async with self._lock:
            if self.rollout.phase not in JUDGED or not self.state.loaded or reading.number <= self._read:
                return
            if self._gates is not None:
                self.state = replace(self.state, rows=self._gates.look(self.state.rows, now_seconds))
            totals = self._totals(reading, self.rollout)
            new_means = self._gates.new_means if self._gates is not None else ((), ())
            replayed = self._replay.come(self.rollout, self._replay_wanted())
            state, observation = self.state.looked(totals, new_means, replayed)
            after, decision, _ = step(self.plan, self.rollout, now_seconds, observation)
            decided: list[Decided] = [(decision, SYSTEM)]
            lost = state.counting.lost if state.counting is not None else 0
            if lost and not decision.moved and after.phase in MOVING:
                after, paused = self._paused(after, now_seconds, lost)
                decided.append((paused, SYSTEM))
            if state.counting is not None:  # told once: an operator may go on with it
                mark = replace(state.counting.mark, lost=totals.lost)
                state = replace(state, counting=replace(state.counting, mark=mark))
            state = self._after(state, after, reading, now_seconds)
            if await self._keep(state, decided, reading):
                if self._withheld and not decision.moved:
                    self.apply()  # more requests have shown it harmless after all: it gets its traffic again
                self._withheld = False
            elif after.phase is Phase.ROLLED_BACK and not self._withheld:
                # A version that does harm gets nothing more, even if that can only be noted later.
                self._withheld = True
                self.apply()

    def _paused(self, rollout: Rollout, now_seconds: float, lost: int) -> tuple[Rollout, Decision]:
        why = (
            f"{lost} series of requests found no room in the workers' pages, so what is counted may lack some; "
            "restart the gateway as a whole, or resume with what is counted"
        )
        after, decision, _ = command(self.plan, rollout, now_seconds, Command(Verb.PAUSE, SYSTEM.name, why))
        return after, decision

    async def command(self, verb: Verb, actor: Actor, now_seconds: float) -> None:
        """Raises NotPossible where the phase does not allow it, and StoreError; then nothing has changed."""
        reading = await asyncio.to_thread(self._around.counters.read)
        async with self._lock:
            after, decision, _ = command(self.plan, self.rollout, now_seconds, Command(verb, actor.name, actor.reason))
            state = self._after(self.state, after, reading, now_seconds)
            await self._save(state, [(decision, actor)], reading)

    def _after(self, state: RolloutState, after: Rollout, reading: Reading, now_seconds: float) -> RolloutState:
        """`state` with the rollout as it is after a decision; a new epoch counts from this reading on."""
        if after.epoch != self.rollout.epoch:
            return self._counting_anew(state, after, reading, now_seconds)
        return replace(state, rollout=after)

    def _counting_anew(self, state: RolloutState, after: Rollout, reading: Reading, now_seconds: float) -> RolloutState:
        copies = self.plan.steps[after.step].is_shadow
        return state.begun(after, self._totals(reading, after), now_seconds, of_copies=copies)

    def _totals(self, reading: Reading, rollout: Rollout) -> Totals:
        copies = self.plan.steps[rollout.step].is_shadow
        return self._around.counters.totals(reading, self.model, *self.versions, of_copies=copies)

    async def _open_rows(self, *, restored: bool = False) -> None:
        """For the gates of the step that has begun."""
        if self._gates is None:
            return
        if self.rollout.phase not in JUDGED:
            self._gates.close()
            return
        baseline, candidate = (self._key(version) for version in self.versions)
        thresholds = self._around.thresholds(baseline)
        await self._gates.open(baseline, candidate, self.state.since_seconds, thresholds, restored=restored)

    def _replay_wanted(self) -> ReplayWanted:
        baseline, candidate = (self._key(version) for version in self.versions)
        return ReplayWanted(baseline, candidate, self.state.step_since_seconds)

    def _key(self, version: int) -> VersionKey:
        return VersionKey(self.model, version, self._digest(version))

    def _digest(self, version: int) -> str:
        model = self._around.changes.desired.get(self.model)
        versions = model.versions if model is not None else ()
        return next((each.digest for each in versions if each.version == version), "")

    # Durable first, then visible

    async def _keep(self, state: RolloutState, decided: Sequence[Decided], reading: Reading) -> bool:
        """False: the store could not be written, and all is as before."""
        try:
            await self._save(state, decided, reading)
        except StoreError as error:
            if self._complaints.passes("store", time.monotonic())[0] is not None:
                log.warning("rollout %d of %s cannot be stored, and stays as it was: %s", self.id, self.model, error)
            return False
        return True

    async def _save(self, state: RolloutState, decided: Sequence[Decided], reading: Reading) -> None:
        ends = state.rollout.phase in FINAL
        digest = self._digest(self.versions[1])

        def write() -> list[StoredDecision]:
            rows = [self._row(decision, actor, digest) for decision, actor in decided]
            change = RolloutChange(state.to_json(), rows, before=self._before, ended=ends)
            return self._around.store.save(self.id, change)

        before, stored = self.rollout, await asyncio.to_thread(write)
        self.state = state
        if self._gates is not None:
            self._gates.saved()
        self._read = max(self._read, reading.number)
        self.last = decided[-1][0]
        if ends and not self._ended_seconds:
            self._ended_seconds = self.last.at_seconds
            self._ended_by = replace(decided[-1][1], reason=self.last.reason)
        try:
            for row, (decision, actor) in zip(stored, decided, strict=True):
                self._tell(row, decision, actor, digest)
            self._replay.end_unless_wanted(state.rollout)
            if before.epoch != state.rollout.epoch or ends:
                await self._open_rows()
        finally:  # whatever becomes of telling: what is stored is done
            if any(decision.moved for decision, _ in decided):
                self.apply()

    def _row(self, decision: Decision, actor: Actor, digest: str) -> NewDecision:
        audit = rollout_entry(self.id, self.model, self.versions[1], digest, decision, actor)
        return NewDecision(decision.at_seconds, decision.moved, decision.to_json(), audit if decision.moved else None)

    def _tell(self, row: StoredDecision, decision: Decision, actor: Actor, digest: str) -> None:
        if decision.moved:
            announce_decision(
                self._around.events, self.id, self.plan, self.versions, digest, decision, actor, row.audit_id
            )
        if self._around.watchers.has(self.id):
            same = recompute(self.plan, decision) == decision
            shown = DecisionView(row.number, decision, row.audit_id, same)
            self._around.watchers.publish(RolloutNews(self.view(), shown))

    def apply(self) -> None:
        """Makes the workers and the desired state as the rollout wants them, beside the looks."""
        self._owes = True
        if self._applying is None or self._applying.done():
            self._applying = asyncio.create_task(self._apply())

    async def _apply(self) -> None:
        try:
            while self._owes:
                self._owes = False
                await self._around.changes.refresh(self.model)
                if self.rollout.phase in FINAL and not self.settled:
                    await self._settle()
        except Exception as error:
            self._owes = True  # the next look tries again
            if self._complaints.passes("apply", time.monotonic())[0] is not None:
                told = error.message if isinstance(error, ServingError) else repr(error)
                log.warning("what rollout %d of %s decided is not done yet: %s", self.id, self.model, told)

    async def _settle(self) -> None:
        """What the end asks of the desired state."""
        if self._beginning is not None:
            await asyncio.wait([self._beginning])  # a load under way is not cut off
        live = self.rollout.phase is Phase.LIVE
        before = Before.from_json(self._before)
        await self._around.changes.end_rollout(self.model, *self.versions, before, live=live, actor=self._ended_by)
        change = RolloutChange(self.state.to_json(), settled=True, ended=True)
        await asyncio.to_thread(self._around.store.save, self.id, change)
        self.settled = True
        await self._around.changes.refresh(self.model)

    async def idle(self) -> None:
        """Until nothing of it is going on beside the looks."""
        while tasks := [each for each in self._tasks if not each.done()]:
            await asyncio.wait(tasks)
        if self._gates is not None:
            await self._gates.idle()

    @property
    def _tasks(self) -> list[asyncio.Task[None]]:
        every = (self._beginning, self._applying, self._replay.task)
        return [task for task in every if task is not None]

    async def close(self) -> None:
        """Control ends: the rollout stays as it is stored."""
        if self._gates is not None:
            self._gates.close()
            await self._gates.idle()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
