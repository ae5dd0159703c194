"""Rollouts of real versions under real traffic: what is sound gets live by itself, what is not is out before that."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from rollout_models import CANDIDATES, FAILS_FROM, crash_row, everyday, write_pair
from support.admin import admin_of, until
from support.arrivals import Arrivals, Ask, Got
from support.gateway import Gateway
from support.receiver import OtlpReceiver
from support.rollouts import RolloutDesk, rollouts_of, told

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.rollout.decide import recompute
from runtime.rollout.decision import Decision
from runtime.rollout.plan import Plan

pytestmark = pytest.mark.process

RATE = 250.0  # requests a second
CONFIG: dict[str, Any] = {
    "rollouts": {"tick_seconds": 0.2},
    "statistics": {"pane_seconds": 1, "windows_seconds": [5, 60], "drift_window_seconds": 60},
}
SHADOW = {"shadow_percent": 100, "min_duration_seconds": 4, "min_requests": 300, "max_duration_seconds": 45}
CANARY = {"weight_percent": 25, "min_duration_seconds": 2, "min_requests": 100, "max_duration_seconds": 45}
HALF = CANARY | {"weight_percent": 50}
GATES = {
    "errors": {"margin": 0.002},
    "latency": [{"quantile": 0.99, "ratio": 1.5}],
    "agreement": {"min_share": 0.97},
}
LIVE, ROLLED_BACK = pb.ROLLOUT_PHASE_LIVE, pb.ROLLOUT_PHASE_ROLLED_BACK
CANARY_PHASE = pb.ROLLOUT_PHASE_CANARY


def plan_of(model: str, *steps: dict[str, Any], gates: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    gates = {name: GATES[name] for name in ("errors",)} if gates is None else gates
    return {"model": model, "baseline": "1", "candidate": "2", "steps": list(steps), "gates": gates} | more


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(receiver: OtlpReceiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A model for each kind of candidate, of which version 1 is served."""
    models = tmp_path_factory.mktemp("models")
    for candidate in CANDIDATES:
        write_pair(models, candidate, candidate, settings="instances: 2\n" if candidate == "slow" else "")
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.grpc}",
        "OTEL_BLRP_SCHEDULE_DELAY": "200",
        "OTEL_TRACES_SAMPLER": "always_off",
    }
    state = tmp_path_factory.mktemp("state") / "state"
    with Gateway(models, state, workers=2, config=CONFIG, environment=environment) as running:
        yield running


@dataclass
class Scene:
    """A model under traffic. `began`: when its rollout was started, monotonic."""

    gateway: Gateway
    model: str
    desk: RolloutDesk
    clients: Arrivals
    began: float = 0.0
    id: int = 0

    def start(self, plan: dict[str, Any]) -> int:
        self.began = time.monotonic()
        self.id = self.desk.start(plan).id
        return self.id

    def until(self, phase: int, step: int | None = None, **more: Any) -> pb.Rollout:
        def reached(rollout: pb.Rollout) -> bool:
            return rollout.phase == phase and (step is None or rollout.step == step)

        return self.desk.until(self.id, reached, **more)

    def since(self) -> list[Got]:
        """What clients got since the rollout was started."""
        return [got for got in self.clients.got if got.at >= self.began]

    def tell(self, what: str) -> None:
        """Time and share of the traffic, for whoever reads the test's output."""
        got = self.since()
        failed = sum(each.status is not grpc.StatusCode.OK for each in got)
        exposed = sum(each.version == 2 for each in got)
        print(
            f"\n{self.model}: {what} {time.monotonic() - self.began:.1f} s after the start; the candidate answered "
            f"{exposed} of {len(got)} requests ({self.clients.share(2, got):.1%}); {failed} failed\n"
            f"{self.desk.story(self.id)}"
        )

    def gets_nothing(self) -> None:
        """From the moment that the gateway says so, nothing more reaches the candidate by the route."""
        since = time.monotonic()
        before = len(self.clients.got)
        until(lambda: len(self.clients.got) - before > RATE, "another second of requests was answered")
        later = [got for got in self.clients.got if got.at > since]
        assert later
        assert {got.version for got in later if got.status is grpc.StatusCode.OK} == {1}


