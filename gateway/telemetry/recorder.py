"""A worker's records: every request, answered or refused, leaves one after its reply.

Packing is a few microseconds a request; counting and publishing is one kernel call a run. Nothing here waits: a full
ring drops the record and counts it.
"""

from __future__ import annotations

import itertools
import logging
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gateway.errors import Status
from gateway.routing.table import NOT_ROUTED, Routing
from gateway.telemetry.context import Trace, Tracer
from gateway.telemetry.peers import Peers
from runtime.batching.request import Request
from runtime.batching.runner import RunTimes
from runtime.shm.publish import KEEP_ALL, KEEP_ERRORS, KEEP_NONE, KEEP_SAMPLED, publish
from runtime.shm.record import PACKED, RECORD, RECORD_BYTES, REQUEST_ID_BYTES
from runtime.shm.ring import NameWriter, RingView
from runtime.shm.series import SeriesKey, SeriesWriter

log = logging.getLogger(__name__)

REQUESTED_MODEL, REFUSAL_MESSAGE = 0, 1
"""Numbers of the attributes every record may carry; those of the configuration follow."""
FIXED_KEYS = ("driftgate.request.model", "driftgate.refusal.message")

FIRST_SCRATCH = 64  # records; it grows to the largest run
MAX_AUTHORITIES = 64  # distinct :authority values that are told apart; the rest have none
MAX_REMEMBERED = 8192
LARGEST = 0xFFFFFFFF
NO_TRACE = Trace(b"", b"", 0, ())


