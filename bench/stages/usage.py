"""What a server's threads and processes have used of the processor, by the kernel; and the stages of one's worker."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from bench.cores import process_seconds
from bench.process import ServerFailed
from bench.stages.clocks import Reading, read

READING_SECONDS = 10.0
WORKER = "gateway.worker"


@dataclass(frozen=True, slots=True)
class ThreadTime:
    """ns of the processor; ns that it waited for one while it could have run."""

    ran_ns: int
    waited_ns: int


@dataclass(frozen=True, slots=True)
class Usage:
    """`threads`: of the worker, by id; `processes`: seconds of the processor by module (`gateway`: the supervisor)."""

    threads: dict[str, ThreadTime]
    processes: dict[str, float]

    def since(self, earlier: Usage) -> Usage:
        none = ThreadTime(0, 0)
        threads = {}
        for name, now in self.threads.items():
            then = earlier.threads.get(name, none)
            threads[name] = ThreadTime(now.ran_ns - then.ran_ns, now.waited_ns - then.waited_ns)
        return Usage(threads, {name: now - earlier.processes.get(name, 0.0) for name, now in self.processes.items()})


def usage_of(tree: list[psutil.Process]) -> Usage:
    threads = {}
    for task in Path(f"/proc/{worker_of(tree)}/task").iterdir():
        ran_ns, waited_ns, _ = map(int, (task / "schedstat").read_text().split())
        threads[task.name] = ThreadTime(ran_ns, waited_ns)
    return Usage(threads, {_module(process): process_seconds(process.pid) for process in tree})


def worker_of(tree: list[psutil.Process]) -> int:
    """The process id of the one worker in a server's tree. Raises ServerFailed where there is none, or more."""
    workers: list[int] = [process.pid for process in tree if _module(process) == WORKER]
    if len(workers) != 1:
        raise ServerFailed(f"one worker was to be looked into, and there are {len(workers)}")
    return workers[0]


def reading_of(worker: int, file: Path) -> Reading:
    """Raises ServerFailed where the worker has no stage clocks."""
    file.unlink(missing_ok=True)
    os.kill(worker, signal.SIGUSR1)
    deadline = time.monotonic() + READING_SECONDS
    while not file.exists():
        if time.monotonic() > deadline:
            raise ServerFailed("the worker did not write what its stages took")
        time.sleep(0.005)
    return read(file.read_text())


def _module(process: psutil.Process) -> str:
    command: list[str] = process.cmdline()
    return command[command.index("-m") + 1] if "-m" in command else str(process.name())
