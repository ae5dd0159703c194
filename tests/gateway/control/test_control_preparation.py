"""A rollout's candidate is tried where no client is answered, before any worker sees it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager

import pytest
from control_fleet import ScriptedWorker, linked

from gateway.control.desired import Candidate, version_order
from gateway.control.fleet import Fleet
from gateway.control.preparation import Preparations, VersionFailed
from gateway.messages import ModelOrder, manifest_document
from gateway.store.contract import DesiredVersion
from runtime.errors import LoadError
from runtime.repository.manifest import Manifest
from runtime.types import Artifact

NEW = DesiredVersion(2, "sha256:2", 5, {})
SETTINGS = manifest_document(Manifest())
CANDIDATE = Candidate(Artifact("m", 2, "sha256:2", "/none", 1, "model.onnx"), SETTINGS)


def preparations_of(fleet: Fleet) -> Preparations:
    def broadcast() -> int:
        orders = [
            ModelOrder(
                model=model,
                prepare=tuple(version_order(version, candidate) for version, candidate in trial.new),
                prepare_on=trial.worker,
                prepare_on_shadow=trial.on_shadow,
            )
            for model, trial in made.trials.items()
        ]
        return fleet.order(orders)

    made = Preparations(lambda: fleet, broadcast)
    return made


def played(scene: Callable[[], Coroutine[None, None, None]]) -> Callable[[], None]:
    """A test that runs on an event loop of its own."""

    @functools.wraps(scene)
    def test() -> None:
        asyncio.run(scene())

    return test


@contextmanager
def running(*processes: ScriptedWorker) -> Iterator[None]:
    for process in processes:
        process.link.start()
    try:
        yield
    finally:
        for process in processes:
            process.link.stop()


@played
async def test_the_shadow_process_goes_first_and_the_workers_after_it() -> None:
    async with linked() as there:
        worker = ScriptedWorker(there.address, pid=11)
        shadow = ScriptedWorker(there.address, index=-1, pid=12, role="shadow")
        with running(worker, shadow):
            assert await there.fleet.until(lambda: bool(there.fleet.workers) and there.fleet.shadow is not None, 30)
            await preparations_of(there.fleet).run("m", [(NEW, CANDIDATE)], shadow_first=True)
            assert (shadow.seen, worker.seen) == ({2}, {2})


@played
async def test_without_a_shadow_process_the_workers_try_it_themselves() -> None:
    async with linked() as there:
        worker = ScriptedWorker(there.address, pid=11)
        with running(worker):
            await preparations_of(there.fleet).run("m", [(NEW, CANDIDATE)], shadow_first=True)
            assert worker.seen == {2}


@played
async def test_what_the_shadow_process_cannot_load_no_worker_sees() -> None:
    async with linked() as there:
        worker = ScriptedWorker(there.address, pid=11)
        shadow = ScriptedWorker(there.address, index=-1, pid=12, role="shadow", failing=(2,))
        with running(worker, shadow):
            assert await there.fleet.until(lambda: bool(there.fleet.workers) and there.fleet.shadow is not None, 30)
            with pytest.raises(VersionFailed, match="version 2 of model 'm' cannot be served: it is broken"):
                await preparations_of(there.fleet).run("m", [(NEW, CANDIDATE)], shadow_first=True)
            assert worker.seen == set()


@played
async def test_a_version_that_ends_the_shadow_process_twice_reaches_no_worker() -> None:
    async with linked() as there:
        worker = ScriptedWorker(there.address, pid=11)
        with running(worker):
            assert await there.fleet.until(lambda: bool(there.fleet.workers), 30)
            shadow = ScriptedWorker(there.address, index=-1, pid=12, role="shadow", breaking=(2,))
            shadow.link.start()
            assert await there.fleet.until(lambda: there.fleet.shadow is not None, 30)
            trying = asyncio.create_task(preparations_of(there.fleet).run("m", [(NEW, CANDIDATE)], shadow_first=True))
            assert await asyncio.to_thread(shadow.asked.wait, 30)
            await asyncio.to_thread(shadow.link.stop)
            again = ScriptedWorker(there.address, index=-1, pid=13, role="shadow", breaking=(2,))
            again.link.start()
            assert await asyncio.to_thread(again.asked.wait, 30)
            await asyncio.to_thread(again.link.stop)
            with pytest.raises(
                LoadError, match="the shadow process ended while it loaded model 'm' version 2, 2 times"
            ):
                await trying
            assert worker.seen == set()
