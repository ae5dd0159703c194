"""Runs one version's requests: whatever is ready becomes one run.

A version runs *inline*, on the thread that received its requests, while its runs are short: no hand-over costs
latency, and requests that arrive during a run form the next one. A version whose runs are long, or that may wait for
company, runs on threads of its own, so that it never keeps a receiving thread from other models.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from runtime.batching.plan import BatchLimits, cut, wait_seconds
from runtime.batching.request import Refusal, Request
from runtime.batching.rows import gather, unmergeable
from runtime.errors import Cancelled, DeadlineExceeded, NotReady, Overloaded, RunError, ServingError
from runtime.onnx.dtypes import BY_NAME
from runtime.onnx.session import RunStop, Session
from runtime.onnx.signature import axis_conflict
from runtime.types import ANY

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]

INLINE_LIMIT_NS = 3_000_000  # longer runs keep a receiving thread from other models for too long
SLOW_RUNS = 8  # in a row: single long runs are page faults or a busy machine, eight are the model
RETRY_AFTER_SECONDS = 0.05


class RunTimes:
    """Monotonic nanoseconds: the run's start, inputs ready, outputs ready. `inputs`: what went in, by name."""

    __slots__ = ("gathered_ns", "inputs", "ran_ns", "started_ns")

    def __init__(
        self, started_ns: int, gathered_ns: int, ran_ns: int, inputs: Mapping[str, Array] = MappingProxyType({})
    ) -> None:
        self.started_ns = started_ns
        self.gathered_ns = gathered_ns
        self.ran_ns = ran_ns
        self.inputs = inputs


@dataclass(frozen=True, slots=True)
class Watched:
    """`stopped`: runs ended because nobody waited for them; `inline`: long runs that hold up a receiving thread."""

    stopped: int
    inline: int


class Delivery(Protocol):
    """Where answers go. Called on the thread that ran; each request reaches exactly one of the two, once.

    Neither raises: a request that has been answered must not be refused too.
    """

    def answered(self, requests: Sequence[Request], answers: Sequence[Array], times: RunTimes) -> None: ...

    def refused(self, refusals: Sequence[Refusal]) -> None: ...


class Mark(Protocol):
    """Told what a version's own code is about to do, so that it can be named should the process die of it.

    Several may be under way at once, on any threads: `end` gets what `begin` has answered.
    """

    def begin(self) -> int: ...

    def end(self, begun: int) -> None: ...


class Unmarked:
    """Where nobody asks whose doing it was."""

    def begin(self) -> int:
        return 0

    def end(self, begun: int) -> None:
        pass


