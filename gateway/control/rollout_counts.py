"""What a look at a rollout counts: both versions' requests since the step began, from counters that only grow.

    requests of steps with weight    the workers' series, by variant `baseline` and `candidate` and by version
    requests of steps of copies      the candidate's: copies that its shadow ran; the baseline's: all its requests
    agreement                        the comparisons of the pair
    crashes                          the workers' pages of statistics

The series and crashes are of the gateway's start and outlive control and workers; comparisons are of control's. So
each group is named by its memory, and what is kept of a step is what every group said when counting began (`mark`) and
at the last look (`last`). Where one memory has begun anew, counting begins anew for all: the group with another name
from zero, the others from the last look on. So no request is counted twice, and none is left out that was counted.

An error is every code but OK; what its caller has cancelled is neither an error nor a request, for it says nothing.

Rows of a page of series are never given back and never fall. A page that is full counts new series under `overflow`,
without a model: such counts belong to nobody, and `lost` tells that a step may have lost some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Protocol

import numpy as np

from gateway.control.traffic import BASELINE, CANDIDATE
from gateway.telemetry.conventions import CODES
from runtime.rollout.counts import ArmCounts, Counts, CountsWentBack, block_of
from runtime.rollout.latency import Histogram
from runtime.shm.series import Series

OK, CANCELLED = CODES.index("OK"), CODES.index("CANCELLED")
MODEL_BYTES = 128
"""Of a series' model; a longer name is cut off there."""


class PairTotals(Protocol):
    """Copies of one pair of versions, since the memory `counters` began. `agreed` are among `compared`."""

    @property
    def counters(self) -> str: ...
    @property
    def compared(self) -> int: ...
    @property
    def agreed(self) -> int: ...
    @property
    def failed(self) -> int: ...


class ComparisonTotals(Protocol):
    def totals(self, model: str, primary: int, shadow: int) -> PairTotals: ...


class SeriesSource(Protocol):
    def totals(self) -> list[Series]: ...

    def lost(self) -> int: ...


@dataclass(frozen=True)
class Totals:
    """What all counters of a rollout said at one moment. `gateway`, `comparisons`: names of the memories.

    `baseline`, `candidate`: of series; in a step of copies the baseline's are all its requests. `copies`: that the
    candidate ran, `failed` of them without an answer. `lost`: series of any model that found no room.
    """

    gateway: str = ""
    comparisons: str = ""
    baseline: ArmCounts = field(default_factory=ArmCounts)
    candidate: ArmCounts = field(default_factory=ArmCounts)
    crashes: int = 0
    lost: int = 0
    compared: int = 0
    agreed: int = 0
    failed: int = 0

    def counts(self, *, of_copies: bool) -> Counts:
        """`of_copies`: in a step of copies only."""
        candidate = self.candidate
        if of_copies:
            candidate = ArmCounts(self.compared + self.failed, self.failed)
        return Counts(candidate, self.baseline, self.compared, self.agreed)


@dataclass(frozen=True)
class Reading:
    """All counters of the gateway at one moment, of whatever model. `number`: a later reading has a higher one."""

    number: int
    gateway: str
    series: tuple[Series, ...]
    lost: int

    def requests(self) -> dict[str, int]:
        """By model."""
        found: dict[str, int] = {}
        for series in self.series:
            if series.key.model:
                found[series.key.model] = found.get(series.key.model, 0) + series.counters["requests"]
        return found


class Counters:
    """`read` from any thread; `totals` from the one that comparisons belong to.

    gateway: names the start of the gateway, which series and crashes count from. `comparisons` None: nothing copies.
    """

    def __init__(
        self,
        series: SeriesSource,
        gateway: str,
        comparisons: ComparisonTotals | None = None,
        crashes: Callable[[str, int], int] | None = None,
    ) -> None:
        self._series = series
        self._gateway = gateway
        self._comparisons = comparisons
        self._crashes = crashes
        self._numbers = count(1)

    @property
    def gateway(self) -> str:
        return self._gateway

    def read(self) -> Reading:
        """Copies the workers' pages: some milliseconds."""
        return Reading(next(self._numbers), self._gateway, tuple(self._series.totals()), self._series.lost())

    def totals(self, reading: Reading, model: str, baseline: int, candidate: int, *, of_copies: bool) -> Totals:
        own = [series for series in reading.series if series.key.model == _cut(model)]
        pair = self._comparisons.totals(model, baseline, candidate) if self._comparisons is not None else None
        return Totals(
            gateway=reading.gateway,
            comparisons=pair.counters if pair is not None else "",
            baseline=arm_of(own, "" if of_copies else BASELINE, baseline),
            candidate=arm_of(own, CANDIDATE, candidate),
            crashes=self._crashes(model, candidate) if self._crashes is not None else 0,
            lost=reading.lost,
            compared=pair.compared if pair is not None else 0,
            agreed=pair.agreed if pair is not None else 0,
            failed=pair.failed if pair is not None else 0,
        )


