"""Replays as control makes them: rows to the shadow process and back, whatever ends meanwhile, and into decisions."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from control_fleet import WAIT_SECONDS, Linked, linked
from pydantic import BaseModel
from rollout_scene import STEP, Scene, control, plan_of, world

import gateway.control.rollout_replay as module
from gateway.control.rollout_checks import Settings
from gateway.control.rollout_replay import ReplayDesk, ReplayWanted
from gateway.errors import Precondition
from gateway.link import Link
from gateway.messages import (
    BlockReport,
    Desired,
    Hello,
    LoadedInfo,
    Progress,
    ReplayOrder,
    ReplayReport,
    TensorInfo,
    VersionReport,
)
from gateway.store.contract import StoreUnavailable
from gateway.store.panes import VersionKey
from runtime.profile.kept_rows import KeptRows
from runtime.profile.of_signature import schema_of
from runtime.profile.schema import Schema
from runtime.repository.statistics_settings import StatisticsSettings
from runtime.rollout.counts import ReplayBlock, Replayed
from runtime.types import ANY, Signature, TensorSpec

X = TensorSpec("x", "FP32", (ANY, 2))
DIGEST = "sha256:0"
WANTED = ReplayWanted(VersionKey("m", 1, DIGEST), VersionKey("m", 2, DIGEST), 1_000.0)


@dataclass
class Rows:
    """What is kept of version 1. `before`: what was asked for."""

    count: int = 100
    schema_is: Schema | None = field(
        default_factory=lambda: schema_of(Signature((X,), (TensorSpec("y", "FP32", (ANY, 1)),)), StatisticsSettings())
    )
    before: float = 0.0

    def schema(self, _key: VersionKey) -> Schema | None:
        return self.schema_is

    def kept(self, _key: VersionKey, before_seconds: float, most: int) -> KeptRows:
        self.before = before_seconds
        count = min(self.count, most)
        values = np.arange(3 * count, dtype=np.float32).reshape(count, 3)  # the last one is the prediction
        return KeptRows(np.arange(count, dtype=np.uint64), values)


def version(number: int, state: str) -> VersionReport:
    loaded = LoadedInfo(
        inputs=(TensorInfo(name="x", datatype="FP32", shape=(-1, 2)),), outputs=(), load_seconds=0, loaded_at_seconds=0,
        memory_bytes=0, file_bytes=0, execution_providers=(), max_rows=1, warnings=(),
    )  # fmt: skip
    return VersionReport(model="m", version=number, digest=DIGEST, generation=1, state=state, loaded=loaded)


class Process:
    """A worker, or the shadow process, at the other end of the fleet's socket."""

    def __init__(self, address: str, role: str, pid: int, answer: Callable[[ReplayOrder], ReplayReport | None]) -> None:
        self.role, self.pid, self.answer = role, pid, answer
        self.states = {1: "AVAILABLE", 2: "AVAILABLE"}
        self.orders: list[ReplayOrder] = []
        self.asked = threading.Event()
        self.link = Link(address, self._greet, self._on_desired, self._on_replay)

    def _greet(self) -> list[BaseModel]:
        hello = Hello(index=0 if self.role == "worker" else -1, pid=self.pid, transport="", role=self.role)  # type: ignore[arg-type]
        return [hello, *(version(number, state) for number, state in self.states.items())]

    def _on_desired(self, desired: Desired) -> None:
        self.link.report(Progress(revision=desired.revision, settled=True, listening=True, draining=True))

    def _on_replay(self, order: ReplayOrder) -> None:
        self.orders.append(order)
        self.asked.set()
        report = self.answer(order)
        if report is not None:
            self.link.report(report)


def all_agree(order: ReplayOrder) -> ReplayReport:
    sizes = [min(order.block_rows, order.rows - at) for at in range(0, order.rows, order.block_rows)]
    blocks = [BlockReport(rows=n, candidate_failed=0, baseline_failed=0, compared=n, agreed=n) for n in sizes]
    return ReplayReport(id=order.id, blocks=tuple(blocks))


@contextmanager
def process(address: str, role: str, pid: int = 0, answer: Any = all_agree, **states: str) -> Iterator[Process]:
    made = Process(address, role, pid or os.getpid(), answer)
    made.states |= {int(name[1:]): state for name, state in states.items()}
    made.link.start()
    try:
        yield made
    finally:
        made.link.stop()


