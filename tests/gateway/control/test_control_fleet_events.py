"""What the fleet tells of workers: deaths, returns and failed loads, each once, and nothing where nothing happened."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from control_fleet import WAIT_SECONDS, Linked, linked, worker_at

from gateway.control import fleet as module
from gateway.messages import ModelOrder, VersionOrder

DIED, RESTARTED, FAILED = "driftgate.worker.died", "driftgate.worker.restarted", "driftgate.version.load_failed"
HELPER = Path(__file__).with_name("control_fleet.py")


@contextmanager
def worker_process(address: str, index: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, str(HELPER), address.encode().hex(), str(index)], env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def order(version: int, generation: int = 1) -> ModelOrder:
    served = VersionOrder(
        version=version, digest=f"sha256:{version}", generation=generation, folder="", model_filename="",
        file_bytes=0, manifest={},
    )  # fmt: skip
    return ModelOrder(model="m", serve=(served,))


async def connected(made: Linked, count: int = 1) -> None:
    assert await made.fleet.until(lambda: len(made.fleet.workers) == count, WAIT_SECONDS)


def names(made: Linked) -> list[str]:
    return [event.name for event in made.events.take(100)]


def test_a_killed_worker_is_told_of_and_so_is_the_one_in_its_place() -> None:
    async def scene() -> None:
        async with linked() as made:
            with worker_process(made.address, 3) as first:
                await connected(made)
                first.kill()
                died = await made.found(DIED)
                assert dict(died.attributes) == {"driftgate.worker": 3, "process.pid": first.pid}
            with worker_process(made.address, 3) as second:
                again = await made.found(RESTARTED)
                assert dict(again.attributes) == {
                    "driftgate.worker": 3, "process.pid": second.pid, "driftgate.process.previous_pid": first.pid,
                }  # fmt: skip

    asyncio.run(scene())


def test_a_worker_that_drained_has_not_died() -> None:
    async def scene() -> None:
        async with linked() as made:
            with worker_at(made.address) as worker:
                await connected(made)
                worker.drain()
                assert await made.fleet.until(lambda: made.fleet.workers[0].draining, WAIT_SECONDS)
            await connected(made, 0)
            assert made.fleet._tasks == set()
            assert names(made) == []

    asyncio.run(scene())


def test_a_worker_that_only_lost_its_link_has_not_died(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 0.05)

    async def scene() -> None:
        async with linked() as made:
            for _ in range(2):
                with worker_at(made.address):
                    await connected(made)
                await connected(made, 0)
                await asyncio.gather(*made.fleet._tasks)
            assert names(made) == [], "nor is it a new one when it comes back"

    asyncio.run(scene())


def test_a_process_that_is_gone_has_ended_and_one_that_runs_has_not() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    assert asyncio.run(module.ended(process.pid, WAIT_SECONDS)), "nobody has waited for it yet"
    process.wait()
    assert asyncio.run(module.ended(process.pid, 0.01))
    assert not asyncio.run(module.ended(os.getpid(), 0.01))


def test_a_failed_load_is_told_once_over_all_links_of_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 0.05)

    async def scene() -> None:
        async with linked() as made:
            with worker_at(made.address, failing=(2,)):
                await connected(made)
                made.fleet.order([order(2)])
                failed = await made.found(FAILED)
                revision = made.fleet.order([order(2)])
                assert await made.fleet.until(lambda: made.fleet.all_at(revision), WAIT_SECONDS)
            assert dict(failed.attributes) == {
                "driftgate.model.name": "m", "driftgate.model.version": 2, "driftgate.model.digest": "sha256:2",
                "driftgate.worker": 0, "driftgate.error.message": "it is broken",
            }  # fmt: skip
            await connected(made, 0)
            with worker_at(made.address, failing=(2,)):  # the same process: it says again what it holds
                revision = made.fleet.order([order(2)])
                await connected(made)
                assert await made.fleet.until(lambda: made.fleet.all_at(revision), WAIT_SECONDS)
                assert names(made) == []
                made.fleet.order([order(2, generation=2)])
                await made.found(FAILED)

    asyncio.run(scene())


def test_a_load_that_works_is_no_failure() -> None:
    async def scene() -> None:
        async with linked() as made:
            with worker_at(made.address) as worker:
                await connected(made)
                revision = made.fleet.order([order(1)])
                assert await made.fleet.until(lambda: made.fleet.all_at(revision), WAIT_SECONDS)
                assert names(made) == []
                worker.drain()
                assert await made.fleet.until(lambda: made.fleet.workers[0].draining, WAIT_SECONDS)

    asyncio.run(scene())
