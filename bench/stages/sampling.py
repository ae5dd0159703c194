"""Samples of a running worker's stacks, by py-spy; what each thread and process has used of the processor, by the kernel.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from bench.cores import process_seconds
from bench.stages.stacks import Stack, parse

RATE_HZ = 200
"""Each sample stops the worker for some 0.5 ms: more often, it would measure itself."""

START_SECONDS = 1.0
"""Of py-spy, before it samples: it reads the interpreter's symbols."""

REQUEST_THREADS = ("poll ", "run ")
"""What the names of the threads begin with on which requests are taken, run and answered."""


class SamplingRefused(Exception):
    """py-spy is not there, or must not look into the worker."""


def py_spy() -> str:
    """Raises SamplingRefused where it is not installed."""
    found = shutil.which("py-spy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        raise SamplingRefused("py-spy is not installed: pip install 'driftgate[bench]'")
    return found


class Sampling:
    """Of process `pid`, for `seconds` from its making on."""

    def __init__(self, pid: int, seconds: float, folder: Path) -> None:
        self._file = folder / f"stacks-{pid}.txt"
        command = [py_spy(), "record", "--pid", str(pid), "--format", "raw", "--output", str(self._file)]
        # A thread that waits is left out, by the kernel's word for it.
        command += ["--rate", str(RATE_HZ), "--duration", str(round(seconds)), "--threads", "--function"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def stacks(self) -> list[Stack]:
        """Waits for its end. Raises SamplingRefused."""
        try:
            said, _ = self._process.communicate(timeout=120)
        except BaseException:
            self._process.kill()
            self._process.communicate()
            raise
        if self._process.returncode or not self._file.exists():
            raise SamplingRefused(
                f"py-spy cannot look into the worker, which takes ptrace: run this as root, or in a container that has "
                f"the capability SYS_PTRACE. It said: {said.strip()[-500:]}"
            )
        return parse(self._file.read_text())


@dataclass(frozen=True, slots=True)
class Clocks:
    """Seconds of the processor: of the worker's request threads, of them in the kernel (in ticks of 10 ms), of the
    worker's other threads, and of the other processes by their module (`gateway`: the supervisor).
    """

    request_threads: float
    request_threads_kernel: float
    other_threads: float
    processes: dict[str, float]

    def since(self, earlier: Clocks) -> Clocks:
        return Clocks(
            self.request_threads - earlier.request_threads,
            self.request_threads_kernel - earlier.request_threads_kernel,
            self.other_threads - earlier.other_threads,
            {name: seconds - earlier.processes.get(name, 0.0) for name, seconds in self.processes.items()},
        )


def worker_of(tree: list[psutil.Process]) -> int:
    """The process id of the one worker in a server's tree. Raises SamplingRefused where there is none, or more."""
    workers = [process.pid for process in tree if _module(process) == "gateway.worker"]
    if len(workers) != 1:
        raise SamplingRefused(f"one worker was to be sampled, and there are {len(workers)}")
    return workers[0]


def thread_names(pid: int) -> dict[int, str]:
    """Python's names of the threads by id; the kernel does not know them before Python 3.14, so py-spy says them."""
    done = subprocess.run(
        [py_spy(), "dump", "--pid", str(pid)], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        raise SamplingRefused(f"py-spy cannot look into the worker: {done.stderr.strip()[-500:]}")
    names = {}
    for line in done.stdout.splitlines():
        if line.startswith("Thread "):  # Thread 27059 (active): "poll #0"
            ident, _, name = line.removeprefix("Thread ").partition(" ")
            names[int(ident, 0)] = name.partition('"')[2].rstrip('"')
    return names


def read_clocks(tree: list[psutil.Process], worker: int, names: dict[int, str]) -> Clocks:
    tick_seconds = 1 / os.sysconf("SC_CLK_TCK")
    request = kernel = other = 0.0
    for task in Path(f"/proc/{worker}/task").iterdir():
        seconds = int((task / "schedstat").read_text().split()[0]) / 1e9
        if names.get(int(task.name), "").startswith(REQUEST_THREADS):
            request += seconds
            # fields 14 and 15 of proc_pid_stat(5), counted from behind the command's closing bracket
            kernel += int((task / "stat").read_text().rpartition(")")[2].split()[12]) * tick_seconds
        else:
            other += seconds
    processes = {_module(process): process_seconds(process.pid) for process in tree if process.pid != worker}
    return Clocks(request, kernel, other, processes)


def _module(process: psutil.Process) -> str:
    command = process.cmdline()
    return command[command.index("-m") + 1] if "-m" in command else process.name()