def with_desk(rows: Rows, script: Callable[[ReplayDesk, Linked], Awaitable[None]]) -> list[str]:
    """Answers which models were refreshed."""
    refreshed: list[str] = []

    async def refresh(model: str) -> None:
        refreshed.append(model)

    async def run() -> None:
        async with linked() as made:
            any_rows: Any = rows
            desk = ReplayDesk(made.fleet, any_rows, refresh)
            made.fleet.on_replayed = desk.take
            with process(made.address, "worker"):
                assert await made.fleet.until(lambda: bool(made.fleet.workers), WAIT_SECONDS)
                assert await made.fleet.until(lambda: len(made.fleet.workers[0].reports) == 2, WAIT_SECONDS)
                await script(desk, made)

    asyncio.run(run())
    return refreshed


def test_all_rows_go_out_once_in_blocks_and_come_back() -> None:
    async def script(desk: ReplayDesk, made: Linked) -> None:
        held: list[tuple[int, ...]] = []

        def answer(order: ReplayOrder) -> ReplayReport:
            held.append(desk.replaying("m"))
            return all_agree(order)

        with process(made.address, "shadow", answer=answer) as shadow:
            come = await desk.replay(WANTED)
            (order,) = shadow.orders
        assert (come.done, come.problem, len(come.blocks)) == (True, "", 50)
        assert sum(block.agreed for block in come.blocks) == 100
        (rows,) = order.inputs
        sent = np.frombuffer(rows.data, np.float32).reshape(rows.shape)
        assert (rows.name, rows.datatype) == ("x", "FP32")
        np.testing.assert_array_equal(sent, np.arange(300, dtype=np.float32).reshape(100, 3)[:, :2])
        assert (held, desk.replaying("m")) == ([(1, 2)], ())

    rows = Rows()
    assert with_desk(rows, script) == ["m", "m"], "loaded for it, and let go"
    assert rows.before == 1_000.0


def test_many_rows_are_sent_in_chunks_of_whole_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 1_000)

    async def script(desk: ReplayDesk, made: Linked) -> None:
        with process(made.address, "shadow") as shadow:
            come = await desk.replay(WANTED)
            assert len(shadow.orders) > 5
        assert all(order.rows % order.block_rows == 0 for order in shadow.orders[:-1])
        assert sum(order.rows for order in shadow.orders) == sum(block.rows for block in come.blocks) == 1_000

    with_desk(Rows(1_000), script)


def test_a_shadow_process_that_ends_meanwhile_is_asked_again_and_not_for_ever() -> None:
    async def script(desk: ReplayDesk, made: Linked) -> None:
        going = asyncio.create_task(desk.replay(WANTED))
        with process(made.address, "shadow", pid=1_000_001, answer=lambda _: None) as first:
            assert await asyncio.to_thread(first.asked.wait, WAIT_SECONDS)
        with process(made.address, "shadow", pid=1_000_002):
            assert (await going).problem == ""
        going = asyncio.create_task(desk.replay(WANTED))
        for pid in range(3):
            with process(made.address, "shadow", pid=1_000_010 + pid, answer=lambda _: None) as each:
                assert await asyncio.to_thread(each.asked.wait, WAIT_SECONDS)
        assert (await going).problem == "the shadow process ended while rows were replayed, 3 times"

    with_desk(Rows(), script)


def test_why_nothing_can_be_replayed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHADOW_SECONDS", 0.01)
    rows = Rows()

    async def script(desk: ReplayDesk, made: Linked) -> None:
        assert (await desk.replay(WANTED)) == Replayed(done=True, problem="there is no shadow process")
        with process(made.address, "shadow", v2="FAILED"):
            await made.fleet.until(lambda: made.fleet.shadow is not None, WAIT_SECONDS)
            assert (await desk.replay(WANTED)).problem == "version 2 cannot be loaded in the shadow process"
        assert await made.fleet.until(lambda: made.fleet.shadow is None, WAIT_SECONDS)
        broken = lambda order: ReplayReport(id=order.id, problem="it is broken")  # noqa: E731
        with process(made.address, "shadow", answer=broken):
            await made.fleet.until(lambda: made.fleet.shadow is not None, WAIT_SECONDS)
            assert (await desk.replay(WANTED)).problem == "it is broken"
        rows.count = 0
        assert "no rows are kept that version 1 had answered" in (await desk.replay(WANTED)).problem
        rows.schema_is = None
        assert (await desk.replay(WANTED)).problem == "nothing is measured of version 1"

    with_desk(rows, script)


