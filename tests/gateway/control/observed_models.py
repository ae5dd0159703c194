"""An observatory of real windows, watches and profiles, for tests that need no gateway around them."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace

from drift_traffic import Change, Traffic, schema

from gateway.control.drift_watch import DriftWatch
from gateway.control.observatory import Gathering, HeldReference, Seen
from gateway.store.contract import AuditEntry
from gateway.store.panes import VersionKey
from runtime.profile.compare import PreparedReference
from runtime.profile.levels import Levels
from runtime.profile.reference import Profile
from runtime.profile.schema import Schema
from runtime.profile.summary import Summary
from runtime.profile.windows import Window, Windows
from runtime.repository.statistics_settings import DriftSettings

PANE_SECONDS = 10
WINDOWS_SECONDS = (60, 600)
NOW_SECONDS = 1_750_000_005
SETTINGS = DriftSettings(raise_looks=1)


def key_of(model: str, version: int) -> VersionKey:
    return VersionKey(model, version, f"sha256:{version:064x}")


class ObservedModels:
    """As Observatory has it. `profiles`: what the repository has, by version; `audit`: all that was recorded."""

    def __init__(self) -> None:
        self.windows_seconds = WINDOWS_SECONDS
        self.versions: dict[VersionKey, Seen] = {}
        self.windows: dict[VersionKey, Windows[Summary]] = {}
        self.profiles: dict[VersionKey, Profile | Exception] = {}
        self.audit: list[AuditEntry] = []
        self.unmeasured: set[str] = {"unmeasured"}

    def add(self, model: str, version: int, of: Schema | None = None, *, is_default: bool = True) -> VersionKey:
        key = key_of(model, version)
        of = of or schema()
        watch = DriftWatch(key, SETTINGS, PANE_SECONDS)
        self.versions[key] = Seen(key, of, is_default=is_default, watch=watch, memory_bytes=1234, notes=("a note",))
        self.windows[key] = Windows(Levels(PANE_SECONDS, WINDOWS_SECONDS), lambda data: Summary.decode(of, data))
        return key

    def serve(self, key: VersionKey, rows: int, *changes: Change, seed: int = 1) -> None:
        pane = Traffic(seed, self.versions[key].schema).summary(rows, *changes)
        self.windows[key].add(NOW_SECONDS - PANE_SECONDS, NOW_SECONDS, pane, NOW_SECONDS)
        watch = self.versions[key].watch
        if watch is not None:
            watch.offer(pane)

    def look(self, key: VersionKey) -> None:
        watch = self.versions[key].watch
        assert watch is not None
        watch.look(NOW_SECONDS, self.window(key, 600))

    def known_models(self) -> Collection[str]:
        return {key.model for key in self.versions} | self.unmeasured

    def seen(self, model: str) -> list[Seen]:
        return [self.versions[key] for key in self.versions if model in ("", key.model)]

    def window(self, key: VersionKey, window_seconds: int) -> Window[Summary]:
        return self.windows[key].window(window_seconds, NOW_SECONDS)

    async def profile(self, key: VersionKey) -> Profile | None:
        found = self.profiles.get(key)
        if isinstance(found, Exception):
            raise found
        return found

    async def use(self, key: VersionKey, profile: Profile | None, audit: AuditEntry) -> int:
        seen = self.versions[key]
        held = HeldReference.of(profile, time.time()) if profile is not None else None
        self.versions[key] = replace(seen, reference=held, gathering=None)
        if seen.watch is not None:
            prepared = PreparedReference(profile.summary, profile.digest) if profile else None
            seen.watch.set_reference(prepared)
        return await self.record(audit)

    async def gather(self, key: VersionKey, rows: int, audit: AuditEntry) -> int:
        self.versions[key] = replace(self.versions[key], gathering=Gathering(0, rows))
        return await self.record(audit)

    async def record(self, audit: AuditEntry) -> int:
        self.audit.append(audit)
        return len(self.audit)


def profile_of(rows: int, seed: int = 9, of: Schema | None = None) -> Profile:
    summary = Traffic(seed, of or schema()).summary(rows)
    return Profile.of_data(summary, {"data": "train.csv"}, 1_700_000_000.0, {})
