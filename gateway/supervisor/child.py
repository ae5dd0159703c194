"""One supervised process: started from orders, watched by a pidfd, ended by a signal to its own pid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gateway.process import ENVIRONMENT, Spawn
from gateway.supervisor.log_relay import LogRelay
from gateway.supervisor.restart import History
from runtime.shm.segment import Segment


class Child:
    """`page`: where it marks which versions' code it is in, if it runs any."""

    def __init__(
        self, name: str, module: str, environment: Mapping[str, str] | None = None, page: Segment | None = None
    ) -> None:
        self.name = name
        self.page = page
        self._module = module
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.pidfd = -1
        self.history = History()
        self.restart_at: float | None = None

    def __repr__(self) -> str:
        return f"<Child {self.name} pid={self.pid} ends={self.history.ends}>"

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self, orders: Spawn, fds: Sequence[int], now: float, relay: LogRelay) -> None:
        """Raises OSError where the system has no room for another process."""
        environment = {**self._environment, **os.environ, ENVIRONMENT: orders.model_dump_json()}
        command = [sys.executable, "-P", "-m", self._module]
        with relay.pipe(self.name) as lines:
            self._process = subprocess.Popen(
                command, env=environment, pass_fds=tuple(fds), stdin=subprocess.DEVNULL, stderr=lines
            )
        try:
            self.pidfd = os.pidfd_open(self._process.pid)
        except OSError:
            self._process.kill()
            self._process.wait()
            self._process = None
            raise
        self.history = replace(self.history, started_at=now)
        self.restart_at = None

    def reap(self) -> int:
        """The exit status of a process that has ended; negative: by that signal."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        status = self._process.wait()
        os.close(self.pidfd)
        self.pidfd = -1
        self._process = None
        return status

    def terminate(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