def arm_of(series: Iterable[Series], variant: str, version: int) -> ArmCounts:
    """Of one model's series. `variant` "": whatever it was."""
    requests = errors = zero = 0
    buckets: np.ndarray[tuple[int, ...], np.dtype[np.uint64]] | None = None
    for each in series:
        key = each.key
        # A version that could not be reached is an error of its arm, and has no number there.
        if key.code == CANCELLED or key.version not in ((version, 0) if variant else (version,)):
            continue
        if variant and key.variant != variant:
            continue
        requests += each.counters["requests"]
        if key.code != OK:
            errors += each.counters["requests"]
            continue
        zero += each.counters["duration_zero"]
        buckets = each.duration if buckets is None else buckets + each.duration
    return ArmCounts(requests, errors, _histogram(buckets, zero))


def _histogram(
    buckets: np.ndarray[tuple[int, ...], np.dtype[np.uint64]] | None, zero: int
) -> Histogram:  # fmt: skip
    """As `runtime.rollout.latency` has it: the first bucket also has all below it."""
    if buckets is None:
        return ()
    there = np.flatnonzero(buckets)
    counts = dict(zip(there.tolist(), buckets[there].tolist(), strict=True))
    if zero:
        counts[0] = counts.get(0, 0) + zero
    return tuple(sorted(counts.items()))


def _cut(model: str) -> str:
    return model.encode()[:MODEL_BYTES].rstrip(b"\0").decode("utf-8", "replace")


@dataclass(frozen=True)
class Counting:
    """One beginning of counting, as it is stored between two looks.

    `number`: how often counting has begun anew in this epoch, for a memory that was gone. `crashes`: of this epoch, up
    to `mark`.
    """

    of_copies: bool
    mark: Totals
    last: Totals
    number: int = 0
    crashes: int = 0

    @staticmethod
    def begun(totals: Totals, *, of_copies: bool) -> Counting:
        return Counting(of_copies, totals, totals)

    def counters(self, epoch: int) -> str:
        """The name of these counters, as an observation has it."""
        return f"{epoch}.{self.number}"

    def after(self, totals: Totals) -> Counting:
        """With a look at the counters."""
        if totals.gateway == self.last.gateway and totals.crashes < self.last.crashes:
            return self._crashes_from(totals.crashes).after(totals)
        if (totals.gateway, totals.comparisons) == (self.last.gateway, self.last.comparisons) and not self._fell(
            self.last, totals
        ):
            return replace(self, last=totals)
        crashes = self.crashes + self.last.crashes - self.mark.crashes
        return replace(self, mark=self._new_mark(totals), last=totals, number=self.number + 1, crashes=crashes)

    def _crashes_from(self, crashes: int) -> Counting:
        """A version's place in a full page was given away, and its crashes with it: they count on from what is left.

        Those that were seen stay seen, and all else counts as before.
        """
        mark, last = replace(self.mark, crashes=crashes), replace(self.last, crashes=crashes)
        return replace(self, mark=mark, last=last, crashes=self.all_crashes)

    @property
    def counts(self) -> Counts:
        """Since `mark`."""
        return block_of(self.mark.counts(of_copies=self.of_copies), self.last.counts(of_copies=self.of_copies))

    @property
    def all_crashes(self) -> int:
        """Since the epoch began."""
        return self.crashes + self.last.crashes - self.mark.crashes

    @property
    def lost(self) -> int:
        """Series that found no room since `mark`: what they count is not in `counts`."""
        return max(self.last.lost - self.mark.lost, 0)

    def _new_mark(self, totals: Totals) -> Totals:
        """Memories that have begun anew count from zero, others from the last look, and what fell from now."""
        fell = self._fell(self.last, totals)
        mark = totals if fell else self.last
        if totals.gateway != self.last.gateway:
            mark = replace(mark, baseline=ArmCounts(), candidate=ArmCounts(), crashes=0, lost=0)
        if totals.comparisons != self.last.comparisons:
            mark = replace(mark, compared=0, agreed=0, failed=0)
        return replace(mark, gateway=totals.gateway, comparisons=totals.comparisons)

    def _fell(self, before: Totals, after: Totals) -> bool:
        """Whether counters of one memory are smaller than before: a page was damaged, and they begin anew."""
        if before.gateway != after.gateway:
            before = replace(before, baseline=ArmCounts(), candidate=ArmCounts())
        if before.comparisons != after.comparisons:
            before = replace(before, compared=0, agreed=0, failed=0)
        try:
            for of_copies in (False, True):
                block_of(before.counts(of_copies=of_copies), after.counts(of_copies=of_copies))
        except CountsWentBack:
            return True
        return False
