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

from gateway.control.audit import SYSTEM, Actor, announce, announce_refusal, audit_entry, describe
from gateway.control.desired import (
    Candidate,
    choose_versions,
    model_order,
    next_versions,
    pinned_by_names,
    with_default,
    with_label,
    without_label,
    without_version,
)
from gateway.control.fleet import Fleet
from gateway.control.preparation import ALL_WORKERS, Preparations, Trial, VersionFailed
from gateway.errors import Precondition
from gateway.messages import ModelOrder, manifest_document
from gateway.routing.table import target_version
from gateway.store.contract import AuditEntry, DesiredModel, DesiredVersion, Store
from gateway.telemetry.events import REPOSITORY_PROBLEM, EventLog
from gateway.telemetry.refusals import ChangeRefusals
from runtime.errors import IncompleteVersion, LoadError, NotFound, NotReady, ServingError
from runtime.repository.cache import ArtifactCache
from runtime.repository.manifest import Manifest
from runtime.repository.repository import ModelEntry, Repository, Scan

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
        self._repository = repository
        self._cache = cache
        self.fleet: Fleet  # set before start: the fleet needs this object's callbacks
        self.desired: dict[str, DesiredModel] = {}
        self.scan = Scan()
        self._candidates: dict[str, dict[tuple[int, str], Candidate]] = defaultdict(dict)
        self._preparations = Preparations(lambda: self.fleet, self._broadcast)
        self._failures: dict[str, dict[int, str]] = defaultdict(dict)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._scan_lock = asyncio.Lock()
        self._scan_began = 0.0
        self._sweep_lock = asyncio.Lock()
        self._under_way = 0  # changes that may use files which the desired state does not name yet
        self._tried: dict[str, dict[int, tuple[str, dict[str, Any]]]] = {}
        self._generations: defaultdict[str, int] = defaultdict(int)
        self._transactions: set[asyncio.Task[Outcome]] = set()
        self._restored = asyncio.Event()
        self._booting = True

    async def start(self, *, load_new: bool, workers: int) -> None:
        """Brings back what the store desires; with `load_new`, loads models that it has never heard of."""
        self.desired = await asyncio.to_thread(self._store.load_models)
        await self.rescan()
        for model in self.desired.values():
            await self._find_files(model)
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

    async def rescan(self) -> Scan:
        """What the repository holds now; those who ask while one looks share the next look."""
        asked = time.monotonic()
        async with self._scan_lock:
            if self._scan_began > asked:
                return self.scan
            self._scan_began = time.monotonic()
            before = self.scan.problems
            self.scan = await asyncio.to_thread(self._repository.scan)
            for problem in set(self.scan.problems) - set(before):
                self._events.emit(REPOSITORY_PROBLEM, error=problem)
            for problem in set(before) - set(self.scan.problems):
                log.info("repository: no longer so: %s", problem)
            return self.scan

    async def load(self, model: str, versions: Sequence[int], actor: Actor, *, force: bool = False) -> Outcome:
        """Raises ServingError; then nothing has changed."""

        async def change() -> tuple[DesiredModel, DesiredModel | None]:
            await self.rescan()
            return await self._load(model, versions, force=force)

        return await self._transact("load", model, max(versions, default=0), actor, change)

    async def unload(self, model: str, version: int, actor: Actor) -> Outcome:
        async def change() -> tuple[DesiredModel, DesiredModel | None]:
            before = self._known(model)
            if not version:
                return replace(before, served=False), before
            return without_version(before, version), before

        return await self._transact("unload", model, version, actor, change)

    async def set_label(self, model: str, label: str, version: int, actor: Actor) -> Outcome:
        async def change() -> tuple[DesiredModel, DesiredModel | None]:
            before = self._known(model)
            return with_label(before, label, version), before

        return await self._transact(f"set label {label}", model, version, actor, change)

    async def delete_label(self, model: str, label: str, actor: Actor) -> Outcome:
        async def change() -> tuple[DesiredModel, DesiredModel | None]:
            before = self._known(model)
            return without_label(before, label), before

        return await self._transact(f"delete label {label}", model, 0, actor, change)

    async def set_default(self, model: str, target: str, actor: Actor) -> Outcome:
        async def change() -> tuple[DesiredModel, DesiredModel | None]:
            before = self._known(model)
            return with_default(before, target), before

        return await self._transact(f"set default {target or '(newest)'}", model, 0, actor, change)

    async def differs(self, model: str) -> bool:
        """True if a load would change what is served, and has not been tried on the same files before."""
        entry = self.scan.models.get(model)
        if entry is None or entry.problems or self._locks[model].locked():
            return False
        before = self.desired.get(model)
        try:
            versions = choose_versions(model, entry.versions, entry.manifest, (), self._keep(before, entry))
            candidates = {v: await self._candidate(entry, before, v) for v in versions}
        except ServingError:
            return False
        found = {v: (c.artifact.digest, dict(c.settings)) for v, c in candidates.items()}
        if self._tried.get(model) == found:
            return False
        self._tried[model] = found
        chosen = next_versions(before, candidates, force=False, last_generation=0)
        return before is None or chosen != before.versions

    def unavailable(self, model: str) -> dict[int, str]:
        """Versions in the repository that are not served, and why."""
        entry = self.scan.models.get(model)
        reasons: dict[int, str] = {}
        if entry is not None:
            desired = self.desired.get(model)
            why = "not loaded" if desired is None or desired.served else "unloaded by an operator"
            reasons = dict.fromkeys(entry.versions, why)
            reasons |= {version: f"incomplete: {problem}" for version, problem in entry.incomplete.items()}
        return reasons | {v: why for v in self._failures.get(model, {}) if (why := self.failure(model, v))}

    def failure(self, model: str, version: int) -> str:
        """Why the last attempt to load a version failed; "" if it did not, or if that version's files have gone.

        Version 0 is the model's load at the gateway's start.
        """
        entry = self.scan.models.get(model)
        if version and entry is not None and version not in entry.versions:
            return ""
        return self._failures.get(model, {}).get(version, "")

    def preparing(self, model: str) -> list[DesiredVersion]:
        trial = self._preparations.trials.get(model)
        return [version for version, _ in trial.new] if trial is not None else []

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
                audit = audit_entry(action, after, version, actor, "done", describe(after), before)
                record = await self._commit(after, before, audit)
            except ServingError as error:
                tried = tuple(self.preparing(model))
                self._abandon(model)
                refused = isinstance(error, (Precondition, NotFound))
                stand_in = self.desired.get(model) or DesiredModel(name=model[:128], served=False)
                if action == "load":  # not what is served, but what should have been
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
            log.info("%s %s by %s done in %.3f s: %s", action, model, actor.name, seconds, describe(after))
            if self._on_swap is not None:
                self._on_swap(seconds, model)
            announce(self._events, audit, record, before, after, seconds)
            return Outcome(changed=True, audit_id=record, seconds=seconds)

    async def _load(
        self, model: str, wanted: Sequence[int], *, force: bool
    ) -> tuple[DesiredModel, DesiredModel | None]:
        entry = self.scan.models.get(model)
        if entry is None:
            raise self._not_in_repository(model)
        if entry.problems:
            raise LoadError("\n".join(entry.problems))
        before = self.desired.get(model)
        keep = self._keep(before, entry)
        for number in wanted:
            if number in entry.incomplete:
                raise IncompleteVersion(
                    f"version {number} of model {model!r} is incomplete: {entry.incomplete[number]}"
                )
        versions = choose_versions(model, entry.versions, entry.manifest, wanted, keep)
        candidates = {v: await self._candidate(entry, before, v) for v in versions}
        last = self._generations[model]
        chosen = next_versions(before, candidates, force=force, last_generation=last)
        self._generations[model] = max(last, *(version.generation for version in chosen))
        names = self._names(before, entry.manifest, versions)
        after = DesiredModel(
            name=model,
            served=True,
            versions=chosen,
            pinned_versions=tuple(sorted(wanted)),
            revision=before.revision if before is not None else 0,
            **names,
        )
        serving = set(before.versions) if before is not None and before.served else set()
        await self._prepare_on_workers(
            model, [(version, candidates[version.version]) for version in chosen if version not in serving]
        )
        for one in chosen:
            self._candidates[model][one.version, one.digest] = candidates[one.version]
        return after, before

    async def _prepare_on_workers(self, model: str, new: list[tuple[DesiredVersion, Candidate]]) -> None:
        """Phase one. Raises LoadError with the first worker's reason."""
        if not new:
            return
        for version, _ in new:
            self._failures[model].pop(version.version, None)
        try:
            await self._preparations.run(model, new)
        except VersionFailed as error:
            self._failures[model][error.version] = error.why
            raise

    async def _commit(self, after: DesiredModel, before: DesiredModel | None, audit: AuditEntry) -> int:
        """Phase two: durable first, then visible."""
        expected = before.revision if before is not None else 0
        record = await asyncio.to_thread(self._store.put_model, after, expected_revision=expected, audit=audit)
        self.desired[after.name] = replace(after, revision=expected + 1)
        self._failures[after.name].pop(0, None)
        self._preparations.end(after.name)
        revision = self._broadcast()
        if not await self.fleet.until(lambda: self.fleet.all_at(revision), FLIP_SECONDS):
            log.warning("not every worker has taken up the change of %s yet", after.name)
        return record.id

    def _abandon(self, model: str) -> None:
        if self._preparations.end(model):
            self._broadcast()

    def _broadcast(self) -> int:
        models = sorted({*self.desired, *self._preparations.trials, *self.scan.models})
        return self.fleet.order([self._order(name) for name in models], hold=self._booting)

    def _order(self, name: str) -> ModelOrder:
        trial = self._preparations.trials.get(name) or Trial((), ALL_WORKERS)
        desired = self.desired.get(name) or DesiredModel(name=name, served=False)
        return model_order(desired, self._candidates[name], trial.new, trial.worker, self.unavailable(name))

    def _names(self, before: DesiredModel | None, manifest: Manifest, versions: Sequence[int]) -> dict[str, Any]:
        """Labels and default: the operators', or at a model's first load the manifest's."""
        if before is not None:
            labels = {name: v for name, v in before.labels.items() if v in versions}
            target = before.default_target
            if target and target_version(target, labels) not in versions:
                target = ""
            return {"labels": labels, "default_target": target}
        labels = {name: v for name, v in manifest.labels.items() if v in versions}
        target = manifest.default
        if target and target_version(target, labels) not in versions:
            raise Precondition(
                f"model.yaml's default is {target!r}, which means none of the versions to be served "
                f"({', '.join(map(str, versions))}): change default, labels or versions"
            )
        return {"labels": labels, "default_target": target}

    async def _load_at_start(self, model: str, turn: asyncio.Semaphore) -> None:
        first_start = replace(SYSTEM, reason="first start")
        async with turn:
            try:
                await self._transact("load", model, 0, first_start, lambda: self._load(model, (), force=False))
            except ServingError as error:
                self._failures[model][0] = error.message

    def _keep(self, before: DesiredModel | None, entry: ModelEntry) -> tuple[int, ...]:
        """Versions that names pin, as far as their files can be had."""
        if before is None:
            return ()
        held = {number for number, _ in self._candidates[entry.name]} if before.served else set()
        return tuple(v for v in pinned_by_names(before) if v in entry.versions or v in held)

    async def _candidate(self, entry: ModelEntry, before: DesiredModel | None, version: int) -> Candidate:
        if version not in entry.versions and before is not None:  # pinned by a name, and gone from the repository
            digest = next(v.digest for v in before.versions if v.version == version)
            return self._candidates[entry.name][version, digest]
        try:
            artifact = await asyncio.to_thread(self._repository.fetch, entry.name, version)
        except ServingError as error:
            self._failures[entry.name][version] = error.message
            raise
        return Candidate(artifact, manifest_document(entry.manifest))

    async def _find_files(self, model: DesiredModel) -> None:
        """From the cache, by digest; else from the repository, if it still holds that content."""
        entry = self.scan.models.get(model.name)
        for version in model.versions if model.served else ():
            artifact = await asyncio.to_thread(self._repository.cached, model.name, version.version, version.digest)
            if artifact is None and entry is not None and version.version in entry.versions:
                try:
                    found = await asyncio.to_thread(self._repository.fetch, model.name, version.version)
                except ServingError as error:
                    log.warning("%s/%d: %s", model.name, version.version, error.message)
                    continue
                if found.digest != version.digest:
                    log.warning(
                        "%s/%d: the repository holds other content (%s) than was served (%s); load it to take it",
                        model.name, version.version, found.digest, version.digest,
                    )  # fmt: skip
                    continue
                artifact = found
            if artifact is not None:
                self._candidates[model.name][version.version, version.digest] = Candidate(artifact, version.settings)

    async def _sweep(self) -> None:
        """Forgets files that nothing serves any more; while a change is under way that is left to the next sweep."""
        async with self._sweep_lock:
            if self._under_way:
                return
            kept: set[str] = set()
            for name, model in self.desired.items():
                wanted = {(v.version, v.digest) for v in model.versions} if model.served else set()
                self._candidates[name] = {key: c for key, c in self._candidates[name].items() if key in wanted}
                kept |= {digest for _, digest in wanted}
            try:
                await asyncio.to_thread(self._cache.keep, kept)
            except ServingError as error:  # the change itself is done
                log.warning("files that nothing serves could not be removed: %s %s", error.message, error.detail)

    async def _audit(
        self, action: str, model: DesiredModel, version: int, actor: Actor, outcome: Any, detail: str
    ) -> int:
        made = audit_entry(action, model, version, actor, outcome, detail)
        return (await asyncio.to_thread(self._store.append_audit, made)).id

    def _known(self, model: str) -> DesiredModel:
        found = self.desired.get(model)
        if found is None:
            if model in self.scan.models:
                raise NotFound(f"model {model!r} has never been loaded: load it first")
            raise self._not_in_repository(model)
        return found

    def _not_in_repository(self, model: str) -> ServingError:
        if self.scan.problems and not self.scan.complete:
            return NotReady(f"model {model[:128]!r} cannot be looked up: {'; '.join(self.scan.problems)}")
        known = ", ".join(sorted(self.scan.models)[:20]) or "none"
        return NotFound(f"no model {model[:128]!r} in the repository; it has: {known}")
