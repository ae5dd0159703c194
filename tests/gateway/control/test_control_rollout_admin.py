"""Rollouts by the admin API: over a real channel to the real server, with scripted rollouts behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
import yaml
from rollout_server import OnlyRollouts, serving
from scripted_rollouts import PLAN, STABLE, START_SECONDS, WAITING, WATCHERS, ScriptedRollouts, counts

from gateway.control import rollout_admin
from gateway.errors import Precondition
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from gateway.wire.pb.driftgate.admin.v1.admin_pb2_grpc import AdminStub
from runtime.rollout.decide import WrongPlan
from runtime.rollout.decision import Decision
from runtime.rollout.plan import Plan, read_plan
from runtime.rollout.rollout import Rollout

Code = grpc.StatusCode
CANARY = {"drift": STABLE, "counts": counts(200, 2000, (1, 9), compared=150)}


@dataclass
class Scene:
    rollouts: ScriptedRollouts
    service: OnlyRollouts
    stub: Any

    async def start(self, plan: str = PLAN, **fields: Any) -> pb.Rollout:
        answer = await self.stub.StartRollout(pb.StartRolloutRequest(plan=plan, **fields))
        found: pb.Rollout = answer.rollout
        return found

    async def refused(self, call: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        return caught.value.code(), caught.value.details() or ""

    def watch(self, **request: Any) -> Any:
        return self.stub.WatchRollout(pb.WatchRolloutRequest(**request))


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    service, rollouts = OnlyRollouts(), ScriptedRollouts()
    service.use_rollouts(rollouts)
    async with serving(service) as address, grpc.aio.insecure_channel(address) as channel:
        stub: Any = AdminStub(channel)  # type: ignore[no-untyped-call]
        yield Scene(rollouts, service, stub)


def on_stage(act: Callable[[Scene], Awaitable[None]]) -> None:
    async def run() -> None:
        async with scene() as found:
            await act(found)

    asyncio.run(run())


def test_a_rollout_starts_from_a_plan_in_yaml_or_json_and_tells_all_of_itself() -> None:
    async def act(scene: Scene) -> None:
        scene.rollouts.warnings = ["no traffic so far"]
        answer = await scene.stub.StartRollout(
            pb.StartRolloutRequest(plan=PLAN, reason="June's data"), metadata=(("driftgate-actor", "olga"),)
        )
        assert list(answer.warnings) == ["no traffic so far"]
        found = answer.rollout
        assert (found.id, found.model, found.baseline, found.candidate) == (1, "fraud", 2, 3)
        assert (found.phase, found.step, found.steps) == (pb.ROLLOUT_PHASE_SHADOW, 0, 3)
        assert (found.weight_percent, found.shadow_percent) == (0, 10)
        assert found.reason == "start by loopback:olga: June's data"
        assert Plan.from_json(found.plan).digest == found.plan_digest
        assert Rollout.from_json(found.state) == scene.rollouts.views[1].rollout
        assert found.created.seconds == START_SECONDS
        assert not found.HasField("ended")
        assert [each.gate for each in found.readings] == ["errors", "agreement", "drift inputs"]

        again = await scene.start(json.dumps(json.loads(found.plan)))
        assert (again.id, again.plan_digest) == (2, found.plan_digest)

    on_stage(act)


def test_a_dry_run_starts_nothing() -> None:
    async def act(scene: Scene) -> None:
        found = await scene.start(dry_run=True)
        assert (found.id, found.phase, found.step, list(found.readings)) == (0, pb.ROLLOUT_PHASE_DRAFT, -1, [])
        assert scene.rollouts.views == {}

    on_stage(act)


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ("", ["expected a rollout's plan as YAML or JSON, got nothing"]),
        ("- a", ["the plan has 1 problem: expected a mapping of settings"]),
        ("model: a\nmodel: b", ["line 2, column 1: the key 'model' was already given in line 1"]),
        ("model: [", ["not valid YAML"]),
        (
            PLAN.replace("margin: 0.005", "margin: 5, ratoi: 1").replace("candidate: 3", "candidate: 2"),
            [
                "the plan has 3 problems: ",
                "gates.errors.margin: expected a share 0 <= margin < 1, got 5",
                "gates.errors.ratoi: unknown key; did you mean ratio?",
                "candidate: expected another version than the baseline, got '2'",
            ],
        ),
        ("x" * (1 << 20) + "xxx", ["the file is longer than 1048576 bytes"]),
    ],
)
def test_a_plan_with_problems_is_refused_with_all_of_them(plan: str, told: list[str]) -> None:
    async def act(scene: Scene) -> None:
        for dry_run in (False, True):
            code, message = await scene.refused(scene.start(plan, dry_run=dry_run))
            assert code is Code.INVALID_ARGUMENT
            assert [text for text in told if text not in message] == []
            assert "\n" not in message

    on_stage(act)


def test_problems_that_find_no_room_are_counted() -> None:
    async def act(scene: Scene) -> None:
        code, message = await scene.refused(scene.start("\n".join(f"unknown_{at}: 1" for at in range(60))))
        assert code is Code.INVALID_ARGUMENT
        assert message.startswith("the plan has 65 problems: ")  # and what is missing
        told = message.count("unknown_")
        assert 1 < told < 60
        assert message.endswith("more, which driftgate rollout check tells")

    on_stage(act)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (Precondition("a rollout of fraud is under way: abort it"), Code.FAILED_PRECONDITION, "is under way"),
        (WrongPlan("expected the plan a, got b"), Code.FAILED_PRECONDITION, "start another: expected the plan a"),
        (OSError("secret"), Code.INTERNAL, "internal error, reference"),
    ],
)
def test_refusals_have_their_status(error: Exception, code: grpc.StatusCode, told: str) -> None:
    async def act(scene: Scene) -> None:
        await scene.start()
        scene.rollouts.refuse = error
        command = pb.CommandRolloutRequest(model="fraud", verb=pb.CommandRolloutRequest.VERB_PAUSE)
        for call in (scene.start(), scene.start(dry_run=True), scene.stub.CommandRollout(command)):
            found, message = await scene.refused(call)
            assert found is code
            assert told in message
            assert "secret" not in message

    on_stage(act)


def test_a_command_that_the_phase_does_not_allow_is_a_failed_precondition() -> None:
    async def act(scene: Scene) -> None:
        await scene.start()
        resume = pb.CommandRolloutRequest(id=1, verb=pb.CommandRolloutRequest.VERB_RESUME)
        code, message = await scene.refused(scene.stub.CommandRollout(resume))
        assert code is Code.FAILED_PRECONDITION
        assert message == "resume is possible for a rollout that is on hold, inconclusive; this one is shadow"

    on_stage(act)


@pytest.mark.parametrize(
    ("verb", "phase", "step"),
    [
        ("PAUSE", pb.ROLLOUT_PHASE_HOLD, 0),
        ("PROMOTE", pb.ROLLOUT_PHASE_CANARY, 1),
        ("ABORT", pb.ROLLOUT_PHASE_ABORTED, 0),
    ],
)
def test_commands_move_a_rollout_with_their_reason(verb: str, phase: pb.RolloutPhase, step: int) -> None:
    async def act(scene: Scene) -> None:
        await scene.start()
        request = pb.CommandRolloutRequest(
            model="fraud", verb=pb.CommandRolloutRequest.Verb.Value(f"VERB_{verb}"), reason="seen enough"
        )
        found = (await scene.stub.CommandRollout(request)).rollout
        assert (found.phase, found.step) == (phase, step)
        assert found.reason == f"{verb.lower()} by loopback: seen enough"
        assert found.HasField("ended") is (verb == "ABORT")

    on_stage(act)


@pytest.mark.parametrize(
    ("method", "request_", "told"),
    [
        ("GetRollout", pb.GetRolloutRequest(), "expected a rollout's id or a model's name, got neither"),
        ("GetRollout", pb.GetRolloutRequest(id=1, model="fraud"), "got both (1 and 'fraud')"),
        ("GetRollout", pb.GetRolloutRequest(id=-1), "expected a rollout's id of 1 or more, got -1"),
        ("CommandRollout", pb.CommandRolloutRequest(id=1), "VERB_PROMOTE or VERB_ABORT, got VERB_UNSPECIFIED"),
        ("ListRollouts", pb.ListRolloutsRequest(limit=1001), "expected a limit of 0 (100) to 1000, got 1001"),
        ("ListRollouts", pb.ListRolloutsRequest(before_id=-1), "expected a before_id of 0 or more, got -1"),
        ("ListRolloutDecisions", pb.ListRolloutDecisionsRequest(id=1, limit=-1), "0 (1000) to 1000, got -1"),
        ("ListRolloutDecisions", pb.ListRolloutDecisionsRequest(id=1, after=-1), "expected an after of 0 or more"),
    ],
)
def test_wrong_requests_say_what_is_expected(method: str, request_: Any, told: str) -> None:
    async def act(scene: Scene) -> None:
        code, message = await scene.refused(getattr(scene.stub, method)(request_))
        assert code is Code.INVALID_ARGUMENT
        assert told in message

    on_stage(act)


def test_what_is_not_there_is_not_found() -> None:
    async def act(scene: Scene) -> None:
        for call in (
            scene.stub.GetRollout(pb.GetRolloutRequest(id=7)),
            scene.stub.ListRolloutDecisions(pb.ListRolloutDecisionsRequest(model="other")),
            anext(aiter(scene.watch(model="other"))),
        ):
            code, _ = await scene.refused(call)
            assert code is Code.NOT_FOUND

    on_stage(act)


def test_before_rollouts_are_there_the_answer_is_not_ready() -> None:
    async def run() -> None:
        async with serving(OnlyRollouts()) as address, grpc.aio.insecure_channel(address) as channel:
            stub: Any = AdminStub(channel)  # type: ignore[no-untyped-call]
            with pytest.raises(grpc.aio.AioRpcError, match="rollouts are not ready") as caught:
                await stub.ListRollouts(pb.ListRolloutsRequest())
            assert caught.value.code() is Code.UNAVAILABLE

    asyncio.run(run())


def test_a_rollout_tells_what_it_waits_for_and_what_its_gates_have_gathered() -> None:
    async def act(scene: Scene) -> None:
        await scene.start()
        scene.rollouts.look(1, 30, drift=STABLE, counts=counts(90, 900, (2, 9), compared=90, disagreed=1))
        found = (await scene.stub.GetRollout(pb.GetRolloutRequest(model="fraud"))).rollout
        assert found.reason == "waits for 30 of 60 s, 90 of 100 requests"
        assert (found.candidate_requests, found.candidate_errors) == (90, 2)
        assert (found.baseline_requests, found.baseline_errors) == (900, 9)
        assert (found.compared, found.agreed, found.active.seconds) == (90, 89, 30)
        errors, agreement, drift = found.readings
        assert (errors.gate, errors.unit, errors.candidate_rows, errors.baseline_rows) == ("errors", "%", 90, 900)
        assert errors.candidate == pytest.approx(2 / 90)
        assert errors.allowed == pytest.approx(0.015)
        assert errors.harm_needed > errors.harm
        assert agreement.candidate == pytest.approx(89 / 90)
        assert not agreement.HasField("baseline")
        assert (drift.says, drift.note) == ("shown to be safe", "stable")

    on_stage(act)


def test_lists_have_the_newest_first_and_go_on_before_an_id() -> None:
    async def act(scene: Scene) -> None:
        for _ in range(3):
            await scene.start()
        found = await scene.stub.ListRollouts(pb.ListRolloutsRequest(model="fraud", limit=2))
        assert [each.id for each in found.rollouts] == [3, 2]
        rest = await scene.stub.ListRollouts(pb.ListRolloutsRequest(before_id=2))
        assert [each.id for each in rest.rollouts] == [1]

    on_stage(act)


def test_an_answer_ends_before_it_is_too_large_and_holds_one_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_admin, "MAX_ANSWER_BYTES", 1)

    async def act(scene: Scene) -> None:
        await scene.start()
        await scene.start()
        found = await scene.stub.ListRollouts(pb.ListRolloutsRequest())
        assert [each.id for each in found.rollouts] == [2]

    on_stage(act)


def test_decisions_are_told_with_evidence_that_they_can_be_made_anew_from() -> None:
    async def act(scene: Scene) -> None:
        await scene.start()
        scene.rollouts.look(1, 61, drift=STABLE, counts=counts(120, 1200, compared=120))
        scene.rollouts.look(1, 10, **CANARY)
        ask = scene.stub.ListRolloutDecisions
        found = (await ask(pb.ListRolloutDecisionsRequest(id=1, with_evidence=True))).decisions
        assert [(each.number, each.moved, each.recomputed) for each in found] == [
            (1, True, True), (2, True, True), (3, False, True)
        ]  # fmt: skip
        start, passed, _ = found
        assert (start.actor, start.audit_id, start.phase_before) == ("loopback", 10, pb.ROLLOUT_PHASE_DRAFT)
        assert (passed.step_before, passed.step, passed.phase) == (0, 1, pb.ROLLOUT_PHASE_CANARY)
        assert passed.reason.startswith("passed: no harm shown by any gate in 120 requests")
        assert [each.gate for each in passed.readings] == ["errors", "agreement", "drift inputs"]
        assert Decision.from_json(passed.evidence) == scene.rollouts.kept[1][1].decision
        rest = (await ask(pb.ListRolloutDecisionsRequest(model="fraud", after=1, limit=1))).decisions
        assert [(each.number, each.evidence) for each in rest] == [(2, "")]

    on_stage(act)


def test_a_watch_begins_with_how_it_is_and_ends_with_the_rollout() -> None:
    async def act(scene: Scene) -> None:
        await scene.start()
        stream = aiter(scene.watch(model="fraud"))
        first = await anext(stream)
        assert (first.rollout.phase, first.HasField("decision")) == (pb.ROLLOUT_PHASE_SHADOW, False)
        scene.rollouts.look(1, 61, drift=STABLE, counts=counts(120, 1200, compared=120))
        second = await anext(stream)
        assert (second.decision.number, second.decision.moved) == (2, True)
        assert (second.rollout.step, second.rollout.weight_percent, second.decision.evidence) == (1, 5, "")
        scene.rollouts.look(1, 1, crashes=1)
        [last] = [update async for update in stream]
        assert last.rollout.phase == pb.ROLLOUT_PHASE_ROLLED_BACK
        assert last.rollout.HasField("ended")
        assert scene.rollouts.watchers == {}
        [ended] = [update async for update in scene.watch(id=1)]
        assert ended.rollout.phase == pb.ROLLOUT_PHASE_ROLLED_BACK

    on_stage(act)


def test_a_watcher_is_told_what_it_lost() -> None:
    async def act(scene: Scene) -> None:
        await scene.start()
        stream = aiter(scene.watch(id=1))
        await anext(stream)
        lost = 3
        for _ in range(WAITING + lost):  # without a moment in between: nobody reads
            scene.rollouts.look(1, 0.1, counts=counts(1, 1))
        got = [await anext(stream) for _ in range(WAITING)]
        scene.rollouts.look(1, 0.1, counts=counts(2, 2))
        assert [update.dropped for update in (*got, await anext(stream))] == [0] * WAITING + [lost]

    on_stage(act)


def test_a_watcher_that_lost_the_end_learns_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_admin, "LOOK_AGAIN_SECONDS", 0.05)

    async def act(scene: Scene) -> None:
        await scene.start()
        stream = aiter(scene.watch(id=1))
        await anext(stream)
        for _ in range(WAITING):
            scene.rollouts.look(1, 0.1, counts=counts(1, 1))
        scene.rollouts.look(1, 0.1, counts=counts(1, 1), crashes=1)
        *_, last = [update async for update in stream]
        assert last.rollout.phase == pb.ROLLOUT_PHASE_ROLLED_BACK

    on_stage(act)


def test_watches_end_with_the_server_and_with_their_client() -> None:
    async def act(scene: Scene) -> None:
        await scene.start()
        call = scene.watch(id=1)
        await anext(aiter(call))
        call.cancel()
        gone = scene.watch(id=1)
        stream = aiter(gone)
        await anext(stream)
        scene.service.closing.set()
        assert [update async for update in stream] == []

    on_stage(act)


def test_too_many_watchers_are_refused() -> None:
    async def act(scene: Scene) -> None:
        await scene.start()
        streams = [aiter(scene.watch(id=1)) for _ in range(WATCHERS)]
        for stream in streams:
            await anext(stream)
        code, _ = await scene.refused(anext(aiter(scene.watch(id=1))))
        assert code is Code.RESOURCE_EXHAUSTED

    on_stage(act)


def test_the_scripts_plan_has_what_the_tests_ask_of_it() -> None:
    assert read_plan(yaml.safe_load(PLAN)).harm_level == pytest.approx(0.05 / 10)
