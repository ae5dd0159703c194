"""What could be served: the repository's models, their files, and the trial of new versions on the workers.

Nothing here changes what is served: `Changes` writes it to the store, and tells the workers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gateway.control.desired import Candidate, choose_versions, names_at_load, next_versions, pinned_by_names
from gateway.control.fleet import Fleet
from gateway.control.preparation import ALL_WORKERS, Preparations, Trial, VersionFailed
from gateway.messages import manifest_document
from gateway.store.contract import DesiredModel, DesiredVersion
from gateway.telemetry.events import REPOSITORY_PROBLEM, EventLog
from runtime.errors import IncompleteVersion, LoadError, NotFound, NotReady, ServingError
from runtime.repository.repository import ModelEntry, Repository, Scan

log = logging.getLogger(__name__)


class Loads:
    """Runs on control's event loop; the repository is called on threads."""

    def __init__(
        self, repository: Repository, fleet: Callable[[], Fleet], broadcast: Callable[[], int], events: EventLog
    ) -> None:
        """`broadcast` sends all orders anew and answers their revision."""
        self._repository = repository
        self._broadcast = broadcast
        self._events = events
        self._preparations = Preparations(fleet, broadcast)
        self._candidates: dict[str, dict[tuple[int, str], Candidate]] = defaultdict(dict)
        self._failures: dict[str, dict[int, str]] = defaultdict(dict)
        self._generations: defaultdict[str, int] = defaultdict(int)
        self._tried: dict[str, dict[int, tuple[str, dict[str, Any]]]] = {}
        self._scan_lock = asyncio.Lock()
        self._scan_began = 0.0
        self.scan = Scan()

    @property
    def under_trial(self) -> Iterable[str]:
        return self._preparations.trials.keys()

    def trial(self, model: str) -> Trial:
        """The versions that its workers are to prepare now."""
        return self._preparations.trials.get(model) or Trial((), ALL_WORKERS)

    def end_trial(self, model: str) -> bool:
        """Forgets it; True if there was one."""
        return self._preparations.end(model)

    def candidates(self, model: str) -> Mapping[tuple[int, str], Candidate]:
        """By version and digest, those whose files are at hand."""
        return self._candidates[model]

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

    async def load(
        self, model: str, before: DesiredModel | None, wanted: Sequence[int], *, force: bool
    ) -> DesiredModel:
        """The model with its versions anew, each of them available on every worker. Raises ServingError."""
        entry = self._entry(model, wanted)
        versions = choose_versions(model, entry.versions, entry.manifest, wanted, self._keep(before, entry))
        names = names_at_load(before, entry.manifest, versions)
        candidates = {v: await self._candidate(entry, before, v) for v in versions}
        chosen = next_versions(before, candidates, force=force, last_generation=self._generations[model])
        await self._prepare(model, before, chosen, candidates)
        return DesiredModel(
            name=model,
            served=True,
            versions=chosen,
            pinned_versions=tuple(sorted(wanted)),
            revision=before.revision if before is not None else 0,
            labels=names.labels,
            default_target=names.default_target,
            route=names.route,
        )

    async def join(self, before: DesiredModel, version: int) -> tuple[DesiredVersion, ...]:
        """The versions served, and `version` beside them, available on every worker. Raises ServingError.

        Those that are served stay as they are, whatever the repository holds of them by now.
        """
        if any(served.version == version for served in before.versions):
            return before.versions
        entry = self._entry(before.name, (version,))
        choose_versions(before.name, entry.versions, entry.manifest, (version,), ())
        candidate = await self._candidate(entry, None, version)
        past = [served.generation for served in before.versions]
        generation = max([*past, self._generations[before.name]]) + 1
        new = DesiredVersion(version, candidate.artifact.digest, generation, candidate.settings)
        chosen = tuple(sorted((*before.versions, new), key=lambda one: one.version))
        await self._prepare(before.name, before, chosen, {version: candidate}, shadow_first=True)
        return chosen

    async def differs(self, model: str, before: DesiredModel | None) -> bool:
        """True if a load would change what is served, and has not been tried on the same files before."""
        entry = self.scan.models.get(model)
        if entry is None or entry.problems:
            return False
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

    def policy_selects(self, model: str, version: int) -> bool:
        """Whether a load without versions would serve this one; True where the repository cannot tell now."""
        entry = self.scan.models.get(model)
        return entry is None or version in entry.manifest.versions.select(entry.versions)

    def unavailable(self, model: str, desired: DesiredModel | None) -> dict[int, str]:
        """Versions in the repository that are not served, and why."""
        entry = self.scan.models.get(model)
        reasons: dict[int, str] = {}
        if entry is not None:
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

    def failed_at_start(self, model: str, why: str) -> None:
        """`why` "": forget it."""
        if why:
            self._failures[model][0] = why
        else:
            self._failures[model].pop(0, None)

    async def find_files(self, model: DesiredModel) -> None:
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

    def forget_all_but(self, models: Iterable[DesiredModel]) -> set[str]:
        """Drops the files that nothing serves any more; answers the digests of those that are left."""
        kept: set[str] = set()
        for model in models:
            wanted = {(v.version, v.digest) for v in model.versions} if model.served else set()
            self._candidates[model.name] = {k: c for k, c in self._candidates[model.name].items() if k in wanted}
            kept |= {digest for _, digest in wanted}
        return kept

    def not_in_repository(self, model: str) -> ServingError:
        if self.scan.problems and not self.scan.complete:
            return NotReady(f"model {model[:128]!r} cannot be looked up: {'; '.join(self.scan.problems)}")
        known = ", ".join(sorted(self.scan.models)[:20]) or "none"
        return NotFound(f"no model {model[:128]!r} in the repository; it has: {known}")

    def _entry(self, model: str, wanted: Sequence[int]) -> ModelEntry:
        entry = self.scan.models.get(model)
        if entry is None:
            raise self.not_in_repository(model)
        if entry.problems:
            raise LoadError("\n".join(entry.problems))
        for number in wanted:
            if number in entry.incomplete:
                raise IncompleteVersion(
                    f"version {number} of model {model!r} is incomplete: {entry.incomplete[number]}"
                )
        return entry

    async def _prepare(
        self,
        model: str,
        before: DesiredModel | None,
        chosen: Sequence[DesiredVersion],
        candidates: Mapping[int, Candidate],
        *,
        shadow_first: bool = False,
    ) -> None:
        """Phase one: those in `chosen` that are not served yet. Raises LoadError with the first worker's reason."""
        self._generations[model] = max(self._generations[model], *(version.generation for version in chosen))
        serving = set(before.versions) if before is not None and before.served else set()
        new = [(version, candidates[version.version]) for version in chosen if version not in serving]
        if new:
            for version, _ in new:
                self._failures[model].pop(version.version, None)
            try:
                await self._preparations.run(model, new, shadow_first=shadow_first)
            except VersionFailed as error:
                self._failures[model][error.version] = error.why
                raise
        for one in chosen:
            if one.version in candidates:
                self._candidates[model][one.version, one.digest] = candidates[one.version]

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
