"""Every observed version's watch and reference: what the admin API asks of, and what a tick goes through.

A version is watched from the first time that control hears of it. It is compared with the reference that the store has
for it; where nobody has chosen one, with the profile beside it in the repository, if that was made with these files.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from gateway.control.audit import SYSTEM
from gateway.control.drift_figures import VersionFigures
from gateway.control.drift_watch import Change, DriftWatch, StateInvalid
from gateway.control.observation import Observation, Observed
from gateway.control.observatory import Gathering, HeldReference, Seen, Served
from gateway.control.service_counts import ServiceSample
from gateway.errors import Precondition
from gateway.store.contract import AuditEntry, AuditRecord, StoreError
from gateway.store.panes import PaneStore, Reference, VersionKey
from gateway.telemetry.drift_measures import VersionDrift
from runtime.drift.binned import bins_of_cells
from runtime.drift.evaluate import Sample, evaluate
from runtime.errors import NotFound, ServingError
from runtime.profile.compare import FEWEST_ROWS, PreparedReference
from runtime.profile.reference import Profile
from runtime.profile.schema import Schema
from runtime.profile.summary import Summary
from runtime.profile.windows import Window
from runtime.repository.repository import Repository
from runtime.repository.statistics_settings import DriftSettings
from runtime.sketch.errors import Malformed
from runtime.yielding import let_others_run

log = logging.getLogger(__name__)

GATHERING = "/gathering"
"""After a version's digest: the key under which it is stored how many live rows are to be its reference."""

ROWS_WANTED = "rows_wanted"

STATE_SECONDS = 60.0
"""How often the state of a watch is stored where no alarm has changed: an end costs a minute of its history."""


class Audits(Protocol):
    def append_audit(self, entry: AuditEntry) -> AuditRecord: ...


class _Gatherer:
    """The rows that are to be a reference, so far."""

    def __init__(self, rows_wanted: int) -> None:
        self.rows_wanted = rows_wanted
        self.summary: Summary | None = None

    def add(self, pane: Summary) -> None:
        if self.summary is None or self.summary.schema.digest != pane.schema.digest:
            self.summary = pane.copy()
        else:
            self.summary.merge(pane)

    @property
    def rows(self) -> int:
        return self.summary.rows if self.summary is not None else 0


@dataclass(eq=False)
class _Watched:
    """`profile` None: compared with nothing. `set_at_seconds`: when that was chosen.

    lock: held while the watch looks, or is changed. state: of the watch, after its last look; told_seconds: when that
    was last given to the store.
    """

    watch: DriftWatch
    figures: VersionFigures
    settings: DriftSettings
    lock: threading.Lock = field(default_factory=threading.Lock)
    state: str = ""
    told_seconds: float = -math.inf
    profile: Profile | None = None
    set_at_seconds: float = 0.0
    gatherer: _Gatherer | None = None

    def compare_with(self, profile: Profile | None, set_at_seconds: float) -> list[Change]:
        with self.lock:
            self.profile, self.set_at_seconds, self.gatherer = profile, set_at_seconds, None
            changes = self.watch.set_reference(_prepared(profile))
            self.state, self.told_seconds = self.watch.state(), -math.inf
            return changes


def _prepared(profile: Profile | None) -> PreparedReference | None:
    return PreparedReference(profile.summary, profile.digest) if profile is not None else None


