"""Orders and loaded versions become routes: visible after they are available, invisible before they drain."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_models import write_bad
from worker_parts import Worker, ordered

from gateway.messages import Desired, ModelOrder
from gateway.version_messages import report
from gateway.worker.catalog import health_statuses
from runtime.versions.state import VersionState


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_a_version_is_routed_to_from_available_until_the_order_is_gone(worker: Worker, tmp_path: Path) -> None:
    worker.order(ModelOrder(model="m", serve=(ordered(tmp_path, 1),)))
    assert worker.found() == 1
    assert worker.seen == [
        (VersionState.LOADING, False), (VersionState.WARMING_UP, False), (VersionState.AVAILABLE, True)
    ]  # fmt: skip
    worker.order(ModelOrder(model="m"))
    assert worker.seen[3:] == [(VersionState.DRAINING, False), (VersionState.UNLOADED, False)]
    assert worker.found() is None
    assert worker.why_not() == "model 'm' has no version that is served: it was unloaded or none was loaded"


def test_what_is_prepared_is_loaded_but_not_routed_to_until_it_is_served(worker: Worker, tmp_path: Path) -> None:
    one, two = ordered(tmp_path, 1), ordered(tmp_path, 2)
    worker.order(ModelOrder(model="m", serve=(one,), prepare=(two,)))
    assert (worker.found(), worker.found("2")) == (1, None)
    assert worker.why_not("2") == "model 'm' version 2 is not ready: loading"
    assert {i.key.version: i.state for i in worker.manager.instances()} == dict.fromkeys((1, 2), VersionState.AVAILABLE)
    worker.manager.set_desired(
        worker.catalog.set_desired(Desired(revision=2, models=(ModelOrder(model="m", serve=(two,)),)))
    )
    assert (worker.found(), worker.found("1")) == (2, None), "the route flips at once, before anything is unloaded"


@pytest.mark.parametrize(("prepare_on", "loads"), [(-1, True), (0, True), (1, False)])
def test_only_the_worker_that_is_meant_prepares(
    worker: Worker, tmp_path: Path, prepare_on: int, *, loads: bool
) -> None:
    worker.order(ModelOrder(model="m", prepare=(ordered(tmp_path, 1),), prepare_on=prepare_on))
    assert bool(worker.manager.instances()) is loads


def test_a_reload_of_the_same_version_answers_from_the_old_until_the_new_is_served(
    worker: Worker, tmp_path: Path
) -> None:
    worker.order(ModelOrder(model="m", serve=(ordered(tmp_path, 1),)))
    old = worker.table.find("m", "1")
    worker.order(ModelOrder(model="m", serve=(ordered(tmp_path, 1),), prepare=(ordered(tmp_path, 1, 2),)))
    assert worker.table.find("m", "1") is old
    worker.order(ModelOrder(model="m", serve=(ordered(tmp_path, 1, 2),)))
    assert worker.found("1") == 1
    assert worker.table.find("m", "1") is not old


def test_a_version_that_failed_is_not_ready_and_says_why(worker: Worker, tmp_path: Path) -> None:
    write_bad(tmp_path, "truncated", 1, model="m")
    labels = {"stable": 1}
    worker.order(ModelOrder(model="m", serve=(ordered(tmp_path, 1),), labels=labels, unavailable={2: "not loaded"}))
    assert worker.why_not("stable").startswith("model 'm' version 1 is not ready: failed: model.onnx is not a valid")
    assert worker.why_not("2") == "model 'm' version 2 is not ready: not loaded"
    assert worker.seen[-1] == (VersionState.FAILED, False)


def test_health_follows_the_routes(worker: Worker, tmp_path: Path) -> None:
    worker.order(
        ModelOrder(model="m", serve=(ordered(tmp_path, 1),), unavailable={2: "not loaded"}),
        ModelOrder(model="n", unavailable={1: "not loaded"}),
    )
    expected = {"": True, "inference.GRPCInferenceService": True, "m": True, "m/1": True, "m/2": False}
    assert health_statuses(worker.table, ready=True) == {**expected, "n": False, "n/1": False}
    assert not any(health_statuses(worker.table, ready=False).values())


def test_a_report_tells_what_a_load_has_learned(worker: Worker, tmp_path: Path) -> None:
    worker.order(ModelOrder(model="m", serve=(ordered(tmp_path, 1),)))
    (instance,) = worker.manager.instances()
    told = report(instance)
    assert (told.model, told.version, told.state, told.reason) == ("m", 1, "AVAILABLE", "")
    assert told.loaded is not None
    assert [(t.name, t.datatype, t.shape) for t in told.loaded.inputs] == [("x", "FP32", (-1, 4))]
    assert (told.loaded.max_rows, told.loaded.file_bytes) == (64, 1)
    worker.order()
    assert report(instance).loaded is None
