"""Changes of the desired state: load, unload, labels, default. Each is one transaction, audited, one at a time a model.

A load has two phases. First every worker loads and warms up the new versions beside the old (*prepare*); one failure
and all forget them, and nothing has changed. Then the new desired state is written to the store, and the workers' next
orders route to it (*serve*): each worker flips by one assignment, and old versions unload after their last lease.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.control.audit import SET_ROUTE, SYSTEM, Actor, announce, announce_refusal, audit_entry, describe
from gateway.control.desired import (
    model_order,
    operators_route,
    with_default,
    with_label,
    with_route,
    without_label,
    without_version,
)
from gateway.control.fleet import Fleet
from gateway.control.loads import Loads
from gateway.control.rollout_changes import Before, before_rollout, begun, promoted, require_fit, taken_back
from gateway.control.traffic import RolloutsUnderWay, with_traffic
from gateway.errors import Precondition
from gateway.messages import ModelOrder
from gateway.store.contract import AuditEntry, DesiredModel, DesiredVersion, Store
from gateway.telemetry.events import EventLog
from gateway.telemetry.refusals import ChangeRefusals
from runtime.errors import InvalidRequest, NotFound, ServingError
from runtime.repository.cache import ArtifactCache
from runtime.repository.repository import Repository, Scan
from runtime.routing.route import Route

log = logging.getLogger(__name__)

FLIP_SECONDS = 10.0  # for all workers to take up new routes, which takes them milliseconds
AT_ONCE = 4  # loads at the first start: the time limit of one must not pass while it waits for others
WORKER_SECONDS = 30.0  # for a first worker to be there


@dataclass(frozen=True, slots=True)
class Outcome:
    changed: bool
    audit_id: int
    seconds: float


Change = Callable[[], Awaitable[tuple[DesiredModel, DesiredModel | None]]]
"""Answers the model after and before."""


class Changes:
    """Owns the desired state. Runs on control's event loop; store and repository are called on threads."""

    def __init__(
        self,
        store: Store,
        repository: Repository,
        cache: ArtifactCache,
        events: EventLog | None = None,
        on_swap: Callable[[float, str], None] | None = None,
    ) -> None:
        """`on_swap(seconds, model)` is told of each change of what is served."""
        self._on_swap = on_swap
        self._events = events if events is not None else EventLog()
        self.refusals = ChangeRefusals(self._events)
        self._store = store
        self._cache = cache
        self.fleet: Fleet  # set before start: the fleet needs this object's callbacks
        self.rollouts: RolloutsUnderWay | None = None
        self.replaying: Callable[[str], tuple[int, ...]] = lambda _model: ()
        """Versions of a model that rows are being replayed through."""
        self.desired: dict[str, DesiredModel] = {}
        self._loads = Loads(repository, lambda: self.fleet, self._broadcast, self._events)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._sweep_lock = asyncio.Lock()
        self._under_way = 0  # changes that may use files which the desired state does not name yet
        self._transactions: set[asyncio.Task[Outcome]] = set()
        self._restored = asyncio.Event()
        self._booting = True

    async def start(self, *, load_new: bool, workers: int) -> None:
        """Brings back what the store desires; with `load_new`, loads models that it has never heard of."""
        self.desired = await asyncio.to_thread(self._store.load_models)
        await self.rescan()
        for model in self.desired.values():
            await self._loads.find_files(model)
        self._broadcast()
        self._restored.set()
        await self.fleet.until(lambda: len(self.fleet.workers) >= workers, WORKER_SECONDS)
        if load_new:
            fresh = [name for name in sorted(self.scan.models) if name not in self.desired]
            turn = asyncio.Semaphore(AT_ONCE)
            await asyncio.gather(*(self._load_at_start(name, turn) for name in fresh))
        self._booting = False
        self._broadcast()
        await self._sweep()

    @property
    def scan(self) -> Scan:
        """What the repository held at the last look."""
        return self._loads.scan

    async def rescan(self) -> Scan:
        """What the repository holds now; those who ask while one looks share the next look."""
        return await self._loads.rescan()

    async def load(self, model: str, versions: Sequence[int], actor: Actor, *, force: bool = False) -> Outcome:
        """Raises ServingError; then nothing has changed."""

        async def change() -> tuple[DesiredModel, DesiredModel | None]:
            self._require_idle(model)
            await self.rescan()
            return await self._load(model, versions, force=force)

        return await self._transact("load", model, max(versions, default=0), actor, change)

    async def unload(self, model: str, version: int, actor: Actor) -> Outcome:
        async def change() -> tuple[DesiredModel, DesiredModel | None]:
            before = self.known(model)
            self._require_idle(model)
            if not version:
                return replace(before, served=False), before
            return without_version(before, version), before

        return await self._transact("unload", model, version, actor, change)

    async def set_label(self, model: str, label: str, version: int, actor: Actor) -> Outcome:
        async def change() -> tuple[DesiredModel, DesiredModel | None]:
            before = self.known(model)
            if label == before.default_target and before.labels.get(label) != version:
                self._require_idle(model)
            return with_label(before, label, version), before

        return await self._transact(f"set label {label}", model, version, actor, change)

    async def delete_label(self, model: str, label: str, actor: Actor) -> Outcome:
        async def change() -> tuple[DesiredModel, DesiredModel | None]:
            before = self.known(model)
            return without_label(before, label), before

        return await self._transact(f"delete label {label}", model, 0, actor, change)

    async def set_default(self, model: str, target: str, actor: Actor) -> Outcome:
        async def change() -> tuple[DesiredModel, DesiredModel | None]:
            before = self.known(model)
            self._require_idle(model)
            return with_default(before, target), before

        return await self._transact(f"set default {target or '(newest)'}", model, 0, actor, change)

    async def set_route(self, model: str, route: Route | None, actor: Actor) -> Outcome:
        """`route` None: none, the default alone. RouteError for targets that are not served, with every problem."""
        wanted = route if route is not None else Route()

        async def change() -> tuple[DesiredModel, DesiredModel | None]:
            return self.routed(model, wanted), self.known(model)

        return await self._transact(SET_ROUTE, model, 0, actor, change)

    def routed(self, model: str, route: Route) -> DesiredModel:
        """The model as it would be with `route`, or the error that `set_route` would raise."""
        before = self.known(model)
        if route.split:
            self._require_idle(model)
        return with_route(before, route)

    def effective_route(self, model: str) -> Route:
        """The operators' route, with what a rollout under way makes of it."""
        desired = self.desired.get(model)
        return self.with_rollout(desired) if desired is not None else Route()

    def with_rollout(self, model: DesiredModel) -> Route:
        """The same of a model as it may be."""
        traffic = self.rollouts.traffic(model.name) if self.rollouts is not None else None
        return with_traffic(operators_route(model), traffic, model.labels)

    def before_rollout(self, model: str, candidate: int) -> Before:
        """What a rollout has to keep before it begins: after a restart in between, it cannot be told any more."""
        return before_rollout(self.known(model), candidate)

    async def begin_rollout(self, model: str, baseline: int, candidate: int, actor: Actor) -> Before:
        """Loads the candidate beside all that is served, on every worker, and holds the default where it is.

        Raises ServingError; then nothing has changed. Done again it changes nothing.
        """
        before: list[Before] = []

        async def change() -> tuple[DesiredModel, DesiredModel | None]:
            await self.rescan()
            known = self.known(model)
            require_fit(known, baseline, candidate)
            before.append(before_rollout(known, candidate))
            return begun(known, await self._loads.join(known, candidate), baseline), known

        await self._transact("begin rollout", model, candidate, actor, change)
        return before[0]

    async def end_rollout(
        self, model: str, baseline: int, candidate: int, before: Before, *, live: bool, actor: Actor
    ) -> Outcome:
        """`live`: the default leads to the candidate; else all is as `before`. Done again it changes nothing.

        In either case workers have taken up the effective route when it returns.
        """

        async def change() -> tuple[DesiredModel, DesiredModel | None]:
            known = self.known(model)
            if live:
                return promoted(known, baseline, candidate), known
            selects = self._loads.policy_selects(model, candidate)
            return taken_back(known, baseline, candidate, before, policy_selects=selects), known

        outcome = await self._transact("end rollout", model, candidate, actor, change)
        if not outcome.changed:
            await self.refresh(model)
        return outcome

    async def refresh(self, model: str) -> None:
        """Tells the workers of another effective route, and waits until they have taken it up."""
        revision = self._broadcast()
        if not await self.fleet.until(lambda: self.fleet.all_at(revision), FLIP_SECONDS):
            log.warning("not every worker has taken up the change of %s yet", model)

    async def differs(self, model: str) -> bool:
        """True if a load would change what is served, and has not been tried on the same files before."""
        if self._locks[model].locked() or self._busy(model):
            return False
        return await self._loads.differs(model, self.desired.get(model))

    def unavailable(self, model: str) -> dict[int, str]:
        """Versions in the repository that are not served, and why."""
        return self._loads.unavailable(model, self.desired.get(model))

    def failure(self, model: str, version: int) -> str:
        """Why the last attempt to load a version failed, as `Loads.failure` says."""
        return self._loads.failure(model, version)

    def preparing(self, model: str) -> list[DesiredVersion]:
        return [version for version, _ in self._loads.trial(model).new]

    def _busy(self, model: str) -> str:
        return self.rollouts.busy(model) if self.rollouts is not None else ""

    def _require_idle(self, model: str) -> None:
        """Raises Precondition while a rollout is under way."""
        if why := self._busy(model):
            raise Precondition(why)

    async def _transact(self, action: str, model: str, version: int, actor: Actor, change: Change) -> Outcome:
        """Goes on if the caller goes away: nothing may be cut off between the store and the workers."""
        task = asyncio.create_task(self._transaction(action, model, version, actor, change))
        self._transactions.add(task)
        task.add_done_callback(self._transactions.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # raised to the caller, if any
        return await asyncio.shield(task)

    async def _transaction(self, action: str, model: str, version: int, actor: Actor, change: Change) -> Outcome:
        started = time.monotonic()
        await self._restored.wait()
        async with self._locks[model]:
            async with self._sweep_lock:
                self._under_way += 1
            try:
                after, before = await change()
                if before is not None and after == before:
                    record = await self._audit(action, after, version, actor, "unchanged", "it was already so")
                    self._abandon(model)
                    return Outcome(changed=False, audit_id=record, seconds=time.monotonic() - started)
                audit = audit_entry(action, after, version, actor, "done", describe(after, action), before)
                record = await self._commit(after, before, audit)
            except ServingError as error:
                tried = tuple(self.preparing(model))
                self._abandon(model)
                refused = isinstance(error, (Precondition, NotFound, InvalidRequest))
                stand_in = self.desired.get(model) or DesiredModel(name=model[:128], served=False)
                if action in ("load", "begin rollout"):  # not what is served, but what should have been
                    stand_in = replace(stand_in, versions=tried)
                outcome = "refused" if refused else "failed"
                await self._audit(action, stand_in, version, actor, outcome, error.message)
                announce_refusal(self.refusals, action, model, actor, outcome, error.message)
                raise
            except BaseException:
                self._abandon(model)
                raise
            finally:
                self._under_way -= 1
            await self._sweep()
            seconds = time.monotonic() - started
            log.info("%s %s by %s done in %.3f s: %s", action, model, actor.name, seconds, describe(after, action))
            if self._on_swap is not None:
                self._on_swap(seconds, model)
            announce(self._events, audit, record, before, after, seconds)
            return Outcome(changed=True, audit_id=record, seconds=seconds)

    async def _load(
        self, model: str, wanted: Sequence[int], *, force: bool
    ) -> tuple[DesiredModel, DesiredModel | None]:
        before = self.desired.get(model)
        return await self._loads.load(model, before, wanted, force=force), before

    async def _commit(self, after: DesiredModel, before: DesiredModel | None, audit: AuditEntry) -> int:
        """Phase two: durable first, then visible."""
        expected = before.revision if before is not None else 0
        record = await asyncio.to_thread(self._store.put_model, after, expected_revision=expected, audit=audit)
        self.desired[after.name] = replace(after, revision=expected + 1)
        self._loads.failed_at_start(after.name, "")
        self._loads.end_trial(after.name)
        await self.refresh(after.name)
        return record.id

    def _abandon(self, model: str) -> None:
        if self._loads.end_trial(model):
            self._broadcast()

    def _broadcast(self) -> int:
        models = sorted({*self.desired, *self._loads.under_trial, *self.scan.models})
        return self.fleet.order([self._order(name) for name in models], hold=self._booting)

    def _order(self, name: str) -> ModelOrder:
        trial = self._loads.trial(name)
        desired = self.desired.get(name) or DesiredModel(name=name, served=False)
        candidates = self._loads.candidates(name)
        route = self.with_rollout(desired)
        return model_order(
            desired,
            candidates,
            trial.new,
            trial.worker,
            self.unavailable(name),
            route,
            prepare_on_shadow=trial.on_shadow,
            replay=self.replaying(name),
        )

    async def _load_at_start(self, model: str, turn: asyncio.Semaphore) -> None:
        first_start = replace(SYSTEM, reason="first start")
        async with turn:
            try:
                await self._transact("load", model, 0, first_start, lambda: self._load(model, (), force=False))
            except ServingError as error:
                self._loads.failed_at_start(model, error.message)

    async def _sweep(self) -> None:
        """Forgets files that nothing serves any more; while a change is under way that is left to the next sweep."""
        async with self._sweep_lock:
            if self._under_way:
                return
            kept = self._loads.forget_all_but(self.desired.values())
            try:
                await asyncio.to_thread(self._cache.keep, kept)
            except ServingError as error:  # the change itself is done
                log.warning("files that nothing serves could not be removed: %s %s", error.message, error.detail)

    async def _audit(
        self, action: str, model: DesiredModel, version: int, actor: Actor, outcome: Any, detail: str
    ) -> int:
        made = audit_entry(action, model, version, actor, outcome, detail)
        return (await asyncio.to_thread(self._store.append_audit, made)).id

    def known(self, model: str) -> DesiredModel:
        """Raises NotFound for a model that has never been loaded, or NotReady where the repository cannot tell."""
        found = self.desired.get(model)
        if found is None:
            if model in self.scan.models:
                raise NotFound(f"model {model!r} has never been loaded: load it first")
            raise self._loads.not_in_repository(model)
        return found
