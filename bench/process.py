"""One server's life: started on its core, ready, measured, ended with every process it started."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from bench.catalogue import ServerSpec, Site
from bench.cores import pinned, process_seconds
from bench.servers import HOST

START_SECONDS = 60.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.02
REPOSITORY_ROOT = Path(__file__).resolve().parent.parent
FOREIGN_SETTINGS = ("DRIFTGATE_", "OTEL_", "GRPC_", "OMP_")
"""Prefixes of environment variables that would make two machines measure different servers."""


class ServerFailed(Exception):
    """The server did not start, stay or end as it must, or answered wrongly."""


class RunningServer:
    """Its address and its process tree."""

    def __init__(self, process: subprocess.Popen[bytes], site: Site, log_file: Path) -> None:
        self.process = process
        self.port = site.port
        self._log_file = log_file

    def tree(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_seconds(self) -> float:
        """CPU time that the processes now in the tree have used."""
        total = 0.0
        for process in self.tree():
            with suppress(OSError):
                total += process_seconds(process.pid)
        return total

    def check_alive(self) -> None:
        """Raises ServerFailed, with the end of the log, if the server has ended."""
        if self.process.poll() is not None:
            raise ServerFailed(f"ended with {self.process.returncode}: {self.log_tail()}")

    def log_tail(self) -> str:
        return self._log_file.read_text(errors="replace").strip()[-1500:] or "(it wrote nothing)"


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:  # all held at once, so that all differ
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _says_ready(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _await_ready(spec: ServerSpec, server: RunningServer, site: Site, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        server.check_alive()
        if (not spec.has_readyz or _says_ready(site.http_port, spec.ready_path)) and _accepts(site.port):
            return
        if time.monotonic() > deadline:
            raise ServerFailed(f"not ready after {seconds:.0f} s: {server.log_tail()}")
        time.sleep(POLL_SECONDS)


def _stop(server: RunningServer) -> None:
    """Raises ServerFailed if it had to be killed or left a process behind; none is left after either."""
    tree = server.tree()
    server.process.terminate()
    try:
        server.process.wait(STOP_SECONDS)
        complaint = "left processes behind"
    except subprocess.TimeoutExpired:
        complaint = f"did not end within {STOP_SECONDS:.0f} s of SIGTERM"
    _, left = psutil.wait_procs(tree, timeout=1)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=STOP_SECONDS)
    server.process.wait()
    if left:
        raise ServerFailed(f"{complaint}: {[process.pid for process in left]}")


def _destination(spec: ServerSpec, site: Site) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{site.otlp_port}"} if spec.exports else {}


@contextmanager
def running(spec: ServerSpec, site: Site, *cores: int, start_seconds: float = START_SECONDS) -> Iterator[RunningServer]:
    """The server, ready, with its whole tree started on `cores`. Raises ServerFailed."""
    if spec.set_up is not None:
        spec.set_up(site)
    log_file = site.folder / "server.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_SETTINGS)}
    with log_file.open("wb") as log, pinned(*cores):
        process = subprocess.Popen(
            spec.command(site),
            cwd=REPOSITORY_ROOT,
            env=environment | spec.environment | _destination(spec, site),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the bench alone, which then ends the server
        )
    server = RunningServer(process, site, log_file)
    try:
        _await_ready(spec, server, site, start_seconds)
        yield server
    finally:
        _stop(server)
