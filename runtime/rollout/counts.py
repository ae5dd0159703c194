"""What a look sees: counts of both versions since the step began. They add up over workers, replicas and restarts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from runtime.rollout.latency import BUCKETS, Histogram


@dataclass(frozen=True)
class Mean:
    """Rows, their mean, and the sum of squared distances from it."""

    rows: int = 0
    mean: float = 0.0
    m2: float = 0.0

    @property
    def variance(self) -> float:
        return self.m2 / (self.rows - 1) if self.rows > 1 else 0.0

    @property
    def deviation(self) -> float:
        return math.sqrt(self.variance)

    def plus(self, other: Mean) -> Mean:
        rows = self.rows + other.rows
        if rows == 0:
            return self
        apart = other.mean - self.mean
        return Mean(
            rows,
            self.mean + apart * other.rows / rows,
            self.m2 + other.m2 + apart**2 * self.rows * other.rows / rows,
        )


class CountsWentBack(ValueError):
    """Cumulative counts that are smaller than at the look before, from the same counters."""


@dataclass(frozen=True)
class ArmCounts:
    """One version's. In a step without weight the candidate's requests are the copies that it answered.

    `latency`: of answered requests. `labelled`, `wrong`: of those whose true label has come. `means`: by metric.
    """

    requests: int = 0
    errors: int = 0
    latency: Histogram = ()
    labelled: int = 0
    wrong: int = 0
    means: tuple[tuple[str, Mean], ...] = ()

    def __post_init__(self) -> None:
        if not (0 <= self.errors <= self.requests and 0 <= self.wrong <= self.labelled):
            raise ValueError(
                f"expected 0 <= errors <= requests and 0 <= wrong <= labelled, got {self.errors} of {self.requests} "
                f"and {self.wrong} of {self.labelled}"
            )
        buckets = [bucket for bucket, _ in self.latency]
        if buckets != sorted(set(buckets)) or any(count <= 0 for _, count in self.latency):
            raise ValueError("expected latency as (bucket, count) in the order of buckets, with counts above 0")
        if buckets and not 0 <= buckets[0] <= buckets[-1] < BUCKETS:
            raise ValueError(f"expected buckets of latency in 0..{BUCKETS - 1}, got {buckets[0]}..{buckets[-1]}")

    def mean(self, name: str) -> Mean:
        return dict(self.means).get(name, Mean())

    def plus(self, other: ArmCounts) -> ArmCounts:
        means = [(n, self.mean(n).plus(other.mean(n))) for n in sorted({n for n, _ in (*self.means, *other.means)})]
        return ArmCounts(
            self.requests + other.requests,
            self.errors + other.errors,
            _added(self.latency, other.latency),
            self.labelled + other.labelled,
            self.wrong + other.wrong,
            tuple(means),
        )


def _added(a: Histogram, b: Histogram, sign: int = 1) -> Histogram:
    counts = dict(a)
    for bucket, count in b:
        counts[bucket] = counts.get(bucket, 0) + sign * count
    return tuple(sorted((bucket, count) for bucket, count in counts.items() if count))


@dataclass(frozen=True)
class Counts:
    """Both versions', and how many answers to copies were compared and agreed."""

    candidate: ArmCounts = field(default_factory=ArmCounts)
    baseline: ArmCounts = field(default_factory=ArmCounts)
    compared: int = 0
    agreed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.agreed <= self.compared:
            raise ValueError(f"expected 0 <= agreed <= compared, got {self.agreed} of {self.compared}")

    def plus(self, other: Counts) -> Counts:
        return Counts(
            self.candidate.plus(other.candidate),
            self.baseline.plus(other.baseline),
            self.compared + other.compared,
            self.agreed + other.agreed,
        )


def block_of(before: Counts, after: Counts) -> Counts:
    """What came between two looks at the same counters, means left out; CountsWentBack if less is there than before."""
    try:
        return Counts(
            _arm_since(before.candidate, after.candidate),
            _arm_since(before.baseline, after.baseline),
            after.compared - before.compared,
            after.agreed - before.agreed,
        )
    except ValueError as error:
        raise CountsWentBack(
            "expected counts that only grow, of one set of counters; counters that began anew need another "
            f"`counters`: {error}"
        ) from None


def _arm_since(before: ArmCounts, after: ArmCounts) -> ArmCounts:
    return ArmCounts(
        after.requests - before.requests,
        after.errors - before.errors,
        _added(after.latency, before.latency, -1),
        after.labelled - before.labelled,
        after.wrong - before.wrong,
    )


class DriftSign(Enum):
    """What the drift of the candidate against the baseline was judged to be, by the tests of `runtime.drift`."""

    STABLE = "stable"
    DRIFTED = "drifted"
    UNKNOWN = "not enough data"


@dataclass(frozen=True)
class ReplayBlock:
    """Rows that ran together through both versions. `compared`: those that both answered; both may fail on a row."""

    rows: int
    candidate_failed: int = 0
    baseline_failed: int = 0
    compared: int = 0
    agreed: int = 0

    def __post_init__(self) -> None:
        failed = max(self.candidate_failed, self.baseline_failed)
        if not (
            0 <= self.agreed <= self.compared <= self.rows - failed
            and min(self.candidate_failed, self.baseline_failed) >= 0
        ):
            raise ValueError(f"expected 0 <= agreed <= compared <= rows that none has failed, got {self}")

    @property
    def counts(self) -> Counts:
        """A row is a request of each version."""
        return Counts(
            ArmCounts(self.rows, self.candidate_failed),
            ArmCounts(self.rows, self.baseline_failed),
            self.compared,
            self.agreed,
        )


@dataclass(frozen=True)
class Replayed:
    """Rows from before the step that both versions were asked anew.

    `blocks`: all of the epoch so far, in the order in which they ran. How rows were put into blocks must not depend on
    what became of them. `done`: no more will come. `problem`: why there are none, or not all.
    """

    blocks: tuple[ReplayBlock, ...] = ()
    done: bool = False
    problem: str = ""


@dataclass(frozen=True)
class Observation:
    """One look.

    `epoch`: which begin of counting this is of; a look of another one is not used. `counters`: names the memory that
    was counted in; where it has changed since the look before, counts are taken to have begun at zero. `crashes`:
    processes that the candidate has ended since the step began. `load_failed`: why it could not be loaded, or "".
    `replayed`: what came of a replay that was asked for; None: nothing that was not told before.
    """

    epoch: int
    counts: Counts = field(default_factory=Counts)
    counters: str = ""
    drift: tuple[tuple[str, DriftSign], ...] = ()
    crashes: int = 0
    load_failed: str = ""
    replayed: Replayed | None = None