class Recorded(Protocol):
    """What a record takes from a Call."""

    received_ns: int
    trace: Trace | None

    @property
    def authority(self) -> str: ...
    @property
    def streamed(self) -> bool: ...
    def peer(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Subject:
    """A version as the records name it: `number` stands in the ring's table of names."""

    model: str
    version: int
    number: int


NOBODY = Subject("", 0, 0)
"""The subject of requests that never reached a version."""


def keep_bits(*, spans: bool, access_log: str) -> int:
    """`access_log`: off, errors, sampled or all (which of a sample are shown is decided by its reader)."""
    wanted = {"off": KEEP_NONE, "errors": KEEP_ERRORS}.get(access_log, KEEP_ALL)
    return wanted | (KEEP_SAMPLED if spans else KEEP_NONE)


class Recorder:
    """Thread-safe. `tracer` None: requests have no ids, and replies no context.

    `authority`: HOST:PORT of this server, for requests whose own is not known.
    """

    def __init__(
        self, ring: RingView, series: SeriesWriter, tracer: Tracer | None, keep: int, authority: str = ""
    ) -> None:
        self.tracer = tracer
        self._ring = ring
        self._names = NameWriter(ring)
        self._series_page = series
        self._keep = keep
        self._lock = threading.Lock()
        self._peers = Peers()
        self._runs = itertools.count(1)  # without a tracer: only told apart from the runs beside them
        self._authorities = {"": self._names.number("authority", authority) if authority else 0}
        self._numbers: dict[tuple[Subject, Routing, int, str], tuple[int, int, int, int]] = {}
        self._grow(FIRST_SCRATCH)

    def subject(self, model: str, version: int, digest: str) -> Subject:
        with self._lock:
            return Subject(model, version, self._names.number("target", model, str(version), digest))

    def answered(
        self, subject: Subject, requests: Sequence[Request], sizes: Sequence[int], times: RunTimes, replied_ns: int
    ) -> None:
        """One run's requests, in its order; `sizes`: bytes of each response."""
        rows = sum([request.rows for request in requests])
        count = len(requests)
        run_id = self.tracer.new_id()[1] if self.tracer is not None else struct.pack("=Q", next(self._runs))
        unix_ns = time.time_ns() - time.monotonic_ns()
        started_ns, gathered_ns, ran_ns = times.started_ns, times.gathered_ns, times.ran_ns
        with self._lock:
            if count > self._room:
                self._grow(count)
            scratch, pack, peers = self._scratch, PACKED.pack_into, self._peers.find
            offset = 0
            for request, size in zip(requests, sizes, strict=True):
                call: Recorded = request.owner
                received_ns = call.received_ns
                trace = call.trace or NO_TRACE
                variant, series, reason, _ = self._number(subject, request.routing, 0, "")
                family, port, address = peers(call.peer())
                identity = request.id.encode() if request.id else b""
                pack(
                    scratch, offset,
                    trace.trace_id, trace.span_id, trace.parent_id, run_id,
                    received_ns + unix_ns, request.decoded_ns - received_ns, request.queued_ns - received_ns,
                    started_ns - received_ns, gathered_ns - received_ns, ran_ns - received_ns,
                    replied_ns - received_ns,
                    subject.number, series, request.rows, rows, count, request.size_bytes, size,
                    variant, self._authority(call.authority), 0, port,
                    0, reason, trace.flags,
                    trace.marks | call.streamed << 1 | (len(identity) > REQUEST_ID_BYTES) << 2,
                    family, min(len(identity), REQUEST_ID_BYTES), trace.state_bytes, trace.extra_bytes,
                    b"", address, identity, trace.text,
                )  # fmt: skip
                offset += RECORD_BYTES
            self._publish(count)

    def refused(
        self, call: Recorded, status: Status, size_bytes: int, request: Request | None = None, subject: Subject = NOBODY
    ) -> None:
        """A request that got `status`; `request` as far as it was read."""
        now_ns = time.monotonic_ns()
        unix_ns = time.time_ns() - now_ns
        received_ns = call.received_ns
        trace = call.trace or Trace(b"", b"", 0, ())
        if trace.sampled or self._keep & (KEEP_ERRORS | KEEP_ALL):
            trace.add(REFUSAL_MESSAGE, status.message)
        decoded_ns = queued_ns = rows = 0
        identity = b""
        routing = NOT_ROUTED
        if request is not None:
            routing, rows, identity = request.routing or NOT_ROUTED, request.rows, request.id.encode()
            decoded_ns = max(request.decoded_ns - received_ns, 0)
            queued_ns = max(request.queued_ns - received_ns, 0)
        family, port, address = self._peers.find(call.peer())
        with self._lock:
            variant, series, reason, refusal = self._number(subject, routing, status.code, status.reason)
            PACKED.pack_into(
                self._scratch, 0,
                trace.trace_id, trace.span_id, trace.parent_id, b"",
                received_ns + unix_ns, decoded_ns, queued_ns, 0, 0, 0, now_ns - received_ns,
                subject.number, series, min(rows, LARGEST), 0, 0, min(size_bytes, LARGEST), 0,
                variant, self._authority(call.authority), refusal, port,
                status.code, reason, trace.flags,
                trace.marks | call.streamed << 1 | (len(identity) > REQUEST_ID_BYTES) << 2,
                family, min(len(identity), REQUEST_ID_BYTES), trace.state_bytes, trace.extra_bytes,
                b"", address, identity, trace.text,
            )  # fmt: skip
            self._publish(1)

    def _publish(self, count: int) -> None:
        page, ring = self._series_page, self._ring
        publish(self._records, self._words, count, page.header, page.rows, ring.words, ring.records, self._keep)

    def _number(self, subject: Subject, routing: Routing, code: int, refusal: str) -> tuple[int, int, int, int]:
        """Numbers of variant, series, reason and refusal."""
        key = (subject, routing, code, refusal)
        known = self._numbers.get(key)
        if known is None:
            if len(self._numbers) >= MAX_REMEMBERED:
                self._numbers = {}
            named = subject.number > 0  # a variant that led nowhere is the client's text, and no label
            series = SeriesKey(subject.model, subject.version, routing.variant if named else "", code, refusal)
            known = self._numbers[key] = (
                self._names.number("variant", routing.variant) if named else 0,
                self._series_page.number(series),
                routing.reason,
                self._names.number("refusal", refusal) if refusal else 0,
            )
        return known

    def _authority(self, authority: str) -> int:
        number = self._authorities.get(authority)
        if number is None:
            if len(self._authorities) >= MAX_AUTHORITIES:
                return 0
            number = self._authorities[authority] = self._names.number("authority", authority[:200])
        return number

    def _grow(self, count: int) -> None:
        self._room = 1 << (count - 1).bit_length()
        self._records = np.zeros(self._room, RECORD)
        self._words = self._records.view(np.uint64).reshape(self._room, -1)
        self._scratch = memoryview(self._records).cast("B")  # type: ignore[arg-type]  # an array is a buffer
