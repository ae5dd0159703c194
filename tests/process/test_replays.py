"""Rollouts without traffic: rows that the baseline answered before are run through both versions, and decide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from rollout_models import CRASH, everyday, write_pair
from support.admin import until
from support.gateway import Gateway
from support.load import infer_request
from support.predict import client_of
from support.rollouts import RolloutDesk, rollouts_of

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.rollout.decide import recompute
from runtime.rollout.decision import Decision
from runtime.rollout.plan import Plan

pytestmark = pytest.mark.process

CONFIG = {
    "rollouts": {"tick_seconds": 0.2},
    "statistics": {"pane_seconds": 1, "windows_seconds": [600], "drift_window_seconds": 600},
}
SHADOW = {"shadow_percent": 100, "min_duration_seconds": 0, "min_requests": 100, "max_duration_seconds": 1}
CANARY = {"weight_percent": 50}
ROWS = 1_200
KEPT = f"statistics: {{sample_rows: {ROWS}}}\n"
CANDIDATES = dict.fromkeys(("equal", "good", "differing", "failing", "crashing_on_demand"), KEPT)
CANDIDATES["slow"] = "statistics: {sample_rows: 0}\n"


def plan_of(model: str, **changes: Any) -> dict[str, Any]:
    gates = {"agreement": {"min_share": 0.97}, "errors": {"margin": 0.01}}
    plan = {"model": model, "baseline": "1", "candidate": "2", "steps": [SHADOW, CANARY], "gates": gates}
    return plan | {"at_max_duration": "replay"} | changes


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Version 1 of each model has answered ROWS rows, whose panes ended before any rollout begins."""
    models = tmp_path_factory.mktemp("models")
    for candidate, settings in CANDIDATES.items():
        write_pair(models, candidate, candidate, settings=settings)
    random = np.random.default_rng(3)
    with Gateway(models, tmp_path_factory.mktemp("state") / "state", workers=1, config=CONFIG) as running:
        with client_of(running.grpc) as client:
            for _ in range(ROWS // 100):
                for model in CANDIDATES:
                    x = everyday(random, 100)
                    x[0, 3] = CRASH if model == "crashing_on_demand" else x[0, 3]
                    client.ask("ModelInfer", infer_request(model, x, "1"))
        with rollouts_of(running.admin) as desk:
            request = pb.GetFeaturesRequest(model="equal", version=1, window_seconds=600)
            until(lambda: desk.ask("GetFeatures", request).window.rows == ROWS, "the rows are in the windows")
        yield running


@pytest.fixture
def desk(gateway: Gateway) -> Iterator[RolloutDesk]:
    with rollouts_of(gateway.admin) as desk:
        yield desk


def assert_recomputes(desk: RolloutDesk, rollout: pb.Rollout) -> None:
    plan = Plan.from_json(rollout.plan)
    for stored in desk.decisions(rollout.id):
        assert stored.recomputed, stored.sentence
        decision = Decision.from_json(stored.evidence)
        assert recompute(plan, decision) == decision


@pytest.mark.parametrize("candidate", ["equal", "good"])
def test_a_version_that_answers_alike_passes_its_shadow_step_by_replay(desk: RolloutDesk, candidate: str) -> None:
    started = desk.start(plan_of(candidate))
    passed = desk.until(started.id, lambda rollout: rollout.step == 1)
    (decision,) = [each for each in desk.decisions(started.id) if each.step_before == 0 and each.moved]
    print(desk.story(started.id))
    assert f"passed by replay of {ROWS:,} rows" in decision.reason
    assert passed.phase == pb.ROLLOUT_PHASE_CANARY
    assert_recomputes(desk, passed)
    desk.command(started.id, pb.CommandRolloutRequest.VERB_ABORT)


@pytest.mark.parametrize(("candidate", "gate"), [("differing", "agreement"), ("failing", "errors")])
def test_a_version_that_does_harm_is_rolled_back_by_replay(desk: RolloutDesk, candidate: str, gate: str) -> None:
    started = desk.start(plan_of(candidate, gates={"agreement": {"min_share": 0.97}, "errors": {"margin": 0.002}}))
    ended = desk.until(started.id, lambda rollout: rollout.phase == pb.ROLLOUT_PHASE_ROLLED_BACK)
    print(desk.story(started.id))
    assert f"{gate}: harm shown" in ended.reason
    assert_recomputes(desk, ended)


def test_a_version_that_ends_the_shadow_process_on_an_earlier_row_is_rolled_back(desk: RolloutDesk) -> None:
    started = desk.start(plan_of("crashing_on_demand"))
    ended = desk.until(started.id, lambda rollout: rollout.phase == pb.ROLLOUT_PHASE_ROLLED_BACK)
    assert "the candidate has ended 1 processes" in ended.reason
    assert_recomputes(desk, ended)


def test_without_kept_rows_it_is_inconclusive_and_says_why(desk: RolloutDesk) -> None:
    started = desk.start(plan_of("slow"))
    ended = desk.until(started.id, lambda rollout: rollout.phase == pb.ROLLOUT_PHASE_INCONCLUSIVE)
    assert "no rows could be replayed: no rows are kept: statistics.sample_rows is 0" in ended.reason
    desk.command(started.id, pb.CommandRolloutRequest.VERB_ABORT)
