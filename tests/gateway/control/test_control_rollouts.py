"""A rollout from its start to its end, as control runs it: traffic, desired state, audit, events, restarts."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drift_traffic import Traffic as Panes
from drift_traffic import shift
from rollout_scene import OLGA, STEP, Observed, Scene, control, plan_of, world

from gateway.control.traffic import Traffic
from gateway.errors import Precondition
from gateway.store.contract import StoreCorrupt, StoreUnavailable
from gateway.store.rollouts import RolloutChange
from runtime.errors import NotFound
from runtime.rollout.decide import recompute
from runtime.rollout.decision import Verb
from runtime.rollout.phase import Phase


def in_control(folder: Path, script: Callable[[Scene], Awaitable[None]], **given: Any) -> None:
    async def run() -> None:
        with world(folder) as there:
            for name, value in given.items():
                setattr(there, name, value)
            async with control(there) as scene:
                await script(scene)

    asyncio.run(run())


def served(scene: Scene) -> tuple[tuple[int, ...], str]:
    model = scene.changes.desired["m"]
    return tuple(version.version for version in model.versions), model.default_target


def test_a_good_version_goes_live_a_step_at_a_time(tmp_path: Path) -> None:
    async def script(there: Scene) -> None:
        rollout = await there.start()
        assert served(there) == ((1, 2), "1")
        assert there.split == {"baseline": 95, "candidate": 5}
        assert there.rollouts.traffic("m") == Traffic(1, 2, 5, 0)
        await there.look(candidate=60, baseline=1_000)
        assert await there.phase(rollout) == "canary"
        await there.look(after_seconds=10, candidate=60, baseline=1_000)
        assert there.split == {"baseline": 50, "candidate": 50}
        view = await there.rollouts.view(rollout)
        assert (view.rollout.step, view.rollout.counts.candidate.requests) == (1, 0), "a step counts anew"
        await there.look(candidate=50, baseline=50)
        await there.look(after_seconds=10, candidate=50, baseline=50)
        assert await there.phase(rollout) == "live"
        assert there.split == {}
        assert served(there) == ((1, 2), "2")
        assert there.rollouts.busy("m") == ""
        assert there.store.rollouts.under_way() == []
        assert there.audits() == [
            ("load", "olga", "done"),
            ("start rollout", "olga", "done"),
            ("begin rollout", "olga", "done"),
            ("rollout step 1", "olga", "done"),
            ("rollout step 2", "system", "done"),
            ("rollout live", "system", "done"),
            ("end rollout", "system", "done"),
        ]
        phases = [(event["rollout.previous.phase"], event["rollout.phase"]) for event in there.events()]
        assert phases == [("draft", "canary"), ("canary", "canary"), ("canary", "live")]

    in_control(tmp_path, script)


def test_a_version_that_fails_its_first_requests_is_out_at_the_next_look(tmp_path: Path) -> None:
    async def script(there: Scene) -> None:
        rollout = await there.start()
        there.events()
        await there.look(candidate=12, errors=12, baseline=300)
        assert await there.phase(rollout) == "rolled back"
        assert served(there) == ((1,), "")
        assert there.split == {}
        (event,) = there.events()
        assert event["level"] == logging.WARNING
        assert (event["rollout.id"], event["rollout.baseline"], event["model.version"]) == (rollout, 1, 2)
        assert (event["rollout.step"], event["rollout.weight"], event["change.actor"]) == (1, 0.0, "system")
        assert "12 of the candidate's first 12 requests failed" in event["rollout.reason"]
        evidence = json.loads(event["rollout.evidence"])
        assert evidence["candidate"] == {"requests": 12, "errors": 12}
        assert evidence["baseline"] == {"requests": 300, "errors": 0}
        (decision, *_) = (await there.rollouts.decisions(rollout, 10, 0))[-1:]
        assert (decision.audit_id, decision.recomputed) == (event["change.audit_id"], True)

    in_control(tmp_path, script)


def test_a_version_that_ends_a_worker_is_out_and_one_that_did_so_before_is_not(tmp_path: Path) -> None:
    async def script(there: Scene) -> None:
        there.world.crashes["m", 2] = 3
        rollout = await there.start()
        await there.look(candidate=1, baseline=20)
        assert await there.phase(rollout) == "canary"
        there.world.crashes["m", 2] = 4
        await there.look(candidate=1, baseline=20)
        assert await there.phase(rollout) == "rolled back"
        assert "ended 1 processes" in (await there.rollouts.view(rollout)).rollout.reason

    in_control(tmp_path, script)


def test_a_candidate_that_does_not_load_is_rolled_back_before_it_gets_anything(tmp_path: Path) -> None:
    async def script(there: Scene) -> None:
        rollout = await there.start()
        assert await there.phase(rollout) == "rolled back"
        assert served(there) == ((1,), "")
        seen = [decision.decision for decision in await there.rollouts.decisions(rollout, 10, 0)]
        assert [(each.before.phase, each.phase) for each in seen] == [
            (Phase.DRAFT, Phase.CANARY), (Phase.CANARY, Phase.ROLLED_BACK)
        ]  # fmt: skip
        assert "it is broken" in seen[-1].reason
        assert all(recompute(plan_of(), each) == each for each in seen)
        await there.look()
        assert there.rollouts.under_way("m") == 0
        assert await there.start(plan_of(candidate="3")) == rollout + 1, "another one may be tried"

    in_control(tmp_path, script, failing=(2,))


def test_harm_that_gates_show_rolls_back_with_their_readings(tmp_path: Path) -> None:
    async def script(there: Scene) -> None:
        rollout = await there.start()
        for _ in range(100):
            await there.look(candidate=100, errors=6, baseline=1_900)
            if await there.phase(rollout) != "canary":
                break
        assert await there.phase(rollout) == "rolled back"
        event = there.events()[-1]
        assert [reading.split(":")[0] for reading in event["rollout.readings"]] == ["errors"]
        (gate,) = json.loads(event["rollout.evidence"])["gates"]
        assert gate["gate"] == "errors"
        assert gate["harm"][0] >= gate["harm"][1]

    in_control(tmp_path, script)


def test_a_slow_version_is_found_by_the_series_histograms(tmp_path: Path) -> None:
    async def script(there: Scene) -> None:
        rollout = await there.start()
        for _ in range(20):
            there.world.answer(200, seconds=0.04)
            await there.look(baseline=2_000)
        assert await there.phase(rollout) == "rolled back"
        assert "latency p99: harm shown" in (await there.rollouts.view(rollout)).rollout.reason

    in_control(tmp_path, script)


# Panes


def test_inputs_that_drift_from_the_baselines_end_a_rollout_and_a_restart_tests_no_rows_twice(tmp_path: Path) -> None:
    plan = plan_of(gates={"drift": ["inputs"], "means": [{"name": "mean texture", "margin": 0.5}]})

    async def run() -> None:
        with world(tmp_path) as there:
            seen = Observed()
            async with control(there, observed=seen) as scene:
                rollout = await scene.start(plan)
                seen.see(scene.changes, 1, there.now_seconds, Panes(1).summary(4_000))
                seen.see(scene.changes, 2, there.now_seconds, Panes(2).summary(1_000))
                await scene.look(candidate=60, baseline=100)
                await scene.look(candidate=1, baseline=100)
                kept = scene.run(rollout).state
                assert kept.rows.drift[0][1].done == 1
                assert scene.run(rollout).rollout.counts.candidate.mean("mean texture").rows == 1_000
            seen = Observed()
            async with control(there, observed=seen) as scene:
                assert scene.run(rollout).state == kept
                seen.see(scene.changes, 1, there.now_seconds, Panes(3).summary(4_000))
                seen.see(scene.changes, 2, there.now_seconds, Panes(4).summary(1_999, shift("worst area", 1.0)))
                await scene.look(candidate=1, baseline=100)
                assert scene.run(rollout).state.rows.drift[0][1].done == 1, "2,000 are twice the rows"
                seen.see(scene.changes, 2, there.now_seconds, Panes(5).summary(1, shift("worst area", 1.0)))
                await scene.look(candidate=1, baseline=100)
                await scene.look(candidate=1, baseline=100)
                view = await scene.rollouts.view(rollout)
                assert view.rollout.phase is Phase.ROLLED_BACK
                assert view.rollout.reason == "drift inputs: harm shown; drifted"
                assert view.rollout.counts.candidate.mean("mean texture").rows == 3_000

    asyncio.run(run())


# Commands


def test_an_operator_pauses_resumes_promotes_and_aborts(tmp_path: Path) -> None:
    async def script(there: Scene) -> None:
        rollout = await there.start()
        rollouts, now = there.rollouts, there.world.now_seconds
        assert (await rollouts.command(rollout, Verb.PAUSE, OLGA)).rollout.phase is Phase.HOLD
        assert there.split == {"baseline": 95, "candidate": 5}
        await there.look(after_seconds=100, candidate=200, baseline=200)
        assert await there.phase(rollout) == "on hold"
        with pytest.raises(Precondition, match=f"rollout {rollout} of model 'm': pause is possible for a rollout that"):
            await rollouts.command(rollout, Verb.PAUSE, OLGA)
        view = await rollouts.command(rollout, Verb.RESUME, OLGA)
        assert view.rollout.phase is Phase.CANARY
        assert view.rollout.active_seconds < 100
        assert (await rollouts.command(rollout, Verb.PROMOTE, OLGA)).rollout.step == 1
        await rollouts.idle()
        assert there.split == {"baseline": 50, "candidate": 50}
        assert (await rollouts.command(rollout, Verb.ABORT, OLGA)).rollout.phase is Phase.ABORTED
        await rollouts.idle()
        assert served(there) == ((1,), "")
        await there.look()
        with pytest.raises(Precondition, match=f"rollout {rollout} of model 'm' has ended"):
            await rollouts.command(rollout, Verb.PROMOTE, OLGA)
        with pytest.raises(NotFound, match="no rollout 99"):
            await rollouts.command(99, Verb.PROMOTE, OLGA)
        assert there.audits()[3:] == [
            ("rollout step 1", "olga", "done"),
            ("rollout on hold", "olga", "done"),
            ("pause rollout", "olga", "refused"),
            ("rollout canary", "olga", "done"),
            ("rollout step 2", "olga", "done"),
            ("rollout aborted", "olga", "done"),
            ("end rollout", "olga", "done"),
        ]
        assert now < there.world.now_seconds

    in_control(tmp_path, script)


def test_an_abort_while_the_candidate_loads_takes_it_out_again(tmp_path: Path) -> None:
    async def script(there: Scene) -> None:
        view, _ = await there.rollouts.start(plan_of(), OLGA)
        assert view.rollout.phase is Phase.DRAFT
        assert "under way (draft)" in there.rollouts.busy("m")
        await there.rollouts.command(view.id, Verb.ABORT, OLGA)
        await there.rollouts.idle()
        assert await there.phase(view.id) == "aborted"
        assert served(there) == ((1,), "")
        assert there.store.rollouts.under_way() == []

    in_control(tmp_path, script)


def test_too_little_traffic_takes_the_candidate_out_and_a_resume_brings_it_back(tmp_path: Path) -> None:
    async def script(there: Scene) -> None:
        step = STEP | {"max_duration_seconds": 60}
        rollout = await there.start(plan_of(steps=[step]))
        await there.look(candidate=3, baseline=50)
        await there.look(after_seconds=60, candidate=3, baseline=50)
        assert await there.phase(rollout) == "inconclusive"
        assert there.split == {"baseline": 100, "candidate": 0}
        assert served(there) == ((1, 2), "1")
        await there.rollouts.command(rollout, Verb.RESUME, OLGA)
        await there.rollouts.idle()
        assert there.split == {"baseline": 95, "candidate": 5}
        await there.look(candidate=100, baseline=50)
        view = await there.rollouts.view(rollout)
        assert view.rollout.counts.candidate.requests == 106, "evidence and its counts are kept"

    in_control(tmp_path, script)


# Restarts


def restarted(
    folder: Path, first: Callable[[Scene], Awaitable[None]], then: Callable[[Scene], Awaitable[None]]
) -> None:
    async def run() -> None:
        with world(folder) as there:
            async with control(there) as scene:
                await first(scene)
            async with control(there) as scene:
                await then(scene)

    asyncio.run(run())


def test_a_restart_of_control_goes_on_with_the_same_step_weights_evidence_and_counts(tmp_path: Path) -> None:
    kept: list[Any] = []
    plan = plan_of(
        steps=[STEP | {"shadow_percent": 10}, STEP | {"weight_percent": 50}], gates={"errors": {}, "agreement": {}}
    )

    async def first(there: Scene) -> None:
        rollout = await there.start(plan)
        there.world.comparisons.compared = there.world.comparisons.agreed = 40
        await there.look(candidate=60, errors=1, baseline=1_000)
        view = await there.rollouts.view(rollout)
        kept[:] = [view.rollout, there.route, there.rollouts.traffic("m"), view.last]

    async def then(there: Scene) -> None:
        view = await there.rollouts.view(1)
        rollout, route, traffic, last = kept
        assert (view.rollout, there.route, there.rollouts.traffic("m"), view.last) == (rollout, route, traffic, last)
        assert rollout.evidence
        # The workers went on while control was away; comparisons count anew.
        there.world.comparisons.counters, there.world.comparisons.compared = "control-2", 7
        there.world.comparisons.agreed = 6
        await there.look(candidate=30, baseline=500)
        counts = (await there.rollouts.view(1)).rollout.counts
        assert (counts.candidate.requests, counts.candidate.errors, counts.baseline.requests) == (90, 1, 1_500)
        assert (counts.compared, counts.agreed) == (47, 46)
        await there.look(after_seconds=10, candidate=30, baseline=500)
        assert (await there.rollouts.view(1)).rollout.step == 1
        for decision in await there.rollouts.decisions(1, 100, 0):
            assert decision.recomputed

    restarted(tmp_path, first, then)


def test_a_restart_of_the_gateway_counts_on_and_its_standstill_is_no_time_of_the_step(tmp_path: Path) -> None:
    async def run() -> None:
        with world(tmp_path) as there:
            async with control(there) as scene:
                await scene.start()
                there.crashes["m", 2] = 0
                await scene.look(after_seconds=2, candidate=60, baseline=100)
                active = scene.run(1).rollout.active_seconds
        with world(tmp_path) as anew:
            anew.gateway, anew.now_seconds = "gateway-2", there.now_seconds + 86_400
            async with control(anew) as scene:
                await scene.look(candidate=30, baseline=50)
                rollout = scene.run(1).rollout
                assert rollout.counts.candidate.requests == 90
                assert rollout.counts.baseline.requests == 150
                assert rollout.active_seconds == active

    asyncio.run(run())


@pytest.mark.parametrize("ends", ["refresh", "end_rollout"])
def test_what_was_decided_and_not_done_is_done_by_the_next_control(tmp_path: Path, ends: str) -> None:
    """Control ends after the decision is stored, and before it is visible."""

    async def never(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    async def first(there: Scene) -> None:
        await there.start()
        setattr(there.changes, ends, never)
        there.world.traffic(candidate=12, errors=12, baseline=100)
        await there.rollouts.tick(there.world.now_seconds + 1)
        assert there.rollouts.traffic("m") is None
        assert served(there) == ((1, 2), "1")

    async def then(there: Scene) -> None:
        await there.rollouts.idle()
        assert await there.phase(1) == "rolled back"
        assert served(there) == ((1,), "")
        assert there.store.rollouts.under_way() == []

    restarted(tmp_path, first, then)


def test_a_control_that_ends_while_the_candidate_loads_loads_it_again_and_knows_what_was_before(tmp_path: Path) -> None:
    async def first(there: Scene) -> None:
        begin = there.changes.begin_rollout

        async def begun(*args: Any) -> Any:
            await begin(*args)
            await asyncio.Event().wait()

        there.changes.begin_rollout = begun  # type: ignore[method-assign]
        await there.rollouts.start(plan_of(), OLGA)
        assert await there.made.fleet.until(lambda: served(there)[0] == (1, 2), 30.0)

    async def then(there: Scene) -> None:
        await there.rollouts.idle()
        assert await there.phase(1) == "canary"
        assert there.split == {"baseline": 95, "candidate": 5}
        await there.rollouts.command(1, Verb.ABORT, OLGA)
        await there.rollouts.idle()
        assert served(there) == ((1,), "")

    restarted(tmp_path, first, then)


def test_nothing_is_looked_at_or_told_before_the_desired_state_is_there(tmp_path: Path) -> None:
    async def run() -> None:
        with world(tmp_path) as there:
            async with control(there) as scene:
                await scene.start()
            there.crashes["m", 2] = 1
            async with control(there, look_first=True) as scene:
                await scene.look()
                assert await scene.phase(1) == "rolled back"
                assert served(scene) == ((1,), "")

    asyncio.run(run())


# What goes wrong


def test_a_decision_that_cannot_be_stored_is_not_made_but_harm_gets_no_more_traffic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(there: Scene) -> None:
        rollout = await there.start()

        def full(*_: Any) -> Any:
            raise StoreUnavailable("the disk is full")

        with monkeypatch.context() as broken:
            broken.setattr(there.store.rollouts, "save", full)
            await there.look(after_seconds=11, candidate=200, baseline=200)
            assert (await there.rollouts.view(rollout)).rollout.step == 0
            assert there.split == {"baseline": 95, "candidate": 5}
            there.world.crashes["m", 2] = 1
            await there.look(candidate=1, baseline=20)
            assert await there.phase(rollout) == "canary"
            assert there.split == {"baseline": 100, "candidate": 0}
        await there.look()
        assert await there.phase(rollout) == "rolled back"
        assert served(there) == ((1,), "")

    in_control(tmp_path, script)


def test_what_the_store_withheld_gets_its_traffic_back_if_it_was_harmless_after_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Harm that could not be noted is judged anew at the next look, by all that came since what is noted."""

    async def script(there: Scene) -> None:
        rollout = await there.start(plan_of(hard={"errors": 2, "first_requests": 4}))

        def full(*_: Any) -> Any:
            raise StoreUnavailable("the disk is full")

        with monkeypatch.context() as broken:
            broken.setattr(there.store.rollouts, "save", full)
            await there.look(candidate=4, errors=2, baseline=76)
            assert there.split == {"baseline": 100, "candidate": 0}
        await there.look(candidate=80, baseline=20)  # those under way, and a baseline that
        assert await there.phase(rollout) == "canary"
        assert there.split == {"baseline": 95, "candidate": 5}

    in_control(tmp_path, script)


