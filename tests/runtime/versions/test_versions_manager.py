"""The version manager on its own thread, with real models, good, bad and endless."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from bad_models import write_bad
from support.runtime import WAIT_SECONDS, Deliveries, request_of, target_of
from zoo import versioned, write_version

from runtime.batching.runner import Delivery
from runtime.errors import DeadlineExceeded, NotReady
from runtime.repository.manifest import Manifest
from runtime.versions import manager as manager_module
from runtime.versions.manager import Instance, VersionManager
from runtime.versions.policy import InstanceKey
from runtime.versions.state import VersionState
from runtime.versions.version import LoadedVersion, load_version

UP = [VersionState.LOADING, VersionState.WARMING_UP, VersionState.AVAILABLE]
DOWN = [VersionState.DRAINING, VersionState.UNLOADED]


class Watched:
    """A manager on its thread; `changes` in order, and a way to wait for one."""

    def __init__(self, make_delivery: Callable[[InstanceKey, LoadedVersion], Delivery] | None = None) -> None:
        self.deliveries: dict[InstanceKey, Deliveries] = {}
        self.changes: list[tuple[int, int, VersionState]] = []
        self.reasons: list[str] = []
        self._changed = threading.Condition()
        self.manager = VersionManager(make_delivery or self._make_delivery, self._on_change)

    def _make_delivery(self, key: InstanceKey, _: LoadedVersion) -> Delivery:
        self.deliveries[key] = Deliveries()
        return self.deliveries[key]

    def _on_change(self, instance: Instance) -> None:
        with self._changed:
            self.changes.append((instance.key.version, instance.key.generation, instance.state))
            self.reasons += [instance.reason] if instance.reason else []
            self._changed.notify_all()

    def wait(self, version: int, state: VersionState, generation: int = 1) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: (version, generation, state) in self.changes, WAIT_SECONDS)

    def loaded(self, version: int) -> LoadedVersion:
        (found,) = [i.loaded for i in self.manager.instances() if i.key.version == version and i.loaded is not None]
        return found


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    made.manager.start()
    yield made
    left = [(i.key.version, i.key.generation) for i in made.manager.instances() if i.loaded is not None]
    made.manager.set_desired(())
    for version, generation in left:
        made.wait(version, VersionState.UNLOADED, generation)
    made.manager.stop()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("versions", "run "))]


def test_a_swap_loads_the_new_version_before_the_old_one_goes(watched: Watched, tmp_path: Path) -> None:
    old = target_of(write_version(tmp_path, "m", 1, versioned(1.0)), "m", 1)
    new = target_of(write_version(tmp_path, "m", 2, versioned(2.0)), "m", 2)
    watched.manager.set_desired([old])
    watched.wait(1, VersionState.AVAILABLE)
    watched.manager.set_desired([new])
    watched.wait(1, VersionState.UNLOADED)
    assert watched.changes == [*((1, 1, s) for s in UP), *((2, 1, s) for s in UP), *((1, 1, s) for s in DOWN)]


def test_the_old_version_answers_until_its_last_lease_is_back(watched: Watched, tmp_path: Path) -> None:
    old = target_of(write_version(tmp_path, "m", 1, versioned(1.0)), "m", 1)
    watched.manager.set_desired([old])
    watched.wait(1, VersionState.AVAILABLE)
    version = watched.loaded(1)
    assert version.leases.take(1)
    watched.manager.set_desired([])
    watched.wait(1, VersionState.DRAINING)
    assert version.runner is not None
    x = np.ones((1, 4), np.float32)
    request = request_of(version.signature, {"x": x})
    version.runner.submit([request])
    np.testing.assert_array_equal(watched.deliveries[old.key].answer(request)[0], x + 1)
    assert (1, 1, VersionState.UNLOADED) not in watched.changes
    version.leases.give_back(1)
    watched.wait(1, VersionState.UNLOADED)
    assert version.runner is None


def test_the_same_set_again_changes_nothing_and_a_new_generation_loads_anew(watched: Watched, tmp_path: Path) -> None:
    folder = write_version(tmp_path, "m", 1, versioned(1.0))
    watched.manager.set_desired([target_of(folder, "m", 1)])
    watched.wait(1, VersionState.AVAILABLE)
    watched.manager.set_desired([target_of(folder, "m", 1)])
    assert watched.manager.settled()
    watched.manager.set_desired([target_of(folder, "m", 1, generation=2)])
    watched.wait(1, VersionState.UNLOADED)
    assert watched.changes == [*((1, 1, s) for s in UP), *((1, 2, s) for s in UP), *((1, 1, s) for s in DOWN)]


@pytest.mark.parametrize(
    ("name", "steps", "says"),
    [
        ("truncated", [VersionState.LOADING, VersionState.FAILED], "is not a valid ONNX model"),
        ("sequence_output", [VersionState.LOADING, VersionState.FAILED], "the protocol carries tensors only"),
        ("external_missing", [VersionState.LOADING, VersionState.FAILED], "model.onnx"),
    ],
)
def test_a_version_that_cannot_be_served_fails_with_a_reason_that_names_no_path(
    watched: Watched, tmp_path: Path, name: str, steps: list[VersionState], says: str
) -> None:
    good = target_of(write_version(tmp_path, "m", 1, versioned(1.0)), "m", 1)
    bad = target_of(write_bad(tmp_path, name, 2, model="m"), "m", 2)
    watched.manager.set_desired([good, bad])
    watched.wait(2, VersionState.FAILED)
    assert [state for version, _, state in watched.changes if version == 2] == steps
    assert says in watched.reasons[0]
    assert str(tmp_path) not in watched.reasons[0]
    assert watched.manager.settled()
    assert watched.loaded(1).runner is not None


def test_a_warm_up_that_fails_is_a_failed_version(watched: Watched, tmp_path: Path) -> None:
    folder = write_version(tmp_path, "m", 1, versioned(1.0))
    np.savez(folder / "warmup.npz", x=np.ones((1, 5), np.float32))
    watched.manager.set_desired([target_of(folder, "m", 1)])
    watched.wait(1, VersionState.FAILED)
    assert [state for _, _, state in watched.changes] == [*UP[:2], VersionState.FAILED]
    assert watched.reasons == ["warmup.npz does not fit the model: input 'x': expected FP32 [-1,4], got float32 [1,5]"]


def test_an_unforeseen_error_fails_one_version_and_the_next_is_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(key: InstanceKey, _: LoadedVersion) -> Delivery:
        if key.version == 1:
            raise KeyError("nobody thought of this")
        return Deliveries()

    watched = Watched(broken)
    watched.manager.start()
    one, two = (target_of(write_version(tmp_path, "m", v, versioned(v)), "m", v) for v in (1, 2))
    watched.manager.set_desired([one, two])
    watched.wait(2, VersionState.AVAILABLE)
    watched.manager.stop()
    assert [state for version, _, state in watched.changes if version == 1][-1] is VersionState.FAILED
    assert "nobody thought of this" not in watched.reasons[0]
    assert "nobody thought of this" in caplog.text


def test_a_run_that_nobody_waits_for_is_stopped(watched: Watched, tmp_path: Path) -> None:
    manifest = Manifest.model_validate({"warmup": {"enabled": False}, "instances": 2})
    target = target_of(write_bad(tmp_path, "endless", 1, model="m"), "m", 1, manifest)
    watched.manager.set_desired([target])
    watched.wait(1, VersionState.AVAILABLE)
    version = watched.loaded(1)
    assert version.runner is not None
    assert version.leases.take(1)
    request = request_of(version.signature, {"x": np.ones(1, np.float32)}, merges=False)
    request.deadline_seconds = time.time() + 0.05
    version.runner.submit([request])
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.is_set():
            watched.manager.watch_runs()
            stopped.wait(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    error = watched.deliveries[target.key].error(request)
    stopped.set()
    watcher.join()
    assert isinstance(error, DeadlineExceeded)
    assert error.message.startswith("the deadline passed during the run of m/1")
    version.leases.give_back(1)


def test_a_version_that_drains_for_too_long_has_its_runs_stopped(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager_module, "DRAIN_LIMIT_SECONDS", 0.0)
    manifest = Manifest.model_validate({"warmup": {"enabled": False}, "instances": 2})
    target = target_of(write_bad(tmp_path, "endless", 1, model="m"), "m", 1, manifest)
    watched.manager.set_desired([target])
    watched.wait(1, VersionState.AVAILABLE)
    version = watched.loaded(1)
    assert version.runner is not None
    assert version.leases.take(1)
    request = request_of(version.signature, {"x": np.ones(1, np.float32)}, merges=False)
    version.runner.submit([request])
    watched.manager.watch_runs()
    assert watched.deliveries[target.key].counts == {}
    watched.manager.set_desired([])
    watched.wait(1, VersionState.DRAINING)
    while not watched.deliveries[target.key].counts:
        watched.manager.watch_runs()
    error = watched.deliveries[target.key].error(request)
    assert (type(error), error.message) == (NotReady, "m/1 is being unloaded, and its run was stopped")
    version.leases.give_back(1)
    watched.wait(1, VersionState.UNLOADED)


def test_what_a_load_learns_is_kept(tmp_path: Path) -> None:
    folder = write_version(tmp_path, "m", 7, versioned(1.0))
    steps: list[str] = []
    loaded = load_version(target_of(folder, "m", 7).artifact, Manifest(), lambda: steps.append("loaded"))
    assert steps == ["loaded"]
    assert (loaded.name, loaded.max_rows, loaded.digest) == ("m/7", 64, "sha256:0")
    assert [spec.name for spec in loaded.signature.inputs] == ["x"]
    assert (loaded.load_seconds > 0, loaded.memory_bytes >= 0, loaded.warnings) == (True, True, ())
    assert repr(loaded) == "<LoadedVersion m/7 sha256:0 <Leases 0 out>>"
    loaded.unload()
    with pytest.raises(RuntimeError, match="m/7 has been unloaded"):
        loaded.start(Deliveries())
