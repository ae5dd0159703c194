"""Which core serves and which makes the load."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

CPUCLOCK_SCHED = 2
"""Of the kernel's clocks of a process (linux/posix-timers.h): nanoseconds that its threads have run."""


@dataclass(frozen=True, slots=True)
class Cores:
    server: int
    load: int

    @property
    def shared(self) -> bool:
        return self.server == self.load


def choose() -> Cores:
    """The first two cores this process may use; one core has to do for both where there is no other."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(server=allowed[0], load=allowed[min(1, len(allowed) - 1)])


@dataclass(frozen=True, slots=True)
class Usage:
    """Clocks read together: of the wall, of the server's tree, of the load's processes, and of the two cores.

    `load_seconds` holds `receiver_seconds`: what takes the server's telemetry runs on the load's core.
    """

    wall_seconds: float
    server_seconds: float
    load_seconds: float
    receiver_seconds: float
    server_core_seconds: float
    load_core_seconds: float

    def since(self, earlier: Usage) -> Usage:
        return Usage(
            wall_seconds=self.wall_seconds - earlier.wall_seconds,
            server_seconds=self.server_seconds - earlier.server_seconds,
            load_seconds=self.load_seconds - earlier.load_seconds,
            receiver_seconds=self.receiver_seconds - earlier.receiver_seconds,
            server_core_seconds=self.server_core_seconds - earlier.server_core_seconds,
            load_core_seconds=self.load_core_seconds - earlier.load_core_seconds,
        )

    def others_seconds(self, *, shared: bool) -> float:
        """What neither the server nor the load used of a core, of the core that lost more; at least 0."""
        if shared:
            return max(0.0, self.server_core_seconds - self.server_seconds - self.load_seconds)
        return max(0.0, self.server_core_seconds - self.server_seconds, self.load_core_seconds - self.load_seconds)


@contextmanager
def pinned(*cores: int) -> Iterator[None]:
    """Run this thread, and the processes started in it, on these cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def used_seconds(core: int) -> float:
    """CPU time that processes, and the hypervisor's other guests, have had of `core`.

    Interrupts are left out: on loopback they are the server's own packets, and nobody's CPU time.
    """
    times = psutil.cpu_times(percpu=True)[core]
    return float(times.user + times.nice + times.system + times.steal)


def own_seconds() -> float:
    """CPU time of this process and of those it has waited for: the bench and its load generator, no running server."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def process_seconds(pid: int) -> float:
    """CPU time of a process, of its threads that have ended too; /proc would give it in steps of 10 ms.

    Raises OSError if there is no such process.
    """
    return time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)


def strays(processes: list[psutil.Process], cores: AbstractSet[int]) -> list[int]:
    """Ids of the threads of `processes` that may run anywhere else than on all of `cores`, or not on all of them."""
    found = []
    for process in processes:
        for entry in Path(f"/proc/{process.pid}/task").iterdir():
            thread_id = int(entry.name)
            try:
                affinity = os.sched_getaffinity(thread_id)
            except ProcessLookupError:
                continue
            if affinity != cores:
                found.append(thread_id)
    return found
