"""Memory of a process tree: each process's proportional part of what is mapped (PSS), read now and then from outside.

Usage: python -m bench.matrix.memory PID EVERY_SECONDS; prints a line of JSON a look until its standard input ends.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import psutil  # type: ignore[import-untyped]

ROLES = ("worker", "control", "shadow")
STOP_SECONDS = 10.0
NICE = 10  # of who looks: it must not hold up the load, whose core it shares


@dataclass(frozen=True, slots=True)
class Look:
    """On the monotonic clock; `pss_bytes`: by what the processes are for."""

    seconds: float
    pss_bytes: dict[str, int]

    @property
    def total_bytes(self) -> int:
        return sum(self.pss_bytes.values())


def role_of(command: list[str]) -> str:
    """Of a process of driftgate's, by its command line."""
    for role in ROLES:
        if f"gateway.{role}" in command:
            return role
    return "supervisor"


def look(root: int) -> Look:
    """At the tree that `root` is the first process of."""
    by_role: dict[str, int] = {}
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(root)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, OSError):
                role = role_of(each.cmdline())
                by_role[role] = by_role.get(role, 0) + _pss_bytes(each.pid)
    return Look(time.monotonic(), by_role)


def _pss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


class Looks:
    """What a watcher has seen, once it has ended."""

    def __init__(self) -> None:
        self.taken: list[Look] = []


@contextmanager
def watched(root: int, every_seconds: float) -> Iterator[Looks]:
    """By a process of its own, on the core of the thread that starts it."""
    command = [sys.executable, "-m", "bench.matrix.memory", str(root), str(every_seconds)]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    looks = Looks()
    try:
        yield looks
        text, _ = watcher.communicate(timeout=STOP_SECONDS)
        looks.taken = [Look(**json.loads(line)) for line in text.splitlines()]
    finally:
        if watcher.poll() is None:
            watcher.kill()
            watcher.communicate()


def slope_bytes_per_minute(looks: list[Look]) -> float:
    """Of the straight line through the totals of all looks but the first tenth; 0 of fewer than three."""
    settled = looks[len(looks) // 10 :]
    if len(settled) < 3:
        return 0.0
    minutes = np.array([each.seconds for each in settled]) / 60
    totals = np.array([each.total_bytes for each in settled], np.float64)
    return float(np.polyfit(minutes - minutes[0], totals, 1)[0])


def growth(looks: list[Look]) -> float:
    """The median of the last quarter to that of the second; 1 where there are too few looks."""
    quarter = len(looks) // 4
    if not quarter:
        return 1.0
    return median(each.total_bytes for each in looks[-quarter:]) / median(
        each.total_bytes for each in looks[quarter : 2 * quarter]
    )


def main() -> None:
    os.nice(NICE)
    root, every_seconds = int(sys.argv[1]), float(sys.argv[2])
    while True:
        seen = look(root)
        print(json.dumps({"seconds": seen.seconds, "pss_bytes": seen.pss_bytes}), flush=True)
        if select.select([sys.stdin], [], [], every_seconds)[0]:
            return


if __name__ == "__main__":
    main()