@contextmanager
def scene(gateway: Gateway, model: str, rate: float = RATE) -> Iterator[Scene]:
    random = np.random.default_rng(11)
    with (
        rollouts_of(gateway.admin) as desk,
        Arrivals(gateway.grpc, model, rate, lambda: Ask(everyday(random))) as clients,
    ):
        if rate:
            until(lambda: clients.share(1) > 0.5, "clients are served")
        yield Scene(gateway, model, desk, clients)


def assert_history_recomputes(scene: Scene) -> None:
    """By the gateway, and by whoever has nothing but the plan and the stored evidence."""
    plan = Plan.from_json(scene.desk.get(scene.id).plan)
    decisions = scene.desk.decisions(scene.id)
    assert decisions
    for stored in decisions:
        assert stored.recomputed, stored.sentence
        decision = Decision.from_json(stored.evidence)
        assert recompute(plan, decision) == decision
        assert decision.sentence() == stored.sentence


def assert_told(scene: Scene, receiver: OtlpReceiver) -> None:
    """Each decision that moved the rollout is in the audit, and is an event with its evidence."""
    moved = [decision for decision in scene.desk.decisions(scene.id) if decision.moved]
    with admin_of(scene.gateway.admin) as admin:
        audit = {record.id: record for record in admin.audit(scene.model)}
    for decision in moved:
        assert decision.sentence in audit[decision.audit_id].detail
        assert audit[decision.audit_id].action.startswith("rollout ")
    wanted = {decision.audit_id for decision in moved}
    until(lambda: wanted <= {event["driftgate.change.audit_id"] for event in decided(receiver)}, "all are events")
    for event in decided(receiver):
        if event["driftgate.change.audit_id"] in wanted:
            evidence = json.loads(event["driftgate.rollout.evidence"])
            assert "candidate" in evidence or event["driftgate.rollout.previous.phase"] == "draft", event


def decided(receiver: OtlpReceiver) -> list[dict[str, Any]]:
    records = [record for taken in receiver.taken if taken.signal == "logs" for record in taken.items]
    return [
        {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in record.attributes}
        for record in records
        if record.event_name == "driftgate.rollout.decided"
    ]


def default_of(gateway: Gateway, model: str) -> set[int]:
    with admin_of(gateway.admin) as admin:
        return {version.version for version in admin.model(model).versions if version.is_default}


def loaded(gateway: Gateway, model: str) -> set[int]:
    with admin_of(gateway.admin) as admin:
        return admin.available(model)


@pytest.mark.parametrize("candidate", ["good", "equal"])
def test_a_sound_version_gets_live_by_itself(gateway: Gateway, receiver: OtlpReceiver, candidate: str) -> None:
    with scene(gateway, candidate) as played:
        played.start(plan_of(candidate, SHADOW, CANARY, HALF, gates=GATES))
        for step in (0, 1, 2):
            played.until(pb.ROLLOUT_PHASE_SHADOW if step == 0 else CANARY_PHASE, step)
        played.until(LIVE)
        played.tell("live")
        until(lambda: default_of(gateway, candidate) == {2}, "the candidate is the default")
        seen = len(played.clients.got)
        until(lambda: len(played.clients.got) > seen + RATE, "another second of requests was answered")
        assert {got.version for got in played.clients.got[-20:]} == {2}
        assert [got for got in played.since() if got.status is not grpc.StatusCode.OK] == []
        assert loaded(gateway, candidate) == {1, 2}, "the way back is short"
        assert_history_recomputes(played)
        assert_told(played, receiver)


def assert_rolled_back(played: Scene, receiver: OtlpReceiver) -> None:
    played.gets_nothing()
    assert default_of(played.gateway, played.model) == {1}
    until(lambda: loaded(played.gateway, played.model) == {1}, "the candidate is unloaded")
    assert_history_recomputes(played)
    assert_told(played, receiver)


def test_more_errors_are_stopped_in_the_first_canary_step(gateway: Gateway, receiver: OtlpReceiver) -> None:
    with scene(gateway, "failing", 2 * RATE) as played:
        played.start(plan_of("failing", CANARY | {"min_requests": 3000}, HALF))
        ended = played.until(ROLLED_BACK)
        played.tell("rolled back")
        assert ended.step == 0
        assert "errors" in ended.reason
        assert_rolled_back(played, receiver)
        failed = [got for got in played.since() if got.status is not grpc.StatusCode.OK]
        assert all(got.ask.rows[0, 3] >= FAILS_FROM and got.version in (0, 2) for got in failed)


