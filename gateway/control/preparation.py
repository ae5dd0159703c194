"""Phase one of a load: workers try new versions beside the old, one worker first, then the others.

One worker goes first so that a model that breaks its process takes no other with it, and so that a machine's cores are
not all busy loading at once. A rollout's candidate goes to the shadow process before, where there is one: if it breaks
that, no client notices. Nothing is routed to a version that is only prepared.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.control.desired import Candidate
from gateway.control.fleet import Fleet, WorkerView
from gateway.messages import VersionReport
from gateway.store.contract import DesiredVersion
from runtime.errors import LoadError, NotReady
from runtime.versions.policy import InstanceKey
from runtime.versions.state import VersionState

log = logging.getLogger(__name__)

LOAD_SECONDS = 600.0  # for a worker to load and warm up
ALL_WORKERS = -1
NO_WORKER = -2
SHADOW_SECONDS = 5.0  # for a shadow process that was there before to be there again
TRIES = 2  # a worker may end for reasons of its own while it loads; twice in a row is the version's doing

New = Sequence[tuple[DesiredVersion, Candidate]]


class VersionFailed(LoadError):
    """A version that a worker could not load."""

    def __init__(self, message: str, version: int, why: str) -> None:
        super().__init__(message)
        self.version = version
        self.why = why


@dataclass(frozen=True, slots=True)
class Trial:
    """What is to be prepared of one model. `worker`: by only this one, ALL_WORKERS or NO_WORKER."""

    new: New
    worker: int
    on_shadow: bool = False


class Preparations:
    """The trials under way, by model. `broadcast` sends all orders anew and answers their revision."""

    def __init__(self, fleet: Callable[[], Fleet], broadcast: Callable[[], int]) -> None:
        self._fleet = fleet
        self._broadcast = broadcast
        self.trials: dict[str, Trial] = {}

    async def run(self, model: str, new: New, *, shadow_first: bool = False) -> None:
        """Returns when every worker has the versions available. Raises LoadError or NotReady."""
        for attempt in range(1, TRIES + 1):
            lost = await self._on_shadow(model, new) if shadow_first else ""
            lost = (
                lost
                or await self._stage(model, new, first_only=True, on_shadow=shadow_first)
                or await self._stage(model, new, first_only=False, on_shadow=shadow_first)
            )
            if not lost:
                return
            numbers = ", ".join(str(version.version) for version, _ in new)
            log.warning("%s ended while it loaded %s/%s (try %d of %d)", lost, model, numbers, attempt, TRIES)
        raise LoadError(
            f"{lost} ended while it loaded model {model!r} version {numbers}, {TRIES} times: the model breaks its "
            "process (the log has the signal); nothing has changed"
        )

    def end(self, model: str) -> bool:
        """Forgets a model's trial; True if there was one."""
        return self.trials.pop(model, None) is not None

    async def _on_shadow(self, model: str, new: New) -> str:
        """Answers "the shadow process" if it ended meanwhile, "" if it did not, or is not there."""
        fleet = self._fleet()
        if fleet.has_had_shadow:
            await fleet.until(lambda: fleet.shadow is not None, SHADOW_SECONDS)
        if fleet.shadow is None:
            return ""
        pid = fleet.shadow.pid
        self.trials[model] = Trial(new, NO_WORKER, on_shadow=True)
        self._broadcast()
        keys = _keys(model, new)

        def there() -> WorkerView | None:
            return fleet.shadow if fleet.shadow is not None and fleet.shadow.pid == pid else None

        def decided() -> bool:
            shadow = there()
            if shadow is None:
                return True
            states = [_state(shadow, key) for key in keys]
            return VersionState.FAILED.name in states or all(state == VersionState.AVAILABLE.name for state in states)

        in_time = await fleet.until(decided, LOAD_SECONDS)
        shadow = there()
        if shadow is None:
            return "the shadow process"
        if not in_time:  # it has only what cores the workers leave it; they decide
            log.warning("the shadow process did not load a version of %s within %g s", model, LOAD_SECONDS)
        for key in keys:
            _raise_failure(key, shadow.reports.get(key))
        return ""

    async def _stage(self, model: str, new: New, *, first_only: bool, on_shadow: bool) -> str:
        """Answers the worker that ended meanwhile, "" if none did."""
        fleet = self._fleet()
        await fleet.until(lambda: bool(fleet.workers), LOAD_SECONDS)
        worker = min(fleet.workers, default=ALL_WORKERS) if first_only else ALL_WORKERS
        self.trials[model] = Trial(new, worker, on_shadow)
        revision = self._broadcast()
        pids = {index: view.pid for index, view in fleet.workers.items() if worker in (ALL_WORKERS, index)}
        keys = _keys(model, new)

        def lost() -> list[int]:
            return [i for i, pid in pids.items() if i not in fleet.workers or fleet.workers[i].pid != pid]

        def asked() -> list[WorkerView]:
            return [view for index, view in fleet.workers.items() if worker in (ALL_WORKERS, index)]

        def decided() -> bool:
            states = [_state(view, key) for view in asked() for key in keys]
            if lost() or VersionState.FAILED.name in states:
                return True
            told = all(view.revision >= revision for view in asked())
            return bool(states) and told and all(state == VersionState.AVAILABLE.name for state in states)

        in_time = await fleet.until(decided, LOAD_SECONDS)
        for key in keys:
            for report in fleet.reports_of(key).values():
                _raise_failure(key, report)
        if lost():
            return f"worker {lost()[0]}"
        if not in_time:
            raise NotReady(f"model {model!r} was not loaded within {LOAD_SECONDS:g} s; nothing has changed")
        return ""


def _keys(model: str, new: New) -> list[InstanceKey]:
    return [InstanceKey(model, version.version, version.digest, version.generation) for version, _ in new]


def _raise_failure(key: InstanceKey, report: VersionReport | None) -> None:
    if report is not None and report.state == VersionState.FAILED.name:
        message = f"version {key.version} of model {key.model!r} cannot be served: {report.reason}"
        raise VersionFailed(message, key.version, report.reason)


def _state(view: WorkerView, key: InstanceKey) -> str:
    report = view.reports.get(key)
    return report.state if report is not None else VersionState.NOT_LOADED.name
