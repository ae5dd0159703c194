"""What control knows of itself, its workers and the repository, for the metrics."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from gateway.control.changes import Changes
from gateway.control.fleet import Fleet
from gateway.process import Spawn
from gateway.telemetry.durations import DurationRecorder
from gateway.telemetry.measure import Figures
from runtime.shm.segment import Segment
from runtime.shm.tally import Tally

CONTROL, SUPERVISOR, SHADOW = "control", "supervisor", "shadow"


def control_figures(
    orders: Spawn, changes: Changes, fleet: Fleet, loads: DurationRecorder, swaps: DurationRecorder
) -> Figures:
    """All but what the exporters count: `dataclasses.replace` puts that in."""
    workers = len(orders.page_fds)
    tally = Tally(Segment.attach(orders.tally_fd, writable=False))

    def restarts() -> dict[str, int]:
        names = (*map(str, range(workers)), CONTROL, *((SHADOW,) if orders.config.shadow.enabled else ()))
        return {name: tally.value(index) for index, name in enumerate(names)}

    def memory_bytes() -> dict[str, int]:
        pids = {str(worker.index): worker.pid for worker in list(fleet.workers.values())}
        pids |= {CONTROL: os.getpid(), SUPERVISOR: orders.parent_pid}
        shadow = fleet.shadow
        if shadow is not None:
            pids[SHADOW] = shadow.pid
        resident = {name: resident_bytes(pid) for name, pid in sorted(pids.items())}
        return {name: size for name, size in resident.items() if size is not None}

    def versions_served() -> Iterable[tuple[str, int]]:
        for model in list(changes.desired.values()):
            for version in model.versions if model.served else ():
                yield model.name, version.version

    return Figures(
        workers_expected=workers,
        workers_serving=lambda: sum(worker.state == "serving" for worker in list(fleet.workers.values())),
        restarts=restarts,
        memory_bytes=memory_bytes,
        versions_served=versions_served,
        repository_problems=lambda: len(changes.scan.problems),
        loads=loads,
        swaps=swaps,
    )


def resident_bytes(pid: int) -> int | None:
    """None of a process that has ended, and where there is no /proc."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return None
