"""Replays for rollouts: rows that the baseline answered before a step, run through both versions by the shadow process.

    panes of the baseline → a uniform sample of its rows → tensors → chunks → the shadow process → blocks

It is all of the rows or none, so a replay that a restart cuts off is made anew, and no row counts twice. The shadow
process holds both versions for as long as it takes.

Only panes that ended before the step began are used. A row of the step may have been copied and compared already, and
evidence for the same row twice would be more than there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from gateway.control.fleet import Fleet
from gateway.control.rollout_rows import RolloutRows
from gateway.messages import ReplayOrder, ReplayReport, TensorRows
from gateway.store.panes import VersionKey
from runtime.errors import ServingError
from runtime.profile.kept_rows import NotReplayable, tensors_of, unkept
from runtime.rollout.counts import ReplayBlock, Replayed
from runtime.rollout.rollout import Rollout, wants_replay
from runtime.types import TensorSpec
from runtime.versions.state import VersionState

log = logging.getLogger(__name__)

MAX_ROWS = 4_096
"""Of a replay: enough to show that 0.1 % are not exceeded."""

BLOCKS = 64
"""What is expected of a block is learned from those before it, so the first one says nothing: many small ones."""

CHUNK_BYTES = 4 * 1024 * 1024
"""Of rows in one message: a frame holds far more, and base64 adds a third."""

SHADOW_SECONDS = 10.0  # for a shadow process that has ended to be there again
LOAD_SECONDS = 600.0  # it loads with what cores the workers leave it
CHUNK_SECONDS = 600.0  # and runs with these
TRIES = 3  # with a shadow process that ends meanwhile

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class ReplayWanted:
    """`before_seconds`: Unix time, when the step began."""

    baseline: VersionKey
    candidate: VersionKey
    before_seconds: float


@dataclass(frozen=True, slots=True)
class _Input:
    datatype: str
    array: Array


_Inputs = Mapping[str, _Input]


class _Lost(Exception):
    """The shadow process has ended."""


class ReplayDesk:
    """Single-threaded: on control's event loop. `refresh` tells the processes of a model's orders anew."""

    def __init__(self, fleet: Fleet, rows: RolloutRows | None, refresh: Callable[[str], Awaitable[None]]) -> None:
        self._fleet = fleet
        self._rows = rows
        self._refresh = refresh
        self._turn = asyncio.Lock()  # one at a time: they share the idle cores
        self._held: dict[str, tuple[int, ...]] = {}
        self._waiting: dict[str, ReplayReport | None] = {}

    def replaying(self, model: str) -> tuple[int, ...]:
        """Versions that the shadow process is to hold for a replay."""
        return self._held.get(model, ())

    def take(self, report: ReplayReport) -> None:
        if report.id in self._waiting:
            self._waiting[report.id] = report

    async def replay(self, wanted: ReplayWanted) -> Replayed:
        """All rows, or why there are none."""
        try:
            async with self._turn:
                return Replayed(await self._replay(wanted), done=True)
        except NotReplayable as error:
            return Replayed(done=True, problem=str(error))
        except ServingError as error:
            return Replayed(done=True, problem=error.message)

    async def _replay(self, wanted: ReplayWanted) -> tuple[ReplayBlock, ...]:
        inputs = await self._rows_of(wanted)
        model = wanted.baseline.model
        self._held[model] = (wanted.baseline.version, wanted.candidate.version)
        try:
            for _ in range(TRIES):
                await self._refresh(model)
                with contextlib.suppress(_Lost):
                    return await self._run(wanted, inputs)
            raise NotReplayable(f"the shadow process ended while rows were replayed, {TRIES} times")
        finally:
            del self._held[model]
            with contextlib.suppress(ServingError):  # the next orders tell it as well
                await self._refresh(model)

    async def _rows_of(self, wanted: ReplayWanted) -> _Inputs:
        """By name. Raises NotReplayable, StoreError."""
        rows = self._rows
        if rows is None:
            raise NotReplayable("nothing is measured: statistics.enabled is off")
        schema = rows.schema(wanted.baseline)
        if schema is None:
            raise NotReplayable(f"nothing is measured of version {wanted.baseline.version}")
        if why := unkept(schema):
            raise NotReplayable(why)
        specs = self._specs(wanted.baseline)
        kept = await asyncio.to_thread(rows.kept, wanted.baseline, wanted.before_seconds, MAX_ROWS)
        if not len(kept):
            raise NotReplayable(
                f"no rows are kept that version {wanted.baseline.version} had answered before the step began"
            )
        arrays = tensors_of(schema, specs, kept.values)
        return {spec.name: _Input(spec.datatype, arrays[spec.name]) for spec in specs}

    def _specs(self, key: VersionKey) -> list[TensorSpec]:
        for worker in self._fleet.workers.values():
            for report in worker.reports.values():
                loaded = report.loaded
                if (report.model, report.version, report.digest) == (key.model, key.version, key.digest) and loaded:
                    return [TensorSpec(each.name, each.datatype, each.shape) for each in loaded.inputs]
        raise NotReplayable(f"no worker holds version {key.version}")

    async def _run(self, wanted: ReplayWanted, inputs: _Inputs) -> tuple[ReplayBlock, ...]:
        """Raises _Lost, NotReplayable."""
        pid = await self._loaded(wanted)
        rows = len(next(iter(inputs.values())).array)
        block_rows = math.ceil(rows / BLOCKS)
        block_bytes = block_rows * sum(each.array[:1].nbytes for each in inputs.values())
        chunk_rows = block_rows * max(CHUNK_BYTES // block_bytes, 1)
        blocks: list[ReplayBlock] = []
        for begin in range(0, rows, chunk_rows):
            order = _order(wanted, inputs, slice(begin, min(begin + chunk_rows, rows)), block_rows)
            report = await self._ask(order, pid)
            if report.problem:
                raise NotReplayable(report.problem)
            blocks += [
                ReplayBlock(each.rows, each.candidate_failed, each.baseline_failed, each.compared, each.agreed)
                for each in report.blocks
            ]
        if sum(block.rows for block in blocks) != rows:
            raise NotReplayable(f"the shadow process told of {sum(block.rows for block in blocks)} of {rows} rows")
        return tuple(blocks)

    async def _loaded(self, wanted: ReplayWanted) -> int:
        """Waits until the shadow process has both versions. Answers its pid."""
        fleet = self._fleet
        await fleet.until(lambda: fleet.shadow is not None, SHADOW_SECONDS)
        if fleet.shadow is None:
            raise NotReplayable("there is no shadow process")
        pid, failed = fleet.shadow.pid, VersionState.FAILED.name

        def decided() -> bool:
            states = self._states(wanted)
            return self._lost(pid) or states[0] == states[1] == VersionState.AVAILABLE.name or failed in states

        in_time = await fleet.until(decided, LOAD_SECONDS)
        if self._lost(pid):
            raise _Lost
        for key, state in zip((wanted.baseline, wanted.candidate), self._states(wanted), strict=True):
            if state == failed:
                raise NotReplayable(f"version {key.version} cannot be loaded in the shadow process")
        if not in_time:
            raise NotReplayable(f"the shadow process did not load both versions within {LOAD_SECONDS:g} s")
        return pid

    def _lost(self, pid: int) -> bool:
        return self._fleet.shadow is None or self._fleet.shadow.pid != pid

    def _states(self, wanted: ReplayWanted) -> list[str]:
        """Of the newest loadings of both."""
        found = []
        for key in (wanted.baseline, wanted.candidate):
            reports = self._fleet.shadow.reports if self._fleet.shadow is not None else {}
            named = (key.model, key.version, key.digest)
            own = [each for each in reports if (each.model, each.version, each.digest) == named]
            found.append(reports[max(own)].state if own else VersionState.NOT_LOADED.name)
        return found

    async def _ask(self, order: ReplayOrder, pid: int) -> ReplayReport:
        self._waiting[order.id] = None
        try:
            self._fleet.replay(order)
            await self._fleet.until(lambda: self._waiting[order.id] is not None or self._lost(pid), CHUNK_SECONDS)
            report = self._waiting[order.id]
        finally:
            del self._waiting[order.id]
        if report is None and self._lost(pid):
            raise _Lost
        if report is None:
            raise NotReplayable(f"the shadow process did not run {order.rows} rows within {CHUNK_SECONDS:g} s")
        return report


def _order(wanted: ReplayWanted, inputs: _Inputs, part: slice, block_rows: int) -> ReplayOrder:
    tensors = {name: (each.datatype, each.array[part]) for name, each in inputs.items()}
    return ReplayOrder(
        id=str(uuid.uuid4()),
        model=wanted.baseline.model,
        baseline=wanted.baseline.version,
        baseline_digest=wanted.baseline.digest,
        candidate=wanted.candidate.version,
        candidate_digest=wanted.candidate.digest,
        rows=part.stop - part.start,
        block_rows=block_rows,
        inputs=tuple(
            TensorRows(name=name, datatype=datatype, shape=array.shape, data=array.tobytes())
            for name, (datatype, array) in tensors.items()
        ),
    )


class ReplayRun:
    """The replay of one rollout's epoch, beside its looks. It is begun by what was decided, whoever decided it."""

    def __init__(self, desk: ReplayDesk | None, name: str) -> None:
        self._desk = desk
        self._name = name
        self.task: asyncio.Task[None] | None = None
        self._come: tuple[int, Replayed] | None = None  # of which epoch

    def come(self, rollout: Rollout, wanted: ReplayWanted) -> Replayed | None:
        """What has come, until the rollout knows it; what is asked for and not under way is begun."""
        if not wants_replay(rollout):
            return None
        if self._come is not None and self._come[0] == rollout.epoch:
            return self._come[1]
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._replay(rollout.epoch, wanted))
        return None

    def end_unless_wanted(self, rollout: Rollout) -> None:
        """After a change of the rollout."""
        if not wants_replay(rollout):
            self._come = None
            if self.task is not None:
                self.task.cancel()

    async def _replay(self, epoch: int, wanted: ReplayWanted) -> None:
        if self._desk is None:
            self._come = epoch, Replayed(done=True, problem="there is nothing to replay with")
            return
        try:
            self._come = epoch, await self._desk.replay(wanted)
        except Exception:
            log.exception("%s: rows could not be replayed", self._name)
            self._come = epoch, Replayed(done=True, problem="an internal error; control's log has more")
