"""A model, a worker under a script, and control's changes between them, on a real store, repository and link."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control_fleet import Linked, ScriptedWorker, linked, worker_at
from zoo import versioned, write_version

from gateway.control.audit import Actor
from gateway.control.changes import Changes
from gateway.messages import ModelOrder
from gateway.store.sql import SqlStore, open_store
from runtime.repository.cache import ArtifactCache
from runtime.repository.repository import Repository

OLGA = Actor("olga", "")


@dataclass
class Scene:
    changes: Changes
    made: Linked
    models: Path
    store: SqlStore
    worker: ScriptedWorker

    def order(self, model: str = "m") -> ModelOrder:
        """What the worker was told last of a model."""
        return next(order for order in self.worker.orders if order.model == model)

    def audited(self) -> list[tuple[str, str, str]]:
        """(action, outcome, detail), the newest first."""
        return [(record.action, record.outcome, record.detail) for record in self.store.list_audit(limit=100)]

    def told(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Name and attributes of the events since the last time, keys without their prefix."""
        return [
            (event.name, {key.removeprefix("driftgate."): value for key, value in event.attributes.items()})
            for event in self.made.events.take(100)
        ]


@asynccontextmanager
async def scene(folder: Path, failing: tuple[int, ...] = ()) -> AsyncIterator[Scene]:
    """A model `m` with versions 1 to 3, a worker, and a gateway that has loaded nothing yet."""
    for version in (1, 2, 3):
        write_version(folder / "models", "m", version, versioned(float(version)))
    cache = ArtifactCache(folder / "cache")
    repository = Repository([str(folder / "models")], cache, settle_seconds=0)
    async with linked() as made:
        with closing(open_store(str(folder / "state.db"))) as store, worker_at(made.address, failing=failing) as worker:
            changes = Changes(store, repository, cache, made.events)
            changes.fleet = made.fleet
            await changes.start(load_new=False, workers=1)
            assert await made.fleet.until(lambda: 0 in made.fleet.workers, 30.0)
            yield Scene(changes, made, folder / "models", store, worker)
            worker.drain()
            assert await made.fleet.until(lambda: made.fleet.workers[0].draining, 30.0)
    cache.close()