@dataclass
class ScriptedDesk:
    """`come` None: it takes for ever."""

    come: Replayed | None
    asked: list[ReplayWanted] = field(default_factory=list)

    async def replay(self, wanted: ReplayWanted) -> Replayed:
        self.asked.append(wanted)
        if self.come is None:
            await asyncio.Event().wait()
        assert self.come is not None
        return self.come


ALIKE = Replayed(tuple(ReplayBlock(10, compared=10, agreed=10) for _ in range(70)), done=True)
SHORT = STEP | {"max_duration_seconds": 20}
REPLAYING = {"steps": [SHORT, STEP | {"weight_percent": 50}], "gates": {"errors": {}}, "at_max_duration": "replay"}


async def out_of_time(there: Scene) -> int:
    rollout = await there.start(plan_of(**REPLAYING))
    await there.look(after_seconds=20)
    return rollout


def run(
    folder: Path,
    desk: ScriptedDesk,
    script: Callable[[Scene], Awaitable[None]],
    again: Callable[[Scene], Awaitable[None]] | None = None,
    settings: Settings | None = None,
) -> None:
    """`again`: what is played after a restart of control."""

    async def main() -> None:
        with world(folder) as there:
            there.replays = desk
            there.settings = settings or there.settings
            async with control(there) as scene:
                await script(scene)
            if again is not None:
                async with control(there) as scene:
                    await again(scene)

    asyncio.run(main())


def test_a_step_without_traffic_passes_by_replay_and_the_history_says_so(tmp_path: Path) -> None:
    desk = ScriptedDesk(ALIKE)

    async def script(there: Scene) -> None:
        rollout = await out_of_time(there)
        began = there.run(rollout).state.step_since_seconds
        await there.look()
        await there.look()
        assert (await there.rollouts.view(rollout)).rollout.step == 1
        assert there.split == {"baseline": 50, "candidate": 50}
        (decision,) = (await there.rollouts.decisions(rollout, 10, 0))[-1:]
        assert "passed by replay of 700 rows" in decision.decision.reason
        assert decision.recomputed
        (asked,) = desk.asked
        assert (asked.baseline.version, asked.candidate.version, asked.before_seconds) == (1, 2, began)

    run(tmp_path, desk, script)


def test_a_replay_that_a_restart_cuts_off_is_made_anew(tmp_path: Path) -> None:
    desk = ScriptedDesk(None)
    ids: list[int] = []

    async def cut_off(there: Scene) -> None:
        ids.append(await out_of_time(there))
        there.world.now_seconds += 1
        await there.rollouts.tick(there.world.now_seconds)
        await asyncio.sleep(0)
        assert len(desk.asked) == 1
        desk.come = ALIKE

    async def goes_on(there: Scene) -> None:
        await there.rollouts.idle()
        await there.look()
        await there.look()
        assert (await there.rollouts.view(ids[0])).rollout.step == 1
        assert len(desk.asked) == 2
        assert desk.asked[0] == desk.asked[1]

    run(tmp_path, desk, cut_off, goes_on)


def test_what_came_of_a_replay_waits_for_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = ScriptedDesk(ALIKE)

    async def script(there: Scene) -> None:
        rollout = await out_of_time(there)
        await there.look()
        with monkeypatch.context() as broken:

            def fail(*_: Any, **__: Any) -> Any:
                raise StoreUnavailable("the disk is full")

            broken.setattr(there.store.rollouts, "save", fail)
            await there.look()
        assert (await there.rollouts.view(rollout)).rollout.step == 0
        await there.look()
        assert (await there.rollouts.view(rollout)).rollout.step == 1
        assert len(desk.asked) == 1

    run(tmp_path, desk, script)


def test_a_plan_that_asks_for_replays_needs_what_makes_them(tmp_path: Path) -> None:
    async def script(there: Scene) -> None:
        with pytest.raises(Precondition, match=r"at_max_duration: replay needs statistics\.enabled"):
            await there.start(plan_of(**REPLAYING))

    run(tmp_path, ScriptedDesk(ALIKE), script, settings=Settings(shadow=False))
