"""Orders and loaded versions become routes: visible after they are available, invisible before they drain."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_models import write_bad
from zoo import versioned, write_version

from gateway.messages import Desired, ModelOrder, VersionOrder
from gateway.routing.table import RouteTable
from gateway.worker.catalog import Catalog, health_statuses, report
from gateway.worker.target import Target
from runtime.shm.segment import Segment
from runtime.shm.statistics import StatisticsWriter, create_page
from runtime.versions.manager import Instance, VersionManager
from runtime.versions.policy import InstanceKey
from runtime.versions.state import VersionState
from runtime.versions.version import LoadedVersion


class Worker:
    """A catalog and a manager as the worker wires them, one step at a time; `seen` is what was routable at each."""

    def __init__(self, index: int, page: Segment) -> None:
        self.table: RouteTable[Target] = RouteTable()
        self.seen: list[tuple[VersionState, bool]] = []
        self._statistics = StatisticsWriter(page)
        self.catalog = Catalog(index, self._on_table)
        self.manager = VersionManager(self._make_target, self._on_change)

    def _on_table(self, table: RouteTable[Target]) -> None:
        self.table = table

    def _make_target(self, key: InstanceKey, version: LoadedVersion) -> Target:
        target = Target(version, self._statistics.slot(key.model, key.version), lambda _: None)
        self.catalog.add_target(key, target)
        return target

    def _on_change(self, instance: Instance) -> None:
        self.catalog.note(instance)
        routed = self.table.find("m", "1")
        self.seen.append((instance.state, routed is not None and instance.loaded is routed.version))

    def order(self, *models: ModelOrder) -> None:
        self.manager.set_desired(self.catalog.set_desired(Desired(revision=1, models=models)))
        while self.manager.tick():
            pass

    def found(self, version: str = "") -> int | None:
        target = self.table.find("m", version)
        return target.version.version if target is not None else None

    def why_not(self, version: str = "") -> str:
        return self.table.why_not("m", version).message


@pytest.fixture
def page() -> Segment:
    return create_page("statistics")


def ordered(root: Path, version: int, generation: int = 1) -> VersionOrder:
    folder = root / "m" / str(version)
    if not folder.exists():
        write_version(root, "m", version, versioned(version))
    return VersionOrder(
        version=version, digest="sha256:0", generation=generation, folder=str(folder), model_filename="model.onnx",
        file_bytes=1, manifest={},
    )  # fmt: skip


def test_a_version_is_routed_to_from_available_until_the_order_is_gone(tmp_path: Path, page: Segment) -> None:
    worker = Worker(0, page)
    worker.order(ModelOrder(model="m", serve=(ordered(tmp_path, 1),)))
    assert worker.found() == 1
    assert worker.seen == [
        (VersionState.LOADING, False), (VersionState.WARMING_UP, False), (VersionState.AVAILABLE, True)
    ]  # fmt: skip
    worker.order(ModelOrder(model="m"))
    assert worker.seen[3:] == [(VersionState.DRAINING, False), (VersionState.UNLOADED, False)]
    assert worker.found() is None
    assert worker.why_not() == "model 'm' has no version that is served: it was unloaded or none was loaded"


def test_what_is_prepared_is_loaded_but_not_routed_to_until_it_is_served(tmp_path: Path, page: Segment) -> None:
    worker = Worker(0, page)
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
def test_only_the_worker_that_is_meant_prepares(tmp_path: Path, page: Segment, prepare_on: int, *, loads: bool) -> None:
    worker = Worker(0, page)
    worker.order(ModelOrder(model="m", prepare=(ordered(tmp_path, 1),), prepare_on=prepare_on))
    assert bool(worker.manager.instances()) is loads


def test_a_reload_of_the_same_version_answers_from_the_old_until_the_new_is_served(
    tmp_path: Path, page: Segment
) -> None:
    worker = Worker(0, page)
    worker.order(ModelOrder(model="m", serve=(ordered(tmp_path, 1),)))
    old = worker.table.find("m", "1")
    worker.order(ModelOrder(model="m", serve=(ordered(tmp_path, 1),), prepare=(ordered(tmp_path, 1, 2),)))
    assert worker.table.find("m", "1") is old
    worker.order(ModelOrder(model="m", serve=(ordered(tmp_path, 1, 2),)))
    assert worker.found("1") == 1
    assert worker.table.find("m", "1") is not old


def test_a_version_that_failed_is_not_ready_and_says_why(tmp_path: Path, page: Segment) -> None:
    write_bad(tmp_path, "truncated", 1, model="m")
    worker = Worker(0, page)
    labels = {"stable": 1}
    worker.order(ModelOrder(model="m", serve=(ordered(tmp_path, 1),), labels=labels, unavailable={2: "not loaded"}))
    assert worker.why_not("stable").startswith("model 'm' version 1 is not ready: failed: model.onnx is not a valid")
    assert worker.why_not("2") == "model 'm' version 2 is not ready: not loaded"
    assert worker.seen[-1] == (VersionState.FAILED, False)


def test_health_follows_the_routes(tmp_path: Path, page: Segment) -> None:
    worker = Worker(0, page)
    worker.order(
        ModelOrder(model="m", serve=(ordered(tmp_path, 1),), unavailable={2: "not loaded"}),
        ModelOrder(model="n", unavailable={1: "not loaded"}),
    )
    expected = {"": True, "inference.GRPCInferenceService": True, "m": True, "m/1": True, "m/2": False}
    assert health_statuses(worker.table, ready=True) == {**expected, "n": False, "n/1": False}
    assert not any(health_statuses(worker.table, ready=False).values())


def test_a_report_tells_what_a_load_has_learned(tmp_path: Path, page: Segment) -> None:
    worker = Worker(0, page)
    worker.order(ModelOrder(model="m", serve=(ordered(tmp_path, 1),)))
    (instance,) = worker.manager.instances()
    told = report(instance)
    assert (told.model, told.version, told.state, told.reason) == ("m", 1, "AVAILABLE", "")
    assert told.loaded is not None
    assert [(t.name, t.datatype, t.shape) for t in told.loaded.inputs] == [("x", "FP32", (-1, 4))]
    assert (told.loaded.max_rows, told.loaded.file_bytes) == (64, 1)
    worker.order()
    assert report(instance).loaded is None