def test_a_rollback_that_cannot_be_told_is_done_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(there: Scene) -> None:
        rollout = await there.start()

        def broken(*_: Any) -> None:
            raise RuntimeError("a bug in telling")

        monkeypatch.setattr(there.run(rollout), "_tell", broken)
        there.world.crashes["m", 2] = 1
        await there.look(candidate=1, baseline=20)
        assert await there.phase(rollout) == "rolled back"
        assert served(there) == ((1,), "")
        assert there.split == {}

    in_control(tmp_path, script)


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_a_clock_that_is_set_is_no_time_of_a_step(tmp_path: Path, jump: float) -> None:
    async def script(there: Scene) -> None:
        rollout = await there.start(plan_of(steps=[STEP | {"max_duration_seconds": 60}]))
        steady = [0.0]
        there.rollouts._steady = lambda: steady[0]

        async def look(seconds: float) -> None:
            there.world.traffic(candidate=10, baseline=190)
            steady[0] += seconds
            await there.rollouts.tick(there.rollouts._now())
            await there.rollouts.idle()

        await look(0)
        there.world.now_seconds += jump + 3
        await look(3)
        view = await there.rollouts.view(rollout)
        assert (view.rollout.phase, view.rollout.active_seconds) == (Phase.CANARY, 3.0)
        assert view.last is not None
        assert recompute(view.plan, view.last) == view.last

    in_control(tmp_path, script)


