"""Whole rollouts with a look every second: how often a good one is stopped, and how soon a bad one.

DRIFTGATE_REPLICATIONS=500 for the full simulation.
"""

from __future__ import annotations

from statistics import median
from typing import Any

import pytest
from rollout_samples import FIVE, TWENTY, World, plan_of, replications, roll_out
from scipy import stats

from runtime.rollout.decide import recompute
from runtime.rollout.phase import Phase

ALPHA = 0.05
STEPS = [
    {"shadow_percent": 10, "min_duration_seconds": 30, "min_requests": 100},
    FIVE | {"shadow_percent": 10, "min_duration_seconds": 40},
    TWENTY | {"shadow_percent": 10, "min_duration_seconds": 40},
]
EDGE = {"errors": {"margin": 0.0}, "latency": [{"ratio": 1.0}, {"quantile": 0.5, "ratio": 1.0}], "agreement": {}}
"""The candidate of an A/A rollout is on the very edge of what these allow."""


def test_equal_versions_are_rolled_back_no_more_often_than_stated_with_a_look_every_second() -> None:
    runs = replications(150)
    plan = plan_of(alpha=ALPHA, steps=STEPS, gates=EDGE)
    world = World(rps=300, disagreement=0.01)
    back = 0
    for seed in range(runs):
        rollout, _ = roll_out(plan, world, seed)
        assert rollout.phase in {Phase.LIVE, Phase.ROLLED_BACK}
        back += rollout.phase is Phase.ROLLED_BACK
    print(f"A/A: {back} of {runs} rolled back")
    assert back <= ALPHA * runs
    assert back <= stats.binom.isf(1e-4, runs, ALPHA)


def test_equal_versions_reach_live_by_themselves_also_where_safety_must_be_shown() -> None:
    plan = plan_of(promote_on="evidence")
    rollout, moved = roll_out(plan, World(), 0)
    assert rollout.phase is Phase.LIVE
    assert [decision.step for decision in moved] == [1, 2, 2]
    assert all(recompute(plan, decision) == decision for decision in moved)


WORSE = {
    "2 % more errors": (World(error_rates=(0.03, 0.01)), "errors", 3_000),
    "all latencies doubled": (World(slowness=2.0), "latency p99", 1_000),
    "p99 doubled by a slow slice of 2 %": (World(slow_share=0.02, slow_factor=8), "latency p99", 4_000),
    "3 % disagree": (World(disagreement=0.03), "agreement", 2_000),
}


@pytest.mark.parametrize("percent", [5, 20])
@pytest.mark.parametrize("name", WORSE)
def test_worse_versions_are_rolled_back_by_the_gate_that_sees_it(name: str, percent: int) -> None:
    world, gate, most_requests = WORSE[name]
    rules = {"weight_percent": percent, "shadow_percent": percent, "min_duration_seconds": 600}
    plan = plan_of(steps=[rules])
    needed, seconds = [], []
    for seed in range(replications(9)):
        rollout, moved = roll_out(plan, world, seed, 600)
        assert rollout.phase is Phase.ROLLED_BACK
        assert moved[-1].reason.startswith(gate)
        counts = rollout.counts
        needed.append(counts.compared if gate == "agreement" else counts.candidate.requests)
        seconds.append(rollout.active_seconds)
    print(f"{name} at {percent} % of 1,000 requests/s: median {median(needed):.0f} requests, {median(seconds):.0f} s")
    assert median(needed) <= most_requests


@pytest.mark.parametrize(
    ("world", "gates"),
    [
        (World(rps=300, error_rates=(0.015, 0.01)), {"errors": {"margin": 0.005}}),
        (World(rps=300, slowness=2 ** (4 / 16)), {"latency": [{"quantile": 0.9, "ratio": 2 ** (4 / 16)}]}),
        (World(rps=300, disagreement=0.01), {"agreement": {"min_share": 0.99}}),
    ],
    ids=["errors", "latency", "agreement"],
)
def test_a_version_as_bad_as_allowed_is_shown_to_be_safe_no_more_often_than_stated(
    world: World, gates: dict[str, Any]
) -> None:
    runs = replications(60)
    rules = FIVE | {"shadow_percent": 10, "max_duration_seconds": 90}
    plan = plan_of(steps=[rules], gates=gates, promote_on="evidence")
    live = sum(roll_out(plan, world, seed)[0].phase is Phase.LIVE for seed in range(runs))
    print(f"{live} of {runs} reached live")
    assert live <= stats.binom.isf(1e-4, runs, plan.promotion_alpha)