def test_copies_show_the_same_errors_and_no_client_gets_one(gateway: Gateway, receiver: OtlpReceiver) -> None:
    with scene(gateway, "failing") as played:
        played.start(plan_of("failing", SHADOW | {"min_requests": 3000}, CANARY))
        ended = played.until(ROLLED_BACK)
        played.tell("rolled back")
        assert ended.step == 0
        assert played.clients.share(2) == 0.0
        assert played.clients.failures() == []
        assert_rolled_back(played, receiver)


def test_a_doubled_p99_is_stopped_in_the_first_canary_step(gateway: Gateway, receiver: OtlpReceiver) -> None:
    with scene(gateway, "slow") as played:
        gates = {"errors": GATES["errors"], "latency": GATES["latency"]}
        played.start(plan_of("slow", CANARY | {"min_requests": 3000}, HALF, gates=gates))
        ended = played.until(ROLLED_BACK)
        played.tell("rolled back")
        assert ended.step == 0
        assert "latency" in ended.reason or "p99" in ended.reason
        assert_rolled_back(played, receiver)


def test_predictions_that_differ_on_a_slice_are_stopped_before_any_client_sees_them(
    gateway: Gateway, receiver: OtlpReceiver
) -> None:
    with scene(gateway, "differing") as played:
        played.start(plan_of("differing", SHADOW, CANARY, HALF, gates=GATES))
        ended = played.until(ROLLED_BACK)
        played.tell("rolled back")
        assert ended.step == 0
        assert "agree" in ended.reason
        assert played.clients.share(2) == 0.0
        assert_rolled_back(played, receiver)


def test_a_crash_at_warm_up_takes_no_worker_along(gateway: Gateway, receiver: OtlpReceiver) -> None:
    workers = {worker.pid for worker in gateway.children("worker")}
    with scene(gateway, "crashing_at_warm_up") as played:
        played.start(plan_of("crashing_at_warm_up", SHADOW, CANARY, gates=GATES))
        ended = played.until(ROLLED_BACK)
        played.tell("rolled back")
        assert "breaks its process" in ended.reason or "ended while it loaded" in ended.reason
        assert played.clients.failures() == []
        assert played.clients.share(2) == 0.0
        assert_rolled_back(played, receiver)
    assert {worker.pid for worker in gateway.children("worker")} == workers
    gateway.logged("died in crashing_at_warm_up/2")


def test_a_crash_at_the_500th_request_is_out_at_once(gateway: Gateway, receiver: OtlpReceiver) -> None:
    model = "crashing_on_demand"
    with scene(gateway, model) as played:
        played.start(plan_of(model, CANARY | {"min_duration_seconds": 30}, HALF))
        played.until(CANARY_PHASE, 0)
        until(lambda: sum(got.version == 2 for got in played.since()) >= 499, "the candidate answered 499", 30)
        while played.desk.get(played.id).phase == CANARY_PHASE and f"died in {model}/2" not in gateway.log:
            played.clients.put(Ask(crash_row()))  # one in four goes to the candidate
            time.sleep(0.02)
        crashed = time.monotonic()
        ended = played.until(ROLLED_BACK)
        played.tell(f"rolled back {time.monotonic() - crashed:.2f} s after the crash was logged,")
        assert ended.step == 0
        assert "crash" in ended.reason or "ended a process" in ended.reason or "process" in ended.reason
        gateway.wait_ready()
        assert_rolled_back(played, receiver)
    assert "cannot be kept alive" not in gateway.log


def test_without_traffic_nothing_is_promoted(gateway: Gateway) -> None:
    with scene(gateway, "crashing_on_demand", rate=0.0) as played:
        played.start(plan_of("crashing_on_demand", CANARY | {"min_duration_seconds": 1, "max_duration_seconds": 2}))
        ended = played.until(pb.ROLLOUT_PHASE_INCONCLUSIVE)
        print(f"\n{told(ended)}")
        assert default_of(gateway, played.model) == {1}
        assert played.desk.route(played.model).effective
        assert ended.weight_percent == 0.0
        played.desk.command(played.id, pb.CommandRolloutRequest.VERB_ABORT)
        played.until(pb.ROLLOUT_PHASE_ABORTED)
        until(lambda: loaded(gateway, played.model) == {1}, "the candidate is unloaded")
        assert_history_recomputes(played)