def test_series_that_find_no_room_put_a_rollout_on_hold_until_an_operator_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(there: Scene) -> None:
        rollout = await there.start()
        counters = there.run(rollout)._around.counters
        read = counters.read
        monkeypatch.setattr(counters, "read", lambda: replace(read(), lost=2))
        await there.look(candidate=1, baseline=20)
        view = await there.rollouts.view(rollout)
        assert view.rollout.phase is Phase.HOLD
        assert "2 series of requests found no room" in view.rollout.reason
        await there.rollouts.command(rollout, Verb.RESUME, OLGA)
        await there.look(candidate=1, baseline=20)
        assert await there.phase(rollout) == "canary"

    in_control(tmp_path, script)


def test_an_end_that_cannot_be_done_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(there: Scene) -> None:
        rollout = await there.start()

        async def locked(*_: Any, **__: Any) -> Any:
            raise StoreUnavailable("the database stayed locked")

        with monkeypatch.context() as broken:
            broken.setattr(there.changes, "end_rollout", locked)
            await there.rollouts.command(rollout, Verb.ABORT, OLGA)
            await there.rollouts.idle()
            assert served(there) == ((1, 2), "1")
            assert there.rollouts.busy("m")
        await there.look()
        assert served(there) == ((1,), "")
        assert there.rollouts.busy("m") == ""

    in_control(tmp_path, script)