class Watching:
    """Implements Observatory. `tick` on one thread and `look` on another; the rest on any.

    served: of a version's key, None where it is not served. known_models: all names.
    """

    def __init__(
        self,
        observation: Observation,
        store: PaneStore,
        audits: Audits,
        repository: Repository,
        *,
        served: Callable[[VersionKey], Served | None],
        known_models: Callable[[], Collection[str]],
        on_changes: Callable[[Iterable[Change]], None],
    ) -> None:
        self._observation = observation
        self._store = store
        self._audits = audits
        self._repository = repository
        self._served = served
        self._known_models = known_models
        self._on_changes = on_changes
        self._lock = threading.RLock()  # of what follows; never held while a look is made
        self._watched: dict[VersionKey, _Watched] = {}
        self._warm = False

    @property
    def observation(self) -> Observation:
        return self._observation

    def begin_pane(self, now_seconds: float) -> None:
        self._observation.begin_pane(now_seconds)

    def tick(self, now_seconds: float, *, also_open: bool = False) -> None:
        """Collects what workers have closed, and stores it, with the state of watches that have changed."""
        states = self._states(now_seconds, all_of_them=also_open)
        collected = self._observation.collect(now_seconds, also_open=also_open, drift=states)
        self._keep_up()
        with self._lock:
            fresh = [(key, self._watched[key], panes) for key, panes in collected.fresh.items() if key in self._watched]
        for key, watched, panes in fresh:
            for pane in panes:
                watched.watch.offer(pane)
                watched.figures.add(pane)
                self._gather(key, watched, pane)

    def look(self, now_seconds: float) -> None:
        """Looks at what has new rows, as far as the processor's time for it goes."""
        with self._lock:
            all_watched = [(key, watched) for key, watched in self._watched.items() if watched.settings.enabled]
        if not self._warm:
            warm_up()
            self._warm = True
        busy = sum(watched.watch.has_new_rows for _, watched in all_watched)
        for key, watched in all_watched:
            if watched.watch.due(now_seconds):
                let_others_run()
                self._look(key, watched, now_seconds, busy)

    def figures(self) -> list[VersionDrift]:
        """For the metrics: of the last loaded of each number that is served."""
        with self._lock:
            all_watched = dict(self._watched)
        with self._observation.lock:
            newest = self._newest()
        return [watched.figures.figures() for key, watched in all_watched.items() if newest.get(_number(key)) == key]

    def _newest(self) -> dict[tuple[str, int], VersionKey]:
        ordered = sorted(self._observation.versions.values(), key=lambda observed: observed.generation)
        return {_number(observed.key): observed.key for observed in ordered}

    def _states(self, now_seconds: float, *, all_of_them: bool) -> dict[VersionKey, str]:
        """Those that are to be stored: after each alarm, and now and then, for a history is long."""
        with self._lock:
            due = {
                key: watched
                for key, watched in self._watched.items()
                if watched.state and (all_of_them or now_seconds - watched.told_seconds >= STATE_SECONDS)
            }
            for watched in due.values():
                watched.told_seconds = now_seconds
        return {key: watched.state for key, watched in due.items()}

    def _keep_up(self) -> None:
        """A watch for each version that is observed, and none for others."""
        with self._observation.lock:
            observed = {key: each.schema for key, each in self._observation.versions.items()}
        with self._lock:
            for key in [key for key in self._watched if key not in observed]:
                del self._watched[key]
            for key, schema in observed.items():
                if key not in self._watched:
                    served = self._served(key)
                    if served is not None:
                        self._watched[key] = self._open(key, schema, served.settings)

    def _open(self, key: VersionKey, schema: Schema, settings: DriftSettings) -> _Watched:
        watch = DriftWatch(key, settings, self._observation.settings.pane_seconds)
        watched = _Watched(watch, VersionFigures(key, schema, watch), settings)
        try:
            stored = self._store.get_reference(key)
            if stored is None:
                self._adopt(key, watched)
            elif stored.payload:
                profile = Profile.decode(stored.payload)
                watched.compare_with(profile, stored.set_at.timestamp())
            wanted = self._store.get_reference(gathering_key(key))
            if wanted is not None:
                watched.gatherer = _Gatherer(int(wanted.about[ROWS_WANTED]))
            state = self._store.load_drift(key)
            if state and watch.restore(state):
                watched.state = state
        except (StoreError, Malformed, StateInvalid, KeyError, ValueError):
            log.exception("the reference of %s/%d cannot be read; set it anew", key.model, key.version)
        return watched

    def _adopt(self, key: VersionKey, watched: _Watched) -> None:
        """The profile beside the version, where nobody has chosen anything."""
        try:
            profile = self._profile(key)
        except ServingError as error:
            log.warning("the profile of %s/%d is not used: %s", key.model, key.version, error.message)
            return
        if profile is None:
            return
        if profile.version_digest and profile.version_digest != key.digest:
            log.warning(
                "the profile of %s/%d is not used: it was built with %s, and %s is served; build it anew",
                key.model, key.version, profile.version_digest, key.digest,
            )  # fmt: skip
            return
        detail = f"{profile.digest}, {profile.rows:,} rows, found beside the version"
        entry = AuditEntry(
            SYSTEM.name, "", "set reference profile", key.model, key.version, key.digest, "done", detail, ""
        )
        self._store.put_reference(_reference(key, profile), audit=entry)
        watched.compare_with(profile, time.time())

    def _profile(self, key: VersionKey) -> Profile | None:
        data = self._repository.profile(key.model, key.version)
        try:
            return Profile.decode(data) if data is not None else None
        except Malformed as error:
            raise Precondition(
                f"the profile of version {key.version} of model {key.model!r} cannot be read: {error}; build it anew "
                f"with `driftgate profile build --model {key.model} --version {key.version} --data FILE --force`"
            ) from None

    def _gather(self, key: VersionKey, watched: _Watched, pane: Summary) -> None:
        gatherer = watched.gatherer
        if gatherer is None:
            return
        gatherer.add(pane)
        if gatherer.summary is None or gatherer.rows < gatherer.rows_wanted:
            return
        about = {"model": key.model, "model_version": str(key.version), "version_digest": key.digest}
        profile = Profile.of_live(gatherer.summary, about, time.time())
        detail = f"{profile.digest}, the {profile.rows:,} rows that were gathered"
        entry = AuditEntry(
            SYSTEM.name, "", "set reference live", key.model, key.version, key.digest, "done", detail, ""
        )
        try:
            self._store.put_reference(_reference(key, profile), audit=entry)
            self._end_gathering(key, "the rows are there")
        except StoreError as error:
            log.warning("the reference gathered for %s/%d cannot be stored yet: %s", key.model, key.version, error)
            return
        self._on_changes(watched.compare_with(profile, time.time()))

    def _end_gathering(self, key: VersionKey, why: str) -> None:
        entry = AuditEntry(SYSTEM.name, "", "end gathering", key.model, key.version, key.digest, "done", why, "")
        self._store.delete_reference(gathering_key(key), audit=entry)

    def _look(self, key: VersionKey, watched: _Watched, now_seconds: float, busy: int) -> None:
        """`busy`: watches that have something to look at, all together; the idle ones need no part of the processor."""
        with self._observation.lock:
            observed = self._observation.versions.get(key)
            if observed is None:
                return
            seconds = self._drift_window(watched.settings)
            window = observed.windows.window(seconds, now_seconds)
            longest = self._observation.levels[-1].window_seconds
            service = ServiceSample.of(
                observed.service.window(seconds, now_seconds), observed.service.window(longest, now_seconds)
            )
        try:
            with watched.lock:
                changes = watched.watch.look(now_seconds, window, service, watches=busy)
                watched.state = watched.watch.state()
                if changes:
                    watched.told_seconds = -math.inf
        except Exception:
            log.exception("%s/%d could not be compared with its reference; the next look follows", *_number(key))
            return
        self._on_changes(changes)

    def _drift_window(self, settings: DriftSettings) -> int:
        """The one of the model's settings, where the gateway has it."""
        known = self._observation.settings.windows_seconds
        wanted = settings.window_seconds
        return wanted if wanted in known else self._observation.settings.drift_window_seconds

    @property
    def windows_seconds(self) -> tuple[int, ...]:
        return self._observation.settings.windows_seconds

    def known_models(self) -> Collection[str]:
        return self._known_models()

    def seen(self, model: str) -> list[Seen]:
        self._observation.meet(time.time())
        self._keep_up()
        with self._observation.lock:
            observed = [each for each in self._observation.versions.values() if model in ("", each.key.model)]
            newest = self._newest()
        ordered = sorted(observed, key=lambda each: (*_number(each.key), each.generation))
        return [self._seen(each, newest[_number(each.key)] == each.key) for each in ordered]

    def _seen(self, observed: Observed, is_newest: bool) -> Seen:
        key = observed.key
        served = self._served(key)
        watched = self._watched.get(key)
        settings = served.settings if served is not None else DriftSettings()
        reference, gathering, notes = None, None, []
        if watched is not None:
            if watched.profile is not None:
                reference = HeldReference.of(watched.profile, watched.set_at_seconds)
            if watched.gatherer is not None:
                gathering = Gathering(watched.gatherer.rows, watched.gatherer.rows_wanted)
        wanted = settings.window_seconds
        if wanted is not None and wanted not in self.windows_seconds:
            known = ", ".join(map(str, self.windows_seconds))
            notes.append(f"drift.window_seconds is {wanted}, and the gateway has windows of {known} seconds")
        windows = observed.windows
        for count, why in (
            (windows.late_rows, "came later than the longest window"),
            (windows.ahead_rows, "were in the future after the clock was set back"),
            (windows.unreadable_rows, "are in panes that cannot be read, or of other settings"),
        ):
            if count:
                notes.append(f"{count:,} rows {why}, and are left out")
        notes += self._observation.losses()
        return Seen(
            key=key,
            schema=observed.schema,
            is_newest=is_newest,
            served=served is not None,
            is_default=served is not None and served.is_default,
            drift_window_seconds=self._drift_window(settings),
            watch=watched.watch if watched is not None and settings.enabled else None,
            reference=reference,
            gathering=gathering,
            memory_bytes=observed.used_bytes + windows.held_bytes + observed.service.held_bytes,
            notes=tuple(notes),
        )

    def window(self, key: VersionKey, window_seconds: int) -> Window[Summary]:
        with self._observation.lock:
            observed = self._observation.versions.get(key)
            if observed is None:
                raise NotFound(f"version {key.version} of model {key.model!r} has gone since")
            return observed.windows.window(window_seconds, time.time())

    async def profile(self, key: VersionKey) -> Profile | None:
        return await asyncio.to_thread(self._profile, key)

    async def use(self, key: VersionKey, profile: Profile | None, audit: AuditEntry) -> int:
        return await asyncio.to_thread(self._use, key, profile, audit)

    def _use(self, key: VersionKey, profile: Profile | None, audit: AuditEntry) -> int:
        watched = self._known(key)
        record = self._store.put_reference(_reference(key, profile), audit=audit)
        if watched.gatherer is not None:
            self._end_gathering(key, f"by: {audit.action}")
        self._on_changes(watched.compare_with(profile, record.time.timestamp()))
        return record.id

    async def gather(self, key: VersionKey, rows: int, audit: AuditEntry) -> int:
        return await asyncio.to_thread(self._begin_gathering, key, rows, audit)

    def _begin_gathering(self, key: VersionKey, rows: int, audit: AuditEntry) -> int:
        watched = self._known(key)
        wanted = Reference(gathering_key(key), "gathering", "", b"", {ROWS_WANTED: str(rows)})
        record = self._store.put_reference(wanted, audit=audit)
        watched.gatherer = _Gatherer(rows)
        return record.id

    async def record(self, audit: AuditEntry) -> int:
        return (await asyncio.to_thread(self._audits.append_audit, audit)).id

    def _known(self, key: VersionKey) -> _Watched:
        watched = self._watched.get(key)
        if watched is None:
            raise NotFound(f"version {key.version} of model {key.model!r} is not watched yet, or no longer; try again")
        return watched


def warm_up() -> None:
    """Imports what a first look would: it takes a second, for which the look would be charged like for its own work."""
    rows = np.random.default_rng(0).normal(size=(2 * FEWEST_ROWS, 2))
    sample = Sample("warm-up", {"x": bins_of_cells([1.0], [2.0], [len(rows)])}, rows=rows, columns=("x", "y"))
    evaluate(sample, sample)


def _reference(key: VersionKey, profile: Profile | None) -> Reference:
    if profile is None:
        return Reference(key, "none", "", b"")
    return Reference(key, profile.kind, profile.digest, profile.encode(), profile.about)


def gathering_key(key: VersionKey) -> VersionKey:
    return VersionKey(key.model, key.version, key.digest + GATHERING)


def _number(key: VersionKey) -> tuple[str, int]:
    return key.model, key.version
