"""The version manager against a model of it: any sequence of orders, steps, leases and requests, on real sessions."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from bad_models import write_bad
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.runtime import Deliveries, request_of, target_of
from zoo import versioned, write_version

from runtime.batching.runner import Delivery
from runtime.versions.manager import Instance, VersionManager, VersionTarget
from runtime.versions.policy import InstanceKey
from runtime.versions.state import FINAL, TRANSITIONS, VersionState
from runtime.versions.version import LoadedVersion

GOOD = {1: 1.5, 2: 2.5, 3: 3.5}  # version → what it adds to x
BAD = {4: "truncated", 5: "sequence_output", 6: "external_missing"}
LEGAL = {(before, after) for (before, _), after in TRANSITIONS.items()}
SERVING = (VersionState.AVAILABLE, VersionState.DRAINING)


class VersionsModel(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="versions-model-"))
        for version, k in GOOD.items():
            write_version(self.folder, "m", version, versioned(k))
        for version, name in BAD.items():
            write_bad(self.folder, name, version, model="m")
        self.manager = VersionManager(self._make_delivery, self._on_change)
        self.desired: dict[InstanceKey, VersionTarget] = {}
        self.deliveries: dict[InstanceKey, Deliveries] = {}
        self.last: dict[InstanceKey, VersionState] = {}
        self.leased: list[LoadedVersion] = []

    def _make_delivery(self, key: InstanceKey, version: LoadedVersion) -> Delivery:
        assert self.last[key] is VersionState.WARMING_UP, (
            "it gets a way to answer after warm-up, before it is routed to"
        )
        assert version.version == key.version
        self.deliveries[key] = Deliveries()
        return self.deliveries[key]

    def _on_change(self, instance: Instance) -> None:
        key, state = instance.key, instance.state
        before = self.last.get(key, VersionState.NOT_LOADED)
        if before in FINAL:
            assert state is VersionState.LOADING, "only forgotten and loaded anew"
        else:
            assert (before, state) in LEGAL
        self.last[key] = state
        loaded = instance.loaded
        assert (loaded is not None) == (state in SERVING)
        if loaded is not None:
            assert loaded.runner is not None
            assert not loaded.leases.closed, "announced before its leases close"
        assert bool(instance.reason) == (state is VersionState.FAILED)

    def _available(self) -> list[LoadedVersion]:
        return [
            i.loaded for i in self.manager.instances() if i.state is VersionState.AVAILABLE and i.loaded is not None
        ]

    @rule(versions=st.sets(st.sampled_from([*GOOD, *BAD])), generation=st.integers(1, 2))
    def order(self, versions: set[int], generation: int) -> None:
        targets = [target_of(self.folder / "m" / str(v), "m", v, generation=generation) for v in sorted(versions)]
        self.desired = {target.key: target for target in targets}
        self.manager.set_desired(targets)

    @rule(steps=st.integers(0, 3))
    def change_ones_mind(self, steps: int) -> None:
        """Everything is taken away, and ordered again before or while it goes."""
        self.manager.set_desired(())
        self.tick(steps)
        self.manager.set_desired(self.desired.values())

    @rule(steps=st.integers(1, 4))
    def tick(self, steps: int) -> None:
        for _ in range(steps):
            self.manager.tick()

    @rule(data=st.data())
    def take_a_lease(self, data: st.DataObject) -> None:
        available = self._available()
        if available:
            version = data.draw(st.sampled_from(available))
            assert version.leases.take(1)
            self.leased.append(version)

    @rule()
    def return_a_lease(self) -> None:
        if self.leased:
            self.leased.pop(0).leases.give_back(1)

    @rule(data=st.data(), rows=st.integers(1, 3))
    def ask(self, data: st.DataObject, rows: int) -> None:
        """Whoever holds a lease gets the answer of that very version, also while it drains."""
        if not self.leased:
            return
        version = data.draw(st.sampled_from(self.leased))
        assert version.runner is not None
        x = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
        request = request_of(version.signature, {"x": x})
        version.runner.submit([request])
        (key,) = [i.key for i in self.manager.instances() if i.loaded is version]
        np.testing.assert_array_equal(self.deliveries[key].answer(request)[0], x + np.float32(GOOD[version.version]))

    @invariant()
    def sessions_live_exactly_where_versions_can_answer(self) -> None:
        if not hasattr(self, "manager"):
            return
        for instance in self.manager.instances():
            assert (instance.loaded is not None) == (instance.state in SERVING)
            if instance.loaded is not None:
                assert instance.loaded.runner is not None
                assert instance.loaded.leases.closed == (instance.state is VersionState.DRAINING)
        assert all(version.runner is not None for version in self.leased)

    def teardown(self) -> None:
        if not hasattr(self, "manager"):
            return
        self._settle()
        self.desired = {}
        self.manager.set_desired(())
        self._settle()
        shutil.rmtree(self.folder)

    def _settle(self) -> None:
        for version in self.leased:
            version.leases.give_back(1)
        self.leased.clear()
        for _ in range(100):
            if not self.manager.tick():
                break
        else:
            raise AssertionError("it never comes to rest")
        states = {instance.key: instance.state for instance in self.manager.instances()}
        assert states == {
            key: VersionState.AVAILABLE if key.version in GOOD else VersionState.FAILED for key in self.desired
        }
        assert self.manager.settled()


VersionsModel.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestVersionsModel = VersionsModel.TestCase
