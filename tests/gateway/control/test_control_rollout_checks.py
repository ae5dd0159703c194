"""What a plan is checked against before anything begins: every problem at once, and warnings."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from drift_traffic import SCHEMA
from rollout_scene import OLGA, STEP, Scene, control, plan_of, world
from test_control_rollouts import in_control

from gateway.control.rollout_checks import Checks, Rates, Settings
from gateway.control.rollout_events import MAX_EVIDENCE, MAX_WATCHERS, RolloutWatchers, action_of, evidence_of
from gateway.errors import Precondition
from gateway.store.contract import DesiredModel, DesiredVersion
from runtime.errors import NotReady, Overloaded
from runtime.profile.schema import Schema
from runtime.repository.repository import Scan
from runtime.rollout.counts import ArmCounts, Counts, Observation
from runtime.rollout.decide import command, step
from runtime.rollout.decision import Command, Verb
from runtime.rollout.plan import Plan
from runtime.rollout.rollout import draft

COPIES = {"shadow_percent": 10}
MODEL = DesiredModel(
    "m", served=True, versions=(DesiredVersion(1, "sha256:1", 1), DesiredVersion(2, "sha256:2", 2)),
    labels={"stable": 1, "next": 2},
)  # fmt: skip


class Desired:
    def __init__(self, *models: DesiredModel) -> None:
        self.desired = {model.name: model for model in models}
        self.scan = Scan()


def checks(
    model: DesiredModel = MODEL,
    settings: Settings | None = None,
    busy: str = "",
    schema: Schema | None = SCHEMA,
    rates: Rates | None = None,
) -> Checks:
    return Checks(Desired(model), settings or Settings(), lambda _: busy, lambda *_: schema, rates or Rates())


def problems(of: Checks, plan: Plan, lost: int = 0) -> str:
    with pytest.raises(Precondition) as caught:
        of.check(plan, lost)
    return caught.value.message


def test_labels_become_numbers() -> None:
    checked = checks().check(plan_of(baseline="stable", candidate="next"), 0)
    assert (checked.baseline, checked.candidate, checked.warnings) == (1, 2, ())


@pytest.mark.parametrize(
    ("plan", "given", "message"),
    [
        ({"model": "other"}, {}, "model: expected a model that is served, got 'other'; served: m"),
        ({"baseline": "3"}, {}, "baseline: expected a version that is served, got 3; served: 1, 2"),
        ({"candidate": "9"}, {}, "candidate: version 9 is not in the repository; the model has 1, 2"),
        ({"candidate": "newest"}, {}, "candidate: expected a version or a label, got 'newest'; labels: next, stable"),
        ({"candidate": "stable"}, {}, "candidate: expected another version than the baseline; both are 1"),
        ({}, {"busy": "rollout 7 is under way"}, "rollout 7 is under way"),
        ({"gates": {"errors": {}, "quality": {}}}, {}, "gates.quality: no labels are collected"),
        ({"gates": {"errors": {}, "drift": ["latency"]}}, {}, "expected inputs or predictions, got latency"),
        ({"gates": {"drift": ["inputs"]}}, {"settings": Settings(statistics=False)}, "need statistics.enabled"),
        ({"gates": {"drift": ["inputs"]}}, {"schema": None}, "nothing is measured of version 1"),
        ({"gates": {"means": [{"name": "x", "margin": 1}]}}, {}, "gates.means[0].name: expected a numeric feature"),
        (
            {"steps": [{"shadow_percent": 10}], "gates": {"agreement": {}}},
            {"settings": Settings(shadow=False)},
            "steps[0]: copies need shadow.enabled",
        ),
        (
            {"steps": [COPIES, STEP], "gates": {"errors": {}, "drift": ["inputs"]}, "promote_on": "evidence"},
            {},
            "steps[0]: with promote_on: evidence, gates.drift and gates.means would hold",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_rolled_out_is_refused(plan: dict[str, Any], given: dict[str, Any], message: str) -> None:
    told = problems(checks(**given), plan_of(**plan))
    assert told.startswith("the plan cannot be rolled out here, 1 problem: ")
    assert message in told


def test_a_route_with_a_split_and_full_pages_are_refused_and_all_is_told_at_once() -> None:
    route = json.dumps({"split": {"stable": 50, "next": 50}})
    model = DesiredModel("m", served=True, versions=MODEL.versions, labels=MODEL.labels, route=route)
    told = problems(checks(model), plan_of(candidate="9", gates={"quality": {}, "errors": {}}), lost=3)
    assert "4 problems" in told
    for part in ("version 9", "split of its own (stable, next)", "gates.quality", "3 series of requests found no room"):
        assert part in told


def test_a_route_without_a_split_stays() -> None:
    route = json.dumps({"rules": [{"name": "a", "when": {"x": "y"}, "to": "stable"}]})
    model = DesiredModel("m", served=True, versions=MODEL.versions, labels=MODEL.labels, route=route)
    assert checks(model).check(plan_of(), 0).candidate == 2


def test_steps_that_the_present_traffic_does_not_fill_are_warned_of() -> None:
    rates = Rates()
    assert rates.of("m") is None
    rates.add(0.0, {"m": 100})
    rates.add(10.0, {"m": 200})
    assert rates.of("m") == 10
    steps = [STEP | {"max_duration_seconds": 60}, STEP | {"weight_percent": 50, "max_duration_seconds": 60}]
    (warning,) = checks(rates=rates).check(plan_of(steps=steps), 0).warnings
    assert warning == ("steps[0]: at the present 10.0 requests/s, 5 % are about 30 in 60 s, and min_requests is 100")
    rates.add(20.0, {"m": 200})
    assert rates.of("m") == 5
    for second in range(30, 100, 10):
        rates.add(float(second), {"m": 200})
    assert len(checks(rates=rates).check(plan_of(), 0).warnings) == 2, "without requests, no step is filled in a week"


def test_gates_that_say_nothing_in_steps_of_copies_are_warned_of() -> None:
    plan = plan_of(steps=[{"shadow_percent": 10}, STEP], gates={"errors": {}, "drift": ["inputs"]})
    assert "say nothing in steps of copies" in checks().check(plan, 0).warnings[0]


def test_a_check_begins_nothing_and_a_refused_start_is_audited(tmp_path: Path) -> None:
    async def script(there: Scene) -> None:
        view, warnings = await there.rollouts.check(plan_of())
        assert (view.id, view.baseline, view.candidate, view.rollout) == (0, 1, 2, draft(plan_of()))
        assert warnings == []
        assert there.store.rollouts.listed() == []
        with pytest.raises(Precondition, match="version 9 is not in the repository"):
            await there.rollouts.start(plan_of(candidate="9"), OLGA)
        assert there.audits()[-1] == ("start rollout", "olga", "refused")
        await there.start()
        with pytest.raises(Precondition, match=r"rollout 1 of model 'm' is under way \(canary, step 1 of 2\): wait"):
            await there.rollouts.start(plan_of(candidate="3"), OLGA)

    in_control(tmp_path, script)


def test_of_two_starts_at_once_one_is_refused(tmp_path: Path) -> None:
    async def script(there: Scene) -> None:
        both = await asyncio.gather(
            there.rollouts.start(plan_of(), OLGA), there.rollouts.start(plan_of(), OLGA), return_exceptions=True
        )
        assert {type(each) for each in both} == {tuple, Precondition}
        await there.rollouts.idle()

    in_control(tmp_path, script)


def test_before_what_is_stored_is_back_nothing_is_started(tmp_path: Path) -> None:
    async def run() -> None:
        with world(tmp_path) as there:
            async with control(there) as scene:
                scene.rollouts._restored = False
                with pytest.raises(NotReady, match="the gateway is starting"):
                    await scene.rollouts.start(plan_of(), OLGA)
                with pytest.raises(NotReady, match="the gateway is starting"):
                    scene.rollouts.find(1, "")
                with pytest.raises(NotReady, match="the gateway is starting"):
                    await scene.rollouts.command(1, Verb.ABORT, OLGA)

    asyncio.run(run())


# Events


def test_evidence_of_any_number_of_gates_is_json_that_is_not_cut() -> None:
    gates = {"latency": [{"quantile": 0.01 + n / 100} for n in range(64)]}
    plan = plan_of(gates=gates)
    begun, first, _ = command(plan, draft(plan), 0.0, Command(Verb.START, "ann"))
    assert action_of(first) == "rollout step 1"
    seen = Observation(begun.epoch, Counts(ArmCounts(100, 1, ((3, 99),)), ArmCounts(100, 0, ((3, 100),))), "1.0")
    _, decision, _ = step(plan, begun, 1.0, seen)
    text = evidence_of(decision)
    document = json.loads(text)
    assert len(text) <= MAX_EVIDENCE
    assert len(document["gates"]) + document["more"] == 64
    assert document["candidate"] == {"requests": 100, "errors": 1}


def test_watchers_are_bounded() -> None:
    watchers = RolloutWatchers()
    contexts = [watchers.watching(1) for _ in range(MAX_WATCHERS)]
    for each in contexts:
        each.__enter__()
    with pytest.raises(Overloaded, match=f"{MAX_WATCHERS} clients watch"), watchers.watching(1):
        pass
    for each in contexts:
        each.__exit__(None, None, None)
    assert not watchers.has(1)
