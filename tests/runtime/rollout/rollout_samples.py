"""Plans and made-up traffic for the tests of rollouts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.rollout.counts import ArmCounts, Counts, Observation
from runtime.rollout.decide import command, step
from runtime.rollout.decision import Command, Decision, Verb
from runtime.rollout.latency import BUCKETS, FIRST, PER_OCTAVE, Histogram
from runtime.rollout.phase import JUDGED
from runtime.rollout.plan import Plan, read_plan
from runtime.rollout.rollout import Rollout, draft

REPLICATIONS = int(os.environ.get("DRIFTGATE_REPLICATIONS", "0"))
OPERATOR = "ann"
SHADOW = {"shadow_percent": 10, "min_duration_seconds": 60, "min_requests": 100}
FIVE = {"weight_percent": 5, "min_duration_seconds": 60, "min_requests": 100}
TWENTY = {"weight_percent": 20, "min_duration_seconds": 60, "min_requests": 100}


def replications(default: int) -> int:
    return REPLICATIONS or default


def document(**changes: Any) -> dict[str, Any]:
    return {
        "model": "fraud",
        "candidate": "2",
        "baseline": "1",
        "steps": [SHADOW, FIVE, TWENTY],
        "gates": {"errors": {}, "latency": [{}], "agreement": {}},
    } | changes


def plan_of(**changes: Any) -> Plan:
    return read_plan(document(**changes))


def asked(verb: Verb, reason: str = "") -> Command:
    return Command(verb, OPERATOR, reason)


def started(plan: Plan, at_seconds: float = 0.0) -> Rollout:
    return command(plan, draft(plan), at_seconds, asked(Verb.START))[0]


def look(rollout: Rollout, candidate: int = 0, errors: int = 0, baseline: int = 0, **others: Any) -> Observation:
    """Of the rollout's epoch, with so many requests; the baseline's fail never."""
    counts = Counts(ArmCounts(candidate, errors), ArmCounts(baseline))
    return Observation(rollout.epoch, others.pop("counts", counts), **others)


@dataclass(frozen=True)
class World:
    """What clients and versions are like: requests a second, rates of errors, factors of latency, agreement."""

    rps: float = 1000.0
    error_rates: tuple[float, float] = (0.01, 0.01)
    slowness: float = 1.0
    slow_share: float = 0.0
    slow_factor: float = 8.0
    disagreement: float = 0.005


def latencies(random: np.random.Generator, rows: int, slowness: float, share: float, factor: float) -> Any:
    """int64[BUCKETS], log-normal around 10 ms."""
    seconds = 0.01 * slowness * np.exp(0.6 * random.standard_normal(rows))
    if share:
        seconds[random.random(rows) < share] *= factor
    at = np.ceil(np.log2(seconds) * PER_OCTAVE).astype(int) - FIRST - 1
    return np.bincount(at.clip(0, BUCKETS - 1), minlength=BUCKETS)


def sparse(counts: Any) -> Histogram:
    at = np.flatnonzero(counts)
    return tuple(zip(at.tolist(), counts[at].tolist(), strict=True))


class Traffic:
    """Cumulative counts of an epoch, second after second."""

    def __init__(self, plan: Plan, world: World, random: np.random.Generator) -> None:
        self._plan, self._world, self._random = plan, world, random
        self._epoch = -1

    def second(self, rollout: Rollout) -> Observation:
        world, random, rules = self._world, self._random, self._plan.steps[rollout.step]
        if self._epoch != rollout.epoch:
            self._epoch, self._rows, self._errors = rollout.epoch, [0, 0], [0, 0]
            self._latency = [np.zeros(BUCKETS, np.int64) for _ in range(2)]
            self._compared = self._agreed = 0
        arrived = int(random.poisson(world.rps))
        served = int(random.binomial(arrived, rules.weight_percent / 100))
        copies = int(random.binomial(arrived, rules.shadow_percent / 100))
        slow = ((world.slowness, world.slow_share), (1.0, 0.0))
        for arm, rows in enumerate((copies if rules.is_shadow else served, arrived - served)):
            errors = int(random.binomial(rows, world.error_rates[arm]))
            self._rows[arm] += rows
            self._errors[arm] += errors
            self._latency[arm] += latencies(random, rows - errors, *slow[arm], world.slow_factor)
        self._compared += copies
        self._agreed += copies - int(random.binomial(copies, world.disagreement))
        arms = (ArmCounts(self._rows[a], self._errors[a], sparse(self._latency[a])) for a in range(2))
        return Observation(rollout.epoch, Counts(*arms, self._compared, self._agreed))


def roll_out(plan: Plan, world: World, seed: int, longest_seconds: int = 2_000) -> tuple[Rollout, list[Decision]]:
    """With a look every second, until nothing moves any more; the decisions that moved."""
    traffic = Traffic(plan, world, np.random.default_rng(seed))
    rollout, moved = started(plan), []
    for second in range(1, longest_seconds + 1):
        rollout, decision, _ = step(plan, rollout, float(second), traffic.second(rollout))
        if decision.moved:
            moved.append(decision)
        if rollout.phase not in JUDGED:
            break
    return rollout, moved
