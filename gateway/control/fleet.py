"""The workers as control sees them: what each holds, and how to tell all of them what they should.

The process that answers copies is told the same, and is kept apart: nothing that clients wait for waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from gateway.messages import (
    FROM_WORKER,
    LENGTH,
    Answer,
    ComparisonReport,
    Desired,
    Hello,
    ModelOrder,
    Progress,
    ReplayOrder,
    ReplayReport,
    Request,
    VersionReport,
    frame,
    frame_length,
    same_user,
)
from gateway.telemetry.events import (
    LOAD_FAILED,
    SHADOW_DIED,
    SHADOW_LOAD_FAILED,
    SHADOW_RESTARTED,
    WORKER_DIED,
    WORKER_RESTARTED,
    EventLog,
)
from runtime.versions.policy import InstanceKey
from runtime.versions.state import VersionState

log = logging.getLogger(__name__)

MAX_UNSENT_BYTES = 256 * 1024 * 1024  # to one worker that does not read; then its connection is dropped
END_SECONDS = 5.0  # for a worker whose link ended to end itself; else only the link was lost

OnReport = Callable[[int, VersionReport], None]
OnRequest = Callable[[Request], Awaitable[Answer]]
OnComparison = Callable[[ComparisonReport], None]
OnReplayed = Callable[[ReplayReport], None]


@dataclass(slots=True)
class WorkerView:
    """One connected worker, or the process that answers copies (`is_shadow`). `told`: failures that the same process
    reported on a link before this one.
    """

    index: int
    pid: int
    transport: str
    writer: asyncio.StreamWriter
    reports: dict[InstanceKey, VersionReport] = field(default_factory=dict)
    told: frozenset[InstanceKey] = frozenset()
    revision: int = 0
    settled: bool = False
    listening: bool = False
    draining: bool = False
    is_shadow: bool = False

    @property
    def state(self) -> str:
        if self.draining:
            return "draining"
        if self.listening:
            return "serving"
        return "starting"

    def failures(self) -> frozenset[InstanceKey]:
        failed = VersionState.FAILED.name
        return self.told | {key for key, report in self.reports.items() if report.state == failed}

    def forget_failures(self, ordered: set[InstanceKey]) -> None:
        """Drops what is no longer asked for: a worker forgets such a failure without a word."""
        failed = VersionState.FAILED.name
        self.reports = {key: r for key, r in self.reports.items() if r.state != failed or key in ordered}
        self.told &= ordered


class Fleet:
    """Single-threaded: everything runs on control's event loop."""

    def __init__(
        self, listener: socket.socket, on_report: OnReport, on_request: OnRequest, events: EventLog | None = None
    ) -> None:
        self._listener = listener
        self._on_report = on_report
        self._on_request = on_request
        self._events = events if events is not None else EventLog()
        self.on_end: Callable[[], Awaitable[None]] | None = None  # a process has ended without having been told to
        self.workers: dict[int, WorkerView] = {}
        self.shadow: WorkerView | None = None
        self.on_comparison: OnComparison | None = None
        self.on_replayed: OnReplayed | None = None
        self._past: dict[int, WorkerView] = {}  # the last one of each index
        self._past_shadow: WorkerView | None = None
        self._orders: tuple[ModelOrder, ...] | None = None  # until the first, workers keep what they have
        self._revision = time.time_ns()  # larger than any before a restart of control
        self._holding = True
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, sock=self._listener)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for worker in self._all():
            worker.writer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def order(self, orders: Iterable[ModelOrder], *, hold: bool = False) -> int:
        """Tells every process; those that connect later hear the same. Answers the revision."""
        self._orders = tuple(orders)
        self._holding = hold
        self._revision += 1
        ordered = {
            InstanceKey(order.model, version.version, version.digest, version.generation)
            for order in self._orders
            for version in (*order.serve, *order.prepare)
        }
        for worker in self._all():
            worker.forget_failures(ordered)
            self._send(worker, self._desired(self._orders))
        return self._revision

    async def until(self, condition: Callable[[], bool], timeout_seconds: float) -> bool:
        """Waits for a worker's news to make `condition` true; False if the time passed first."""
        try:
            async with asyncio.timeout(timeout_seconds), self._changed:
                await self._changed.wait_for(condition)
        except TimeoutError:
            return condition()
        return True

    def reports_of(self, key: InstanceKey) -> dict[int, VersionReport]:
        return {index: worker.reports[key] for index, worker in self.workers.items() if key in worker.reports}

    def all_at(self, revision: int) -> bool:
        return all(worker.revision >= revision for worker in self.workers.values())

    @property
    def has_had_shadow(self) -> bool:
        """Whether a shadow process has ever been there: if it is not now, it will be again."""
        return self._past_shadow is not None

    def replay(self, order: ReplayOrder) -> None:
        """Told to the process that answers copies, if it is there; the report comes to `on_replayed`."""
        if self.shadow is not None:
            self._send(self.shadow, order)

    def _all(self) -> list[WorkerView]:
        return [*self.workers.values(), *([self.shadow] if self.shadow is not None else [])]

    def _desired(self, orders: tuple[ModelOrder, ...]) -> Desired:
        return Desired(revision=self._revision, models=orders, hold=self._holding)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection: socket.socket = writer.get_extra_info("socket")
        if not same_user(connection):
            log.warning("a connection from another user to the workers' socket was refused")
            writer.close()
            return
        worker: WorkerView | None = None
        try:
            while True:
                head = await reader.readexactly(LENGTH.size)
                message = FROM_WORKER.validate_json(await reader.readexactly(frame_length(head)))
                if isinstance(message, Hello):
                    worker = self._greeted(message, writer)
                    if self._orders is not None:
                        self._send(worker, self._desired(self._orders))
                elif worker is not None:
                    self._take(worker, message)
                async with self._changed:
                    self._changed.notify_all()
        except (asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
            log.debug("the link to a worker ended: %r", error)
            if worker is not None and not worker.draining:
                self._start(self._tell_end(worker))
        finally:
            if worker is not None and worker is self.shadow:
                self.shadow = None
            elif worker is not None and self.workers.get(worker.index) is worker:
                del self.workers[worker.index]
            writer.close()
            async with self._changed:
                self._changed.notify_all()

    def _take(self, worker: WorkerView, message: BaseModel) -> None:
        if isinstance(message, VersionReport):
            self._reported(worker, message)
        elif isinstance(message, Progress):
            worker.revision = message.revision
            worker.settled = message.settled
            worker.listening = message.listening
            worker.draining = message.draining
        elif isinstance(message, Request):
            self._start(self._answer(worker, message))
        elif isinstance(message, ComparisonReport) and self.on_comparison is not None:
            self.on_comparison(message)
        elif isinstance(message, ReplayReport) and self.on_replayed is not None:
            self.on_replayed(message)

    def _reported(self, worker: WorkerView, report: VersionReport) -> None:
        key = InstanceKey(report.model, report.version, report.digest, report.generation)
        if report.state == VersionState.FAILED.name and key not in worker.failures():
            self._tell_failure(worker, report)
        if report.state == VersionState.UNLOADED.name:
            worker.reports.pop(key, None)
        else:
            worker.reports[key] = report
        if not worker.is_shadow:
            self._on_report(worker.index, report)

    def _tell_failure(self, worker: WorkerView, report: VersionReport) -> None:
        facts: dict[str, str | int] = {
            "model": report.model,
            "version": report.version,
            "digest": report.digest,
            "error": report.reason,
        }
        if worker.is_shadow:
            self._events.emit(SHADOW_LOAD_FAILED, **facts)
        else:
            self._events.emit(LOAD_FAILED, **facts, worker=worker.index)

    def _greeted(self, hello: Hello, writer: asyncio.StreamWriter) -> WorkerView:
        is_shadow = hello.role == "shadow"
        worker = WorkerView(hello.index, hello.pid, hello.transport, writer, is_shadow=is_shadow)
        past = self._past_shadow if is_shadow else self._past.get(hello.index)
        if past is not None and past.pid == hello.pid:
            worker.told = past.failures()
        elif past is not None and is_shadow:
            self._events.emit(SHADOW_RESTARTED, pid=hello.pid, previous_pid=past.pid)
        elif past is not None:
            self._events.emit(WORKER_RESTARTED, worker=hello.index, pid=hello.pid, previous_pid=past.pid)
        if is_shadow:
            self.shadow = self._past_shadow = worker
        else:
            self.workers[hello.index] = self._past[hello.index] = worker
        return worker

    async def _tell_end(self, worker: WorkerView) -> None:
        """A process closes its links before it has ended, and may also lose one and live on."""
        if await ended(worker.pid, END_SECONDS):
            if worker.is_shadow:
                self._events.emit(SHADOW_DIED, pid=worker.pid)
            else:
                self._events.emit(WORKER_DIED, worker=worker.index, pid=worker.pid)
            if self.on_end is not None:
                await self.on_end()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, worker: WorkerView, request: Request) -> None:
        self._send(worker, await self._on_request(request))

    def _send(self, worker: WorkerView, message: BaseModel) -> None:
        if worker.writer.is_closing():
            return
        if worker.writer.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            who = "the shadow process" if worker.is_shadow else f"worker {worker.index}"
            log.warning("%s does not read its orders; its connection is dropped", who)
            worker.writer.close()
            return
        worker.writer.write(frame(message))


async def ended(pid: int, timeout_seconds: float) -> bool:
    """Waits for a process of this machine to end; False if it still runs after the timeout."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError as error:  # no descriptor is left: nobody can tell
        log.warning("whether process %d has ended cannot be found out: %s", pid, error.strerror)
        return False
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(pidfd, over.set)
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), timeout_seconds)
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    return over.is_set()
