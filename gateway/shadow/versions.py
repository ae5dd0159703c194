"""The shadow versions that are in memory, as copies need them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runtime.errors import NotReady, RunError
from runtime.onnx.session import RunStop
from runtime.shadow.outputs import ComparableOutputs, comparable_outputs
from runtime.shadow.pair import Array, PairKey
from runtime.shm.statistics import SlotWriter
from runtime.types import Signature
from runtime.versions.manager import Instance
from runtime.versions.policy import InstanceKey
from runtime.versions.state import VersionState
from runtime.versions.version import LoadedVersion


@dataclass(frozen=True, slots=True)
class ShadowVersion:
    """A loaded version, its counters, and what of its answers is compared."""

    loaded: LoadedVersion
    counters: SlotWriter
    comparable: ComparableOutputs

    @property
    def signature(self) -> Signature:
        return self.loaded.signature

    @property
    def merges_rows(self) -> bool:
        return self.loaded.max_rows > 0

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], stop: RunStop) -> dict[str, Array]:
        """By name. Raises RunError, or NotReady if it is being unloaded."""
        if not self.loaded.leases.take(1):
            raise NotReady(f"{self.loaded.name} is being unloaded")
        try:
            session = self.loaded.session
            if session is None:
                raise RunError(f"{self.loaded.name} has been unloaded")
            answers = session.run(feeds, list(outputs), stop)
        finally:
            self.loaded.leases.give_back(1)
        return dict(zip(outputs, answers, strict=True))


class ShadowVersions:
    """Thread-safe. `changes` counts what came and went, so that whoever follows them looks again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[InstanceKey, ShadowVersion] = {}
        self._available: dict[InstanceKey, ShadowVersion] = {}
        self.changes = 0

    def add(self, key: InstanceKey, loaded: LoadedVersion, counters: SlotWriter) -> None:
        """One that is about to be available."""
        comparable = comparable_outputs(loaded.signature, loaded.manifest.statistics)
        with self._lock:
            self._made[key] = ShadowVersion(loaded, counters, comparable)

    def note(self, instance: Instance) -> None:
        """Its state has changed."""
        with self._lock:
            if instance.state is VersionState.AVAILABLE:
                self._available[instance.key] = self._made[instance.key]
            else:
                self._available.pop(instance.key, None)
                if instance.state in (VersionState.DRAINING, VersionState.UNLOADED, VersionState.FAILED):
                    self._made.pop(instance.key, None)
            self.changes += 1

    def of(self, pair: PairKey) -> ShadowVersion | None:
        """The newest loading of the pair's shadow."""
        return self.find(pair.model, pair.shadow, pair.shadow_digest)

    def find(self, model: str, version: int, digest: str) -> ShadowVersion | None:
        """The newest loading of these files."""
        with self._lock:
            fitting = [
                key for key in self._available if (key.model, key.version, key.digest) == (model, version, digest)
            ]
            return self._available[max(fitting)] if fitting else None

    def __len__(self) -> int:
        return len(self._available)
