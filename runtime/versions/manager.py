"""Brings the versions in memory to those desired, one action at a time, on a thread of its own.

Requests never wait for it: they see versions only through the table that `on_change` lets the owner rebuild.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from runtime.batching.runner import Delivery, Mark, Unmarked
from runtime.errors import ServingError
from runtime.repository.manifest import Manifest
from runtime.types import Artifact
from runtime.versions.policy import Forget, InstanceKey, Load, Retire, next_action
from runtime.versions.state import Event, VersionState, advance
from runtime.versions.version import LoadedVersion, load_version

log = logging.getLogger(__name__)

DeliveryFactory = Callable[[InstanceKey, LoadedVersion], Delivery | None]
MarkFactory = Callable[[InstanceKey], Mark]

DRAIN_LIMIT_SECONDS = 60.0  # after it, runs of a retired version are stopped
WATCH_SECONDS = 1.0  # an upper bound on noticing what a lost wake-up announced
LONG_NS = 100_000_000  # a run or a wait beyond it is looked after


@dataclass(frozen=True, slots=True)
class VersionTarget:
    """One version that should be in memory, and how."""

    artifact: Artifact
    manifest: Manifest
    generation: int

    @property
    def key(self) -> InstanceKey:
        return InstanceKey(self.artifact.model, self.artifact.version, self.artifact.digest, self.generation)


@dataclass(slots=True)
class Instance:
    """One loading of one version and how far it is."""

    key: InstanceKey
    state: VersionState = VersionState.NOT_LOADED
    reason: str = ""
    loaded: LoadedVersion | None = None
    retired_at: float = field(default=0.0)


class VersionManager:
    """`on_change(instance)` is called on the manager's thread after every transition.

    A version is announced AVAILABLE before anyone is routed to it, and announced DRAINING before its leases close.
    What a version's own code does (its load, its warm-up, each of its runs), `mark_of` is told before and after it.
    """

    def __init__(
        self,
        make_delivery: DeliveryFactory,
        on_change: Callable[[Instance], None],
        mark_of: MarkFactory = lambda _key: Unmarked(),
    ) -> None:
        self._make_delivery = make_delivery
        self._on_change = on_change
        self._mark_of = mark_of
        self._targets: dict[InstanceKey, VersionTarget] = {}
        self._instances: dict[InstanceKey, Instance] = {}
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._stopping = False
        self._drained: list[InstanceKey] = []
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="versions", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        with self._lock:
            self._stopping = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=10.0)

    def set_desired(self, targets: Iterable[VersionTarget]) -> None:
        """Replaces the whole desired set; an equal set changes nothing."""
        with self._lock:
            self._targets = {target.key: target for target in targets}
            self._wake.notify_all()

    def instances(self) -> list[Instance]:
        with self._lock:
            return list(self._instances.values())

    def settled(self) -> bool:
        """True when every desired version is available or has failed."""
        with self._lock:
            return all(
                key in self._instances and self._instances[key].state in (VersionState.AVAILABLE, VersionState.FAILED)
                for key in self._targets
            )

    def tick(self) -> bool:
        """Takes one action; False if there was none to take."""
        with self._lock:
            drained = [self._instances[key] for key in self._drained]
            self._drained.clear()
            action = None
            if not drained:
                states = {key: instance.state for key, instance in self._instances.items()}
                action = next_action(self._targets, states)
            target = self._targets[action.key] if isinstance(action, Load) else None
            if isinstance(action, Forget):
                del self._instances[action.key]
        for instance in drained:
            self._unload(instance)
        if target is not None:
            self._load(target)
        elif isinstance(action, Retire):
            self._retire(self._instances[action.key])
        return bool(drained) or action is not None

    def watch_runs(self) -> int:
        """Looks after what takes long; answers how many receiving threads are held up in runs.

        Runs that nobody waits for are stopped, and those of versions that have been draining for too long.
        """
        now = time.time()
        held_up = 0
        for instance in self.instances():
            runner = instance.loaded.runner if instance.loaded is not None else None
            if runner is None:
                continue
            if instance.retired_at and time.monotonic() - instance.retired_at > DRAIN_LIMIT_SECONDS:
                runner.stop_all_runs()
                continue
            watched = runner.look_after(now, LONG_NS)
            held_up += watched.inline
            if watched.stopped:
                log.info("stopped %d runs of %s that no client waited for", watched.stopped, runner.name)
        return held_up

    def stop_runs(self) -> None:
        """Ends every run under way: its requests fail."""
        for instance in self.instances():
            runner = instance.loaded.runner if instance.loaded is not None else None
            if runner is not None:
                runner.stop_all_runs()

    def _run(self) -> None:
        while True:
            try:
                while self.tick():
                    pass
            except Exception:
                log.exception("the version manager failed in a step; it goes on")
            with self._lock:
                if self._stopping:
                    return
                if not self._drained:
                    self._wake.wait(WATCH_SECONDS)

    def _load(self, target: VersionTarget) -> None:
        instance = Instance(target.key)
        with self._lock:
            self._instances[target.key] = instance
        self._advance(instance, Event.LOAD)
        try:
            mark = self._mark_of(target.key)
            begun = mark.begin()
            try:
                loaded = load_version(target.artifact, target.manifest, lambda: self._advance(instance, Event.LOADED))
            finally:
                mark.end(begun)
            loaded.start(self._make_delivery(target.key, loaded), mark)
        except ServingError as error:
            log.warning("%s/%s: %s %s", target.key.model, target.key.version, error.message, error.detail)
            self._advance(instance, Event.FAIL, error.message)
            return
        except Exception:
            log.exception("%s/%s: an unforeseen error", target.key.model, target.key.version)
            self._advance(instance, Event.FAIL, "internal error while it was loaded; the log has more")
            return
        instance.loaded = loaded
        self._advance(instance, Event.WARMED_UP)

    def _retire(self, instance: Instance) -> None:
        instance.retired_at = time.monotonic()
        self._advance(instance, Event.RETIRE)
        if instance.loaded is not None:
            instance.loaded.leases.close(lambda: self._on_drained(instance.key))

    def _on_drained(self, key: InstanceKey) -> None:
        with self._lock:
            self._drained.append(key)
            self._wake.notify_all()

    def _unload(self, instance: Instance) -> None:
        loaded, instance.loaded = instance.loaded, None
        if loaded is not None:
            loaded.unload()
        del loaded
        self._advance(instance, Event.DRAINED)

    def _advance(self, instance: Instance, event: Event, reason: str = "") -> None:
        instance.state = advance(instance.state, event)
        instance.reason = reason
        self._on_change(instance)