class BatchRunner:
    """Bounded by `limits.max_queue_requests`; beyond it requests are refused with Overloaded. Thread-safe."""

    def __init__(
        self,
        name: str,
        session: Session,
        limits: BatchLimits,
        instances: int,
        run_seconds: float,
        delivery: Delivery,
        mark: Mark | None = None,
    ) -> None:
        self.name = name
        self.limits = limits
        self._session = session
        self._signature = session.signature
        self._all_outputs = tuple(range(len(self._signature.outputs)))
        self._output_names = [spec.name for spec in self._signature.outputs]
        self._delivery = delivery
        self._mark = mark if mark is not None else Unmarked()
        self._instances = instances
        self._pending: deque[Request] = deque()
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)
        self._running = 0
        self._closed = False
        self._stopped_all = False
        self._slow_runs = 0
        self._threads: list[threading.Thread] = []
        self._active: dict[int, tuple[RunStop, Sequence[Request], int]] = {}
        if instances > 1 or limits.max_delay_seconds > 0 or run_seconds * 1e9 > INLINE_LIMIT_NS:
            self._dedicate()

    def __repr__(self) -> str:
        mode = "dedicated" if self._threads else "inline"
        return f"<BatchRunner {self.name} {mode} pending={len(self._pending)} running={self._running}>"

    @property
    def pending_requests(self) -> int:
        return len(self._pending)

    @property
    def dedicated(self) -> bool:
        """True if this version runs on threads of its own."""
        return bool(self._threads)

    def submit(self, requests: list[Request]) -> None:
        """Takes requests whose leases are held; may run them, and others', before it returns."""
        refused: list[Request] = []
        with self._lock:
            if self._closed:  # leases forbid it; were it to happen, nobody would answer
                raise RuntimeError(f"{self.name} has been closed")
            room = self.limits.max_queue_requests - len(self._pending)
            if len(requests) > room:
                requests, refused = requests[:room], requests[room:]
            self._pending.extend(requests)
            run_here = not self._threads and self._running < self._instances
            if run_here:
                self._running += 1
            elif self._threads:
                self._ready.notify()
        if refused:
            self._refuse_overload(refused)
        if run_here:
            self._run_inline()

    def close(self) -> None:
        """Ends the version's threads; what still waits is refused."""
        with self._lock:
            self._closed = True
            left = list(self._pending)
            self._pending.clear()
            self._ready.notify_all()
        if left:
            gone = NotReady(f"{self.name} is being unloaded")
            self._delivery.refused([Refusal(request, gone) for request in left])
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=5.0)

    def look_after(self, now_seconds: float, older_than_ns: int) -> Watched:
        """Called now and then: watches the clients of requests that take long, and stops runs that nobody waits for.

        A run is useless when each of its clients is gone or past its deadline.
        """
        before_ns = time.monotonic_ns() - older_than_ns
        stopped = inline = 0
        for stop, requests, started_ns in list(self._active.values()):
            if started_ns >= before_ns:
                continue
            inline += not self._threads
            for request in requests:
                request.watch()
            if all(request.deadline_seconds <= now_seconds or request.abandoned() for request in requests):
                stop.stop()
                stopped += 1
        with self._lock:
            waiting = [request for request in self._pending if request.arrived_ns < before_ns]
        for request in waiting:
            request.watch()
        return Watched(stopped, inline)

    def stop_all_runs(self) -> None:
        self._stopped_all = True
        for stop, _, _ in list(self._active.values()):
            stop.stop()

    def _run_inline(self) -> None:
        while True:
            with self._lock:
                if not self._pending or self._threads:
                    self._running -= 1
                    self._ready.notify()
                    return
                batch = cut(self._pending, self.limits.max_rows)
            self._run(batch)

    def _dedicate(self) -> None:
        for index in range(self._instances):
            thread = threading.Thread(target=self._run_forever, name=f"run {self.name} #{index}", daemon=True)
            thread.start()  # may fail where the system has no more threads; then requests go on running inline
            self._threads.append(thread)

    def _run_forever(self) -> None:
        while True:
            with self._lock:
                while not self._pending and not self._closed:
                    self._ready.wait()
                if self._closed:
                    return
                wait = wait_seconds(self._pending, self.limits, time.monotonic_ns())
                if wait > 0:
                    self._ready.wait(wait)
                    continue
                batch = cut(self._pending, self.limits.max_rows)
                if self._pending:
                    self._ready.notify()  # one wake-up may stand for many requests
            self._run(batch)

    def _run(self, batch: list[Request]) -> None:
        """Never raises: whatever goes wrong becomes a refusal of each request concerned."""
        try:
            batch = self._still_wanted(batch)
            if batch and self._stopped_all:
                raise self._stopped()
            if batch:
                self._run_together(batch)
        except Exception as error:
            failed = error if isinstance(error, ServingError) else RunError("model failed", detail=repr(error))
            self._delivery.refused([Refusal(request, failed) for request in batch])

    def _run_together(self, batch: list[Request]) -> None:
        try:
            answers, times = self._execute(batch)
        except RunError as error:
            if len(batch) == 1:
                self._delivery.refused([Refusal(batch[0], self._cause(batch[0], error))])
            else:  # one client's values may have failed the run: nobody else's request fails for it
                self._run_alone(batch)
            return
        if len(batch) > 1 and unmergeable(batch, answers):
            self._run_alone(batch)
            return
        self._delivery.answered(batch, answers, times)

    def _cause(self, request: Request, error: RunError) -> ServingError:
        """Why a run of `request` alone gave no answer: it was stopped, or the caller's shapes, or else the model."""
        if self._stopped_all:
            return self._stopped()
        waited_ms = (time.monotonic_ns() - request.arrived_ns) / 1e6
        if request.deadline_seconds <= time.time():
            return DeadlineExceeded(
                f"the deadline passed during the run of {self.name}: {waited_ms:.1f} ms after arrival"
            )
        if request.abandoned():
            return Cancelled(f"the client has gone during the run of {self.name}: {waited_ms:.1f} ms after arrival")
        return axis_conflict(self._signature, request.shapes) or error

    def _stopped(self) -> NotReady:
        return NotReady(f"{self.name} is being unloaded, and its run was stopped")

    def _run_alone(self, batch: list[Request]) -> None:
        for request in batch:
            self._run([request])

    def _execute(self, batch: list[Request]) -> tuple[list[Array], RunTimes]:
        started_ns = time.monotonic_ns()
        outputs = batch[0].outputs
        if batch[0].rows == 0 and self.limits.max_rows:
            empty = self._empty_answer(outputs)
            if empty is not None:
                return empty, RunTimes(started_ns, started_ns, time.monotonic_ns())
        feeds = gather(batch, self._signature)
        names = None if outputs == self._all_outputs else [self._output_names[index] for index in outputs]
        stop = RunStop()
        gathered_ns = time.monotonic_ns()
        self._active[id(stop)] = (stop, batch, gathered_ns)
        begun = self._mark.begin()
        try:
            answers = self._session.run(feeds, names, stop)
        finally:
            self._mark.end(begun)
            del self._active[id(stop)]
        ran_ns = time.monotonic_ns()
        if ran_ns - gathered_ns > INLINE_LIMIT_NS:
            self._note_slow_run()
        elif self._slow_runs:
            self._slow_runs = 0
        return answers, RunTimes(started_ns, gathered_ns, ran_ns, feeds)

    def _note_slow_run(self) -> None:
        with self._lock:
            self._slow_runs += 1
            if self._slow_runs >= SLOW_RUNS and not self._threads and not self._closed:
                try:
                    self._dedicate()
                except RuntimeError as error:
                    self._slow_runs = 0
                    log.warning("%s gets no thread of its own: %s", self.name, error)

    def _still_wanted(self, batch: list[Request]) -> list[Request]:
        now_seconds = time.time()
        late = [request for request in batch if request.deadline_seconds <= now_seconds or request.abandoned()]
        if not late:
            return batch
        self._delivery.refused([Refusal(request, self._too_late(request, now_seconds)) for request in late])
        return [request for request in batch if request not in late]

    def _too_late(self, request: Request, now_seconds: float) -> ServingError:
        waited = f"{(time.monotonic_ns() - request.arrived_ns) / 1e6:.1f} ms in the queue of {self.name}"
        if request.deadline_seconds <= now_seconds:
            return DeadlineExceeded(f"the deadline passed after {waited}, before the run")
        return Cancelled(f"the client has gone after {waited}, before the run")

    def _empty_answer(self, outputs: tuple[int, ...]) -> list[Array] | None:
        """No rows in, no rows out; None where an output's other axes are not known without a run."""
        specs = [self._signature.outputs[index] for index in outputs]
        if any(ANY in spec.shape[1:] for spec in specs):
            return None
        return [np.empty((0, *spec.shape[1:]), BY_NAME[spec.datatype].numpy) for spec in specs]

    def _refuse_overload(self, requests: list[Request]) -> None:
        error = Overloaded(
            f"the queue of {self.name} is full: at most {self.limits.max_queue_requests} requests wait "
            "(batching.max_queue_requests); send fewer at once or retry later",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )
        self._delivery.refused([Refusal(request, error) for request in requests])
