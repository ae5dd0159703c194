"""Phase one of a load: workers try new versions beside the old, one worker first, then the others.

One worker goes first so that a model that breaks its process takes no other with it, and so that a machine's cores are
not all busy loading at once. Nothing is routed to a version that is only prepared.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.control.desired import Candidate
from gateway.control.fleet import Fleet, WorkerView
from gateway.store.contract import DesiredVersion
from runtime.errors import LoadError, NotReady
from runtime.versions.policy import InstanceKey
from runtime.versions.state import VersionState

log = logging.getLogger(__name__)

LOAD_SECONDS = 600.0  # for a worker to load and warm up
ALL_WORKERS = -1
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
    """What one model's workers are to prepare. `worker`: only this one, or ALL_WORKERS."""

    new: New
    worker: int


class Preparations:
    """The trials under way, by model. `broadcast` sends all orders anew and answers their revision."""

    def __init__(self, fleet: Callable[[], Fleet], broadcast: Callable[[], int]) -> None:
        self._fleet = fleet
        self._broadcast = broadcast
        self.trials: dict[str, Trial] = {}

    async def run(self, model: str, new: New) -> None:
        """Returns when every worker has the versions available. Raises LoadError or NotReady."""
        for attempt in range(1, TRIES + 1):
            lost = await self._stage(model, new, first_only=True) or await self._stage(model, new, first_only=False)
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

    async def _stage(self, model: str, new: New, *, first_only: bool) -> str:
        """Answers the worker that ended meanwhile, "" if none did."""
        fleet = self._fleet()
        await fleet.until(lambda: bool(fleet.workers), LOAD_SECONDS)
        worker = min(fleet.workers, default=ALL_WORKERS) if first_only else ALL_WORKERS
        self.trials[model] = Trial(new, worker)
        revision = self._broadcast()
        pids = {index: view.pid for index, view in fleet.workers.items() if worker in (ALL_WORKERS, index)}
        keys = [InstanceKey(model, version.version, version.digest, version.generation) for version, _ in new]

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
                if report.state == VersionState.FAILED.name:
                    message = f"version {key.version} of model {model!r} cannot be served: {report.reason}"
                    raise VersionFailed(message, key.version, report.reason)
        if lost():
            return f"worker {lost()[0]}"
        if not in_time:
            raise NotReady(f"model {model!r} was not loaded within {LOAD_SECONDS:g} s; nothing has changed")
        return ""


def _state(view: WorkerView, key: InstanceKey) -> str:
    report = view.reports.get(key)
    return report.state if report is not None else VersionState.NOT_LOADED.name
