"""Rows that control asks to replay: each runs through both versions, and their answers are compared as copies' are.

One order after the other, a block at a time, between copies. An order's report tells of all its rows or of none:
control asks again for what was lost with this process.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from pydantic import BaseModel

from gateway.messages import BlockReport, ReplayOrder, ReplayReport
from gateway.shadow.fit import misfit, misshapen
from gateway.shadow.versions import ShadowVersion, ShadowVersions
from runtime.errors import RunError, ServingError
from runtime.onnx.dtypes import BY_NAME
from runtime.shadow.comparison import PairComparison
from runtime.shadow.copied_pair import CopiedPair
from runtime.shadow.pair import Array, Copy, PairKey, PairSettings

log = logging.getLogger(__name__)

MAX_WAITING = 4
"""Orders: control sends one, and the next when it has the report."""

REPLAY = "/replay"
"""After a digest: what is compared here is no copy, and is not counted among them."""

Run = Callable[[ShadowVersion, Mapping[str, Array]], dict[str, Array]]
Answers = dict[str, Array] | None
"""None: the version failed on these rows."""


class CannotReplay(ValueError):
    """Why an order's rows cannot be run."""


@dataclass
class _UnderWay:
    order: ReplayOrder
    baseline: ShadowVersion
    candidate: ShadowVersion
    feeds: dict[str, Array]
    comparison: PairComparison
    blocks: list[BlockReport] = field(default_factory=list)
    at: int = 0

    def part(self, begin: int, end: int) -> dict[str, Array]:
        return {name: array[begin:end] for name, array in self.feeds.items()}


class Replays:
    """`take` from any thread, `step` on the one that runs models."""

    def __init__(self, versions: ShadowVersions, tell: Callable[[BaseModel], None]) -> None:
        self._versions = versions
        self._tell = tell
        self._waiting: queue.Queue[ReplayOrder] = queue.Queue(MAX_WAITING)
        self._under_way: _UnderWay | None = None

    def take(self, order: ReplayOrder) -> None:
        try:
            self._waiting.put_nowait(order)
        except queue.Full:
            self._tell(ReplayReport(id=order.id, problem=f"{MAX_WAITING} other replays wait already"))

    def step(self, run: Run) -> bool:
        """Runs one block; False if there was none. `run` raises RunError where the version failed, NotReady where it
        was not let to answer.
        """
        if self._under_way is None:
            try:
                order = self._waiting.get_nowait()
            except queue.Empty:
                return False
            try:
                self._under_way = self._begun(order)
            except CannotReplay as error:
                self._tell(ReplayReport(id=order.id, problem=str(error)))
                return True
        going = self._under_way
        if going.at < going.order.rows:
            end = min(going.at + going.order.block_rows, going.order.rows)
            try:
                going.blocks.append(_block(going, going.at, end, run))
            except CannotReplay as error:
                self._end(problem=str(error))
                return True
            except Exception:
                log.exception("rows of %s could not be replayed", going.order.model)
                self._end(problem="an internal error; the shadow process's log has more")
                return True
            going.at = end
        if going.at >= going.order.rows:
            self._end()
        return True

    def _end(self, problem: str = "") -> None:
        going, self._under_way = self._under_way, None
        if going is not None:
            blocks = () if problem else tuple(going.blocks)
            self._tell(ReplayReport(id=going.order.id, blocks=blocks, problem=problem))

    def _begun(self, order: ReplayOrder) -> _UnderWay:
        """Raises CannotReplay."""
        sides = ((order.baseline, order.baseline_digest), (order.candidate, order.candidate_digest))
        found = [self._versions.find(order.model, version, digest) for version, digest in sides]
        for (number, _), version in zip(sides, found, strict=True):
            if version is None:
                raise CannotReplay(f"version {number} is not loaded in the shadow process")
        baseline, candidate = (version for version in found if version is not None)
        feeds = {each.name: _array(each.data, each.datatype, each.shape) for each in order.inputs}
        digests = order.baseline_digest + REPLAY, order.candidate_digest + REPLAY
        key = PairKey(order.model, order.baseline, digests[0], order.candidate, digests[1])
        pair = CopiedPair(
            key,
            PairSettings(),
            tuple((each.name, each.datatype) for each in order.inputs),
            tuple((spec.name, spec.datatype) for spec in baseline.signature.outputs),
            batched=True,
        )
        if wrong := misfit(pair, candidate.signature):
            raise CannotReplay(f"version {order.candidate} is asked in another way than the baseline: {wrong}")
        first = Copy(0, {name: array[:1] for name, array in feeds.items()}, {}, (1,), ("",), 0)
        for number, version in ((order.baseline, baseline), (order.candidate, candidate)):
            if wrong := misshapen(first, version.signature):
                raise CannotReplay(f"version {number}: {wrong}")
        return _UnderWay(order, baseline, candidate, feeds, PairComparison(key, PairSettings(), candidate.comparable))


def _array(data: bytes, datatype: str, shape: tuple[int, ...]) -> Array:
    try:
        return np.frombuffer(data, BY_NAME[datatype].numpy).reshape(shape)
    except (KeyError, ValueError) as error:
        raise CannotReplay(f"the rows cannot be read: {error}") from None


def _block(going: _UnderWay, begin: int, end: int, run: Run) -> BlockReport:
    """Together where both versions take rows together and answer them so; else one by one, as one may fail others."""
    rows = end - begin
    if rows > 1 and going.baseline.merges_rows and going.candidate.merges_rows:
        feeds = going.part(begin, end)
        first = _answers(going.baseline, feeds, run)
        second = _answers(going.candidate, feeds, run) if first is not None else None
        if first is not None and second is not None:
            return _report(rows, 0, 0, rows, _agreed(going, feeds, first, second, rows))
    candidate_failed = baseline_failed = compared = agreed = 0
    for row in range(begin, end):
        feeds = going.part(row, row + 1)
        first, second = (_answers(version, feeds, run) for version in (going.baseline, going.candidate))
        baseline_failed += first is None
        candidate_failed += second is None
        if first is not None and second is not None:
            compared += 1
            agreed += _agreed(going, feeds, first, second, 1)
    return _report(rows, candidate_failed, baseline_failed, compared, agreed)


def _report(rows: int, candidate_failed: int, baseline_failed: int, compared: int, agreed: int) -> BlockReport:
    return BlockReport(
        rows=rows, candidate_failed=candidate_failed, baseline_failed=baseline_failed, compared=compared, agreed=agreed
    )


def _answers(version: ShadowVersion, feeds: Mapping[str, Array], run: Run) -> Answers:
    """Raises CannotReplay where it says nothing of the version that it gave no answer."""
    try:
        return run(version, feeds)
    except RunError:
        return None
    except ServingError as error:
        raise CannotReplay(error.message) from None


def _agreed(
    going: _UnderWay, feeds: Mapping[str, Array], first: Mapping[str, Array], second: Mapping[str, Array], rows: int
) -> int:
    copy = Copy(time.time_ns(), feeds, first, (1,) * rows, ("",) * rows, 0)
    return going.comparison.compare(copy, second, 0).agreed
