"""Why a process ended: by what it did itself, or because somebody ended it from outside.

The kernel ends a process that uses too much memory by the signal that an operator uses, too. Its own count of such ends
tells them apart.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from pathlib import Path

from gateway.supervisor.restart import REFUSED

FROM_OUTSIDE = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
"""Nothing in a process sends them to itself by mistake; SIGKILL needs a closer look."""

CGROUP = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")


class OutOfMemory:
    """How often the kernel has ended a process of this control group for want of memory."""

    def __init__(self, files: Iterable[Path] | None = None) -> None:
        self._files = tuple(files) if files is not None else _event_files(CGROUP, CGROUPS)
        self._seen = self._read()

    def grew(self) -> bool:
        """True if it has since the last time this was asked. False where the system does not count."""
        before, self._seen = self._seen, self._read()
        return self._seen > before

    def _read(self) -> int:
        return sum(_oom_kills(file) for file in self._files)


def by_itself(status: int, *, out_of_memory: bool) -> bool:
    """Whether a process that nobody told to end did so by what it did. `status` as Child.reap gives it."""
    if status >= 0:
        return status not in (0, REFUSED)
    return out_of_memory if -status == signal.SIGKILL else -status not in FROM_OUTSIDE


def _event_files(own: Path, root: Path) -> tuple[Path, ...]:
    """Version 2 of control groups has one tree; version 1 one for memory."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux
        return ()
    files: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            tree, name = root, "memory.events"
        elif "memory" in controllers.split(","):
            tree, name = root / "memory", "memory.oom_control"
        else:
            continue
        places = (tree / path.lstrip("/") / name, tree / name)  # a container may see its own group as the root
        files += [place for place in places if place.is_file()][:1]
    return tuple(files)


def _oom_kills(file: Path) -> int:
    try:
        for line in file.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except (OSError, ValueError):  # the group may be taken away; then nothing is known, and nothing is claimed
        pass
    return 0
