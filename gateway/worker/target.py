"""A loaded version with all that answering for it needs: what the route table leads to."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

from gateway.errors import Status, status_of
from gateway.routing.table import DEFAULT, Routing
from gateway.telemetry.context import BACK, Tracer, log_fields
from gateway.telemetry.recorder import NOBODY, Recorder
from gateway.wire.decode import Decoder
from gateway.wire.encode import Encoder
from gateway.worker.copies import Copier
from gateway.worker.observer import VersionObserver
from gateway.worker.transport.interface import Call, Headers
from runtime.batching.request import Refusal, Request
from runtime.batching.runner import RunTimes
from runtime.errors import Cancelled, DeadlineExceeded
from runtime.shm.record_layout import Reason
from runtime.shm.statistics import SlotWriter
from runtime.versions.version import LoadedVersion

log = logging.getLogger(__name__)

ANSWERED_BY = "driftgate-answered-by"
"""The header of an answer: version, digest and, where a route or a name decided, variant and reason.

One header, as an Item with parameters of RFC 9651: for each header of a reply the C-core takes one to two microseconds.
"""
ROUTINGS_KEPT = 256  # more than a model has at a time; names of routes that are gone make room


def with_context(status: Status, call: Call, tracer: Tracer | None) -> Status:
    """With the trace context among the trailers, of a call that has one."""
    if tracer is None or call.trace is None:
        return status
    call.trace = trace = tracer.whole(call.trace)
    return status.with_trailers(trace.trailers)


class Target:
    """Decodes for, submits to and delivers from one version (it is the version's Delivery)."""

    def __init__(
        self,
        version: LoadedVersion,
        counters: SlotWriter,
        on_done: Callable[[int], None],
        recorder: Recorder | None = None,
        observer: VersionObserver | None = None,
    ) -> None:
        configured = version.manifest.batching.max_batch_size
        self.version = version
        self.copiers: tuple[Copier, ...] = ()
        self.decoder = Decoder(version.signature, version.max_rows, configured or 0)
        self._encoder = Encoder(version.model, version.version, version.signature)
        # Bytes: the C-core takes them as they are, and would have text encoded for each reply.
        self._answered_by = b'%d;digest="%s"' % (version.version, version.digest.encode())
        self._headers: Headers = ((ANSWERED_BY.encode(), self._answered_by),)
        self._headers_of: dict[Routing, Headers] = {}
        self._counters = counters
        self._on_done = on_done
        self._recorder = recorder
        self._observer = observer
        self._subject = NOBODY
        if recorder is not None:
            self._subject = recorder.subject(version.model, version.version, version.digest)
        self._tracer = recorder.tracer if recorder is not None else None
        self._responds = self._tracer is not None and self._tracer.responds

    def __repr__(self) -> str:
        return f"<Target {self.version!r}>"

    def submit(self, requests: list[Request]) -> bool:
        """False if the version has been retired since it was found: route again."""
        if not self.version.leases.take(len(requests)):
            return False
        runner = self.version.runner
        if runner is None:
            self.version.leases.give_back(len(requests))
            return False
        runner.submit(requests)
        return True

    def answered(self, requests: Sequence[Request], answers: Sequence[npt.NDArray[Any]], times: RunTimes) -> None:
        try:
            responses = self._encoder.encode(requests, answers)
        except Exception as error:
            self._refuse_all(requests, status_of(error, self.version.name))
            return
        headers: Headers = self._headers
        routing = DEFAULT
        for request, response in zip(requests, responses, strict=True):
            if request.routing is not routing:
                routing = request.routing
                headers = self._headers_of.get(routing) or self._headers_with(routing)
            call = request.owner
            trace = call.trace
            if isinstance(trace, bytes):
                call.answer(response, (*headers, (BACK, trace)) if self._responds else headers)
            else:
                call.answer(response, headers if trace is None else (*headers, *trace.headers))
        replied_ns = time.monotonic_ns()
        rows = sum([request.rows for request in requests])
        if self._observer is not None:  # under the leases: a version ends after the last of its runs was seen
            self._observer.observe(times.inputs, requests[0].outputs, answers, rows)
        self._end(len(requests))
        try:
            self._count(requests, rows, times, replied_ns)
            if self._recorder is not None:
                self._recorder.answered(self._subject, requests, rows, responses, times, replied_ns)
        except Exception:
            log.exception("a run of %s could not be counted", self.version.name)
        for copier in self.copiers:
            copier.offer(requests, answers, times)

    def _headers_with(self, routing: Routing) -> Headers:
        """All but the trace context, of a routing that was not met before."""
        variant = routing.variant.replace("\\", "\\\\").replace('"', '\\"').encode()
        reason = Reason(routing.reason).name.lower().encode()
        if len(self._headers_of) >= ROUTINGS_KEPT:
            self._headers_of = {}
        value = b'%s;variant="%s";reason=%s' % (self._answered_by, variant, reason)
        made = self._headers_of[routing] = ((ANSWERED_BY.encode(), value),)
        return made

    def _count(self, requests: Sequence[Request], rows: int, times: RunTimes, replied_ns: int) -> None:
        """After the replies have been handed over."""
        arrived = sum([request.arrived_ns for request in requests])
        decoded = sum([request.decoded_ns for request in requests])
        count = len(requests)
        self._counters.add_run(
            count,
            rows,
            count * replied_ns - arrived,
            count * times.started_ns - decoded,
            times.gathered_ns - times.started_ns,
            times.ran_ns - times.gathered_ns,
            replied_ns - times.ran_ns,
            int(time.time() * 1000),
        )

    def refused(self, refusals: Sequence[Refusal]) -> None:
        for refusal in refusals:
            fields = log_fields(refusal.request.owner.trace)
            self._refuse_all([refusal.request], status_of(refusal.error, self.version.name, fields), refusal.error)

    def refuse_misfit(self, call: Call, status: Status, routing: Routing, size_bytes: int) -> None:
        """A request that was routed here and is not one that this version can take. It holds no lease."""
        call.refuse(with_context(status, call, self._tracer))
        self._counters.add_failures(1, time.monotonic_ns() - call.received_ns, cancelled=False)
        if self._recorder is not None:
            try:
                self._recorder.refused(call, status, size_bytes, None, self._subject, routing)
            except Exception:
                log.exception("a refused request of %s could not be recorded", self.version.name)

    def _refuse_all(self, requests: Sequence[Request], status: Status, error: Exception | None = None) -> None:
        for request in requests:
            call = request.owner
            call.refuse(with_context(status, call, self._tracer))
        self._end(len(requests))
        now_ns = time.monotonic_ns()
        total_ns = sum(now_ns - request.arrived_ns for request in requests)
        self._counters.add_failures(len(requests), total_ns, cancelled=isinstance(error, (Cancelled, DeadlineExceeded)))
        if self._recorder is not None:
            try:
                for request in requests:
                    self._recorder.refused(request.owner, status, request.size_bytes, request, self._subject)
            except Exception:
                log.exception("refused requests of %s could not be recorded", self.version.name)

    def _end(self, count: int) -> None:
        self.version.leases.give_back(count)
        self._on_done(count)
