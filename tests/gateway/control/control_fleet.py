"""A fleet on a socket of its own, and workers at the other end of it: the real link under a script."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from gateway.control.fleet import Fleet
from gateway.link import Link
from gateway.messages import Answer, Desired, Hello, ModelOrder, Progress, Request, VersionReport
from gateway.supervisor.ports import private_listener
from gateway.telemetry.events import EventLog, LogEvent

WAIT_SECONDS = 30.0


@dataclass
class Linked:
    """A fleet that listens at `address`, and what it has emitted."""

    fleet: Fleet
    events: EventLog
    address: str

    async def found(self, name: str) -> LogEvent:
        """The next event of this name; others before it are left out. Waits for it: other threads' doing."""
        taken: list[LogEvent] = []

        def arrived() -> bool:
            taken.extend(self.events.take(1000))
            return any(event.name == name for event in taken)

        for _ in range(round(WAIT_SECONDS / 0.01)):
            if await self.fleet.until(arrived, 0.01):
                break
        return next(event for event in taken if event.name == name)


@asynccontextmanager
async def linked() -> AsyncIterator[Linked]:
    async def answer(request: Request) -> Answer:
        return Answer(id=request.id)

    held = private_listener()
    held.held.setblocking(False)
    events = EventLog()
    fleet = Fleet(held.held, lambda _index, _report: None, answer, events)
    await fleet.start()
    try:
        yield Linked(fleet, events, held.address)
    finally:
        await fleet.stop()
        held.held.close()


class ScriptedWorker:
    """Says of every version it is told to hold that it is available, or of those in `failing` that it is not.

    `breaking`: of these it says nothing. `seen`: versions that it was ever told to hold.
    """

    def __init__(
        self,
        address: str,
        index: int = 0,
        pid: int = 0,
        failing: tuple[int, ...] = (),
        breaking: tuple[int, ...] = (),
        role: Literal["worker", "shadow"] = "worker",
    ) -> None:
        self._index = index
        self._pid = pid or os.getpid()
        self._failing = failing
        self._breaking = breaking
        self._role = role
        self.seen: set[int] = set()
        self.asked = threading.Event()  # to hold any version
        self._draining = False
        self._states: dict[tuple[str, int, int], VersionReport] = {}
        self.orders: tuple[ModelOrder, ...] = ()
        self.link = Link(address, self._greet, self._on_desired)

    def _greet(self) -> list[BaseModel]:
        return [Hello(index=self._index, pid=self._pid, transport="queue", role=self._role), *self._states.values()]

    def _on_desired(self, desired: Desired) -> None:
        self.orders = desired.models
        for model in desired.models:
            of_shadow = self._role == "shadow"
            prepares = model.prepare_on_shadow if of_shadow else model.prepare_on in (-1, self._index)
            for version in (*model.serve, *(model.prepare if prepares else ())):
                self.seen.add(version.version)
                self.asked.set()
                if version.version in self._breaking:
                    continue
                failed = version.version in self._failing
                report = VersionReport(
                    model=model.model, version=version.version, digest=version.digest, generation=version.generation,
                    state="FAILED" if failed else "AVAILABLE", reason="it is broken" if failed else "",
                )  # fmt: skip
                self._states[model.model, version.version, version.generation] = report
                self.link.report(report)
        self.link.report(Progress(revision=desired.revision, settled=True, listening=True, draining=self._draining))

    def drain(self) -> None:
        self._draining = True
        self.link.report(Progress(revision=0, settled=True, listening=True, draining=True))


@contextmanager
def worker_at(
    address: str,
    index: int = 0,
    pid: int = 0,
    failing: tuple[int, ...] = (),
    role: Literal["worker", "shadow"] = "worker",
) -> Iterator[ScriptedWorker]:
    worker = ScriptedWorker(address, index, pid, failing, role=role)
    worker.link.start()
    try:
        yield worker
    finally:
        worker.link.stop()


def main() -> None:
    """A worker's process: `python control_fleet.py ADDRESS INDEX`, until it is ended. The address is in hexadecimal."""
    import sys

    with worker_at(bytes.fromhex(sys.argv[1]).decode(), int(sys.argv[2])):
        threading.Event().wait()


if __name__ == "__main__":
    main()