def test_a_rollout_that_cannot_be_read_is_given_up_and_the_gateway_starts(tmp_path: Path) -> None:
    async def first(there: Scene) -> None:
        rollout = await there.start()
        there.store.rollouts.save(rollout, RolloutChange("[]"))

    async def then(there: Scene) -> None:
        assert there.rollouts.traffic("m") is None
        assert there.store.rollouts.under_way() == []
        assert there.audits()[-1] == ("rollout given up", "system", "failed")
        with pytest.raises(StoreCorrupt, match="rollout 1 in the state database is damaged"):
            await there.rollouts.view(1)
        assert await there.rollouts.listed("m", 10, 0) == []
        assert await there.start(plan_of(candidate="3")) == 2

    restarted(tmp_path, first, then)


# Watchers and figures


def test_watchers_hear_of_every_look_and_lose_news_when_they_are_slow(tmp_path: Path) -> None:
    async def script(there: Scene) -> None:
        rollout = await there.start()
        with there.rollouts.watching(rollout) as news, there.rollouts.watching(99) as others:
            await there.look(candidate=1, baseline=20)
            first = news.get_nowait()
            assert first.decision is not None
            assert (first.decision.decision.moved, first.decision.recomputed, first.dropped) == (False, True, 0)
            assert first.view.last == first.decision.decision
            await there.rollouts.command(rollout, Verb.ABORT, OLGA)
            last = news.get_nowait()
            assert last.view.rollout.phase is Phase.ABORTED
            assert last.decision is not None
            assert last.decision.number > first.decision.number
            assert others.empty()

    in_control(tmp_path, script)


