"""Rollouts with a real store, real changes and real pages of series, under a script: clock, traffic, worker."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from control_fleet import Linked, linked, worker_at
from drift_traffic import SCHEMA
from shm_records import Desk, desk, records_of
from zoo import versioned, write_version

from gateway.control.audit import Actor
from gateway.control.changes import Changes
from gateway.control.comparisons import PairTotals
from gateway.control.rollout_checks import Settings
from gateway.control.rollout_counts import Counters
from gateway.control.rollout_events import RolloutWatchers
from gateway.control.rollout_rows import RolloutRows
from gateway.control.rollout_run import RolloutRun, Surroundings
from gateway.control.rollouts import Rollouts
from gateway.store.panes import VersionKey
from gateway.store.sql import SqlStore, open_store
from gateway.telemetry.conventions import CODES
from runtime.profile.summary import Summary
from runtime.repository.cache import ArtifactCache
from runtime.repository.repository import Repository
from runtime.rollout.plan import Plan, read_plan
from runtime.shm.publish import KEEP_NONE
from runtime.shm.series import SeriesKey

OLGA = Actor("olga", "ipv4:10.0.0.7:1", "ticket 12")
STEP = {"weight_percent": 5, "min_duration_seconds": 10, "min_requests": 100}
NOW_SECONDS = 1_750_000_000.0
WAIT_SECONDS = 30.0


def plan_of(**changes: Any) -> Plan:
    document = {
        "model": "m",
        "baseline": "1",
        "candidate": "2",
        "steps": [STEP, STEP | {"weight_percent": 50}],
        "gates": {"errors": {}, "latency": [{}]},
    }
    return read_plan(document | changes)


@dataclass
class Comparisons:
    """What `Comparisons.totals` answers of every pair."""

    counters: str = "control-1"
    compared: int = 0
    agreed: int = 0
    failed: int = 0

    def totals(self, _model: str, _primary: int, _shadow: int) -> PairTotals:
        return PairTotals(self.counters, self.compared, self.agreed, self.failed, self.compared + self.failed)


class Versions(dict[VersionKey, Any]):
    """All versions of `m`, once they are known."""

    known = False

    def get(self, key: VersionKey, default: Any = None) -> Any:
        return SimpleNamespace(schema=SCHEMA) if self.known and key.model == "m" else default


class Observed:
    """The part of `Observation` that hands out panes. Versions are known once somebody asks, as after a restart."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.on_pane: Callable[[VersionKey, float, Summary], None] = lambda _key, _began, _pane: None
        self.versions = Versions()

    def meet(self, _now_seconds: float) -> None:
        self.versions.known = True

    def see(self, changes: Changes, version: int, began_seconds: float, pane: Summary) -> None:
        """A pane of a version of `m` that is served."""
        digest = next(each.digest for each in changes.desired["m"].versions if each.version == version)
        self.on_pane(VersionKey("m", version, digest), began_seconds, pane)


@dataclass
class World:
    """What outlives a control process: files, the workers' pages, the clock."""

    folder: Path
    desk: Desk
    gateway: str = "gateway-1"
    now_seconds: float = NOW_SECONDS
    comparisons: Comparisons = field(default_factory=Comparisons)
    crashes: dict[tuple[str, int], int] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    failing: tuple[int, ...] = ()
    replays: Any = None

    def answer(
        self, requests: int, variant: str = "candidate", version: int = 2, code: str = "OK", seconds: float = 0.01
    ) -> None:
        """Requests that a worker has answered."""
        number = self.desk.series.number(
            SeriesKey("m", version, variant, CODES.index(code), "" if code == "OK" else "SOME_REASON")
        )
        row = {"series": number, "code": CODES.index(code), "rows": 1, "replied_ns": round(seconds * 1e9)}
        for first in range(0, requests, 1_000):
            self.desk.publish(records_of([row] * min(1_000, requests - first)), KEEP_NONE)

    def traffic(self, candidate: int = 0, baseline: int = 0, errors: int = 0) -> None:
        """`errors`: of the candidate's requests."""
        self.answer(candidate - errors)
        self.answer(errors, code="INTERNAL")
        self.answer(baseline, "baseline", 1)