@pytest.mark.parametrize("killed", ["control", "a worker", "everything"])
def test_a_kill_in_a_canary_step_changes_neither_step_nor_weights_nor_evidence(killed: str, tmp_path: Path) -> None:
    models = write_pair(tmp_path / "models", "m", "good")
    addresses = dict.fromkeys(("grpc", "http", "admin"), "127.7.5.1:0")  # where no client of another test takes a port
    gateway = Gateway(models, tmp_path / "state", workers=2, config=CONFIG, addresses=addresses)
    gateway.start()
    try:
        with scene(gateway, "m") as played:
            played.start(plan_of("m", CANARY, HALF | {"min_duration_seconds": 600, "max_duration_seconds": 900}))
            played.until(CANARY_PHASE, 1)
            until(lambda: played.desk.get(played.id).candidate_requests > 200, "the step has seen requests")
            played.clients.rate = 0.0  # so that evidence stands still
            before = settled(played)
            history = [stored.SerializeToString() for stored in played.desk.decisions(played.id)[:-1]]
            route = played.desk.route("m")
            kill(gateway, killed)
            after = played.desk.until(played.id, lambda rollout: rollout.last_look.ToNanoseconds() > before_ns(before))
            assert remembered(after) == remembered(before)
            assert [stored.SerializeToString() for stored in played.desk.decisions(played.id)][
                : len(history)
            ] == history
            again = played.desk.route("m")
            assert (again.route, again.effective, again.rollout_id) == (route.route, route.effective, route.rollout_id)

            played.began = time.monotonic()
            played.clients.rate = RATE
            played.desk.until(played.id, lambda rollout: rollout.candidate_requests > before.candidate_requests + 200)
            answered = [got for got in played.since() if got.version]
            share = played.clients.share(2, answered)
            assert abs(share - 0.5) < 4 * (0.25 / len(answered)) ** 0.5
            played.desk.command(played.id, pb.CommandRolloutRequest.VERB_PROMOTE)
            played.until(LIVE)
            until(lambda: default_of(gateway, "m") == {2}, "the candidate is the default")
            assert_history_recomputes(played)
    finally:
        if gateway.process is not None:
            gateway.stop()


def kill(gateway: Gateway, what: str) -> None:
    """kill -9; returns when it is there again."""
    if what == "everything":
        tree = [gateway.supervisor, *gateway.supervisor.children(recursive=True)]
        assert gateway.process is not None
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        gateway.process.wait()
        gateway.process = None
        psutil.wait_procs(tree, timeout=10)
        gateway.addresses = {name: str(gateway.endpoints[name]) for name in ("grpc", "http", "admin")}
        gateway.start()
        return
    victim = gateway.children("control" if what == "control" else "worker")[0]
    victim.kill()
    gateway.logged("was ended by signal 9")
    gateway.wait_ready()


def settled(played: Scene) -> pb.Rollout:
    """The rollout after two looks that saw no request more than the one before."""
    until(lambda: not played.clients.under_way, "all requests have ended")
    time.sleep(2 * CONFIG["rollouts"]["tick_seconds"])  # counts reach the pages after the replies
    first = played.desk.get(played.id)
    return played.desk.until(
        played.id, lambda rollout: rollout.last_look.ToNanoseconds() > first.last_look.ToNanoseconds()
    )


def before_ns(rollout: pb.Rollout) -> int:
    return rollout.last_look.ToNanoseconds()


def remembered(rollout: pb.Rollout) -> dict[str, Any]:
    """What must outlive whatever is killed."""
    names = (
        "phase", "step", "weight_percent", "shadow_percent", "plan", "plan_digest", "candidate_requests",
        "candidate_errors", "baseline_requests", "baseline_errors",
    )  # fmt: skip
    readings = [(each.gate, each.says, each.harm, each.safe, each.candidate_rows) for each in rollout.readings]
    return {name: getattr(rollout, name) for name in names} | {"readings": readings}


def test_a_killed_shadow_process_holds_nobody_up(gateway: Gateway) -> None:
    with admin_of(gateway.admin) as admin:
        admin.default("good", "1", reason="the way back by hand")
    with scene(gateway, "good") as played:
        played.start(plan_of("good", SHADOW | {"min_requests": 600}, CANARY, gates=GATES))
        played.until(pb.ROLLOUT_PHASE_SHADOW, 0)
        until(lambda: played.desk.get(played.id).compared > 50, "copies are compared")
        gateway.children("shadow")[0].kill()
        played.until(LIVE)
        played.tell("live")
        assert played.clients.failures() == []
        assert_history_recomputes(played)