def test_the_metrics_tell_of_the_step_and_the_evidence_and_of_the_end(tmp_path: Path) -> None:
    async def script(there: Scene) -> None:
        rollout = await there.start()
        await there.look(candidate=60, errors=1, baseline=1_000)
        (figures,) = there.rollouts.figures()
        assert (figures.model, figures.version, figures.phase, figures.step, figures.weight) == (
            "m",
            2,
            "canary",
            1,
            0.05,
        )
        assert figures.requests == {"candidate": 60, "baseline": 1_000}
        assert figures.errors == {"candidate": 1, "baseline": 0}
        assert set(figures.evidence) == {
            (gate, side) for gate in ("errors", "latency p99") for side in ("harm", "safety")
        }
        await there.rollouts.command(rollout, Verb.ABORT, OLGA)
        await there.look()
        await there.look()
        (figures,) = there.rollouts.figures()
        assert (figures.phase, figures.requests, figures.evidence) == ("aborted", {}, {})

    in_control(tmp_path, script)


def test_rollouts_are_found_by_number_and_by_model(tmp_path: Path) -> None:
    async def script(there: Scene) -> None:
        with pytest.raises(NotFound, match="there has been no rollout of model 'm'"):
            there.rollouts.find(0, "m")
        first = await there.start()
        assert there.rollouts.find(0, "m", under_way=True) == first
        await there.rollouts.command(first, Verb.ABORT, OLGA)
        await there.look()
        with pytest.raises(NotFound, match="no rollout of model 'm' is under way"):
            there.rollouts.find(0, "m", under_way=True)
        second = await there.start()
        assert (there.rollouts.find(0, "m"), there.rollouts.find(first, "")) == (second, first)
        with pytest.raises(NotFound, match="no rollout 3"):
            there.rollouts.find(3, "")
        assert [view.id for view in await there.rollouts.listed("", 10, 0)] == [second, first]
        view = await there.rollouts.view(first)
        assert (view.rollout.phase, view.plan) == (Phase.ABORTED, plan_of())
        assert view.last is not None
        assert (await there.rollouts.view(second)).ended_seconds == 0
        assert view.ended_seconds == there.world.now_seconds - 1

    in_control(tmp_path, script)