@dataclass
class Scene:
    """One control process."""

    world: World
    rollouts: Rollouts
    changes: Changes
    made: Linked
    store: SqlStore

    async def start(self, plan: Plan | None = None) -> int:
        """A rollout in its first step, or rolled back where its candidate does not load."""
        view, _ = await self.rollouts.start(plan or plan_of(), OLGA)
        await self.rollouts.idle()
        return view.id

    async def look(self, after_seconds: float = 1.0, **traffic: int) -> None:
        self.world.traffic(**traffic)
        self.world.now_seconds += after_seconds
        await self.rollouts.tick(self.world.now_seconds)
        await self.rollouts.idle()

    def run(self, rollout_id: int) -> RolloutRun:
        return self.rollouts._runs[rollout_id]

    async def phase(self, rollout_id: int) -> str:
        return (await self.rollouts.view(rollout_id)).rollout.phase.value

    @property
    def split(self) -> dict[str, float]:
        """As workers were told last: variant → weight."""
        document = self.route
        return {name: arm["weight"] for name, arm in document.get("split", {}).items()}

    @property
    def route(self) -> dict[str, Any]:
        orders = {order.model: order for order in self.made.fleet._orders or ()}
        return dict(json.loads(orders["m"].route or "{}"))

    def events(self) -> list[dict[str, Any]]:
        """Of rollouts, attributes without their prefix."""
        return [
            {key.removeprefix("driftgate."): value for key, value in event.attributes.items()} | {"level": event.level}
            for event in self.made.events.take(1_000)
            if event.name == "driftgate.rollout.decided"
        ]

    def audits(self) -> list[tuple[str, str, str]]:
        """Oldest first: action, actor, outcome."""
        return [(each.action, each.actor, each.outcome) for each in reversed(self.store.list_audit(limit=1_000))]


@contextmanager
def world(folder: Path) -> Iterator[World]:
    for version in (1, 2, 3):
        write_version(folder / "models", "m", version, versioned(float(version)))
    with desk(capacity=16) as made:
        yield World(folder, made)


@asynccontextmanager
async def control(world: World, *, look_first: bool = False, observed: Observed | None = None) -> AsyncIterator[Scene]:
    """Loads version 1 where the store is new. `look_first`: a tick comes before the desired state is there.

    `observed`: hands out panes.
    """
    cache = ArtifactCache(world.folder / "cache")
    repository = Repository([str(world.folder / "models")], cache, settle_seconds=0)
    store = open_store(str(world.folder / "state.db"))
    async with linked() as made:
        with closing(store), worker_at(made.address, failing=world.failing) as worker:
            changes = Changes(store, repository, cache, made.events)
            changes.fleet = made.fleet
            counters = Counters(
                world.desk.totals(), world.gateway, world.comparisons, lambda m, v: world.crashes.get((m, v), 0)
            )
            rows = RolloutRows(observed, store.panes) if observed is not None else None  # type: ignore[arg-type]
            around = Surroundings(
                store.rollouts,
                changes,
                counters,
                made.events,
                RolloutWatchers(),
                rows,
                clock=lambda: world.now_seconds,
                replays=world.replays,
            )
            rollouts = Rollouts(around, changes, store, world.settings)
            changes.rollouts = rollouts
            await rollouts.restore()
            if look_first:
                await rollouts.tick(world.now_seconds)
                assert made.fleet._orders is None
            await changes.start(load_new=False, workers=1)
            assert await made.fleet.until(lambda: 0 in made.fleet.workers, WAIT_SECONDS)
            if "m" not in changes.desired:
                await changes.load("m", (1,), OLGA)
            await rollouts.start_up()
            try:
                yield Scene(world, rollouts, changes, made, store)
            finally:
                await rollouts.close()
                worker.drain()
                assert await made.fleet.until(lambda: made.fleet.workers[0].draining, WAIT_SECONDS)
    cache.close()
