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
from gateway.telemetry.context import Begun, Trace, Tracer
from gateway.telemetry.peers import Peers
from gateway.telemetry.sampler import SAMPLED
from runtime.batching.request import Request
from runtime.batching.runner import RunTimes
from runtime.shm.publish import BEGUN, KEEP_ALL, KEEP_ERRORS, KEEP_NONE, KEEP_SAMPLED, SHARED, publish, publish_run
from runtime.shm.record import RECORD
from runtime.shm.record_layout import PACKED, RECORD_BYTES, REQUEST_ID_BYTES, Mark
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
NUMBER = struct.Struct("<Q")
STREAM, ID_CUT = Mark.STREAM.value, Mark.ID_CUT.value

IN_RUN = struct.Struct("<16s8s8s8xQQQ32x4xII8xIIHH2xHxBBBBBBB4x16s64s160s")
"""A record's fields in their order, without those that publish_run fills in, and those of a refusal."""
IN_RUN_BEGUN = struct.Struct("<40xQQQ32x4xII8xIIHH2xHxBBBBB2x4x16s64s160s")
"""The same of a request without context: `text` is its traceparent, of which publish_run makes the ids."""
NO_TRACE = Trace(b"", b"", 0, ())


class Recorded(Protocol):
    """What a record takes from a Call."""

    received_ns: int
    trace: Begun | None

    @property
    def authority(self) -> str: ...
    @property
    def streamed(self) -> bool: ...
    def peer_key(self) -> str | bytes: ...


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
        self._run = bytearray(SHARED.size)
        self._run_words = np.frombuffer(self._run, np.uint64)
        self._grow(FIRST_SCRATCH)

    def subject(self, model: str, version: int, digest: str) -> Subject:
        with self._lock:
            return Subject(model, version, self._names.number("target", model, str(version), digest))

    def answered(
        self,
        subject: Subject,
        requests: Sequence[Request],
        rows: int,
        responses: Sequence[bytes],
        times: RunTimes,
        replied_ns: int,
    ) -> None:
        """One run's requests, in its order, with `rows` in all."""
        count = len(requests)
        run_id = self.tracer.new_id()[1] if self.tracer is not None else NUMBER.pack(next(self._runs))
        unix_ns = time.time_ns() - time.monotonic_ns()
        kept, peers, default_authority = self._keep, self._peers.known, self._authorities[""]
        pack, pack_begun = IN_RUN.pack_into, IN_RUN_BEGUN.pack_into
        offset = 0
        routing = None
        variant = series = reason = family = port = 0
        address = b""
        with self._lock:
            if count > self._room:
                self._grow(count)
            scratch = self._scratch
            for request, response in zip(requests, responses, strict=True):
                call: Recorded = request.owner
                if request.routing is not routing:
                    routing = request.routing
                    variant, series, reason, _ = self._number(subject, routing, 0, "")
                if kept:  # the C-core writes it as text for each call: not where no record leaves
                    peer = call.peer_key()
                    family, port, address = peers.get(peer) or self._peers.find(peer)
                marks = 0
                authority = default_authority
                if call.streamed:
                    marks = STREAM
                    authority = self._authority(call.authority)
                identity = b""
                identity_bytes = 0
                if request.id:
                    identity = request.id.encode()
                    identity_bytes = len(identity)
                    if identity_bytes > REQUEST_ID_BYTES:
                        identity_bytes = REQUEST_ID_BYTES
                        marks |= ID_CUT
                trace = call.trace
                if isinstance(trace, bytes):
                    pack_begun(
                        scratch, offset,
                        call.received_ns, request.decoded_ns, request.queued_ns,
                        series, request.rows, request.size_bytes, len(response),
                        variant, authority, port,
                        reason, trace[-1] & SAMPLED, marks | BEGUN, family, identity_bytes,
                        address, identity, trace,
                    )  # fmt: skip
                else:
                    trace = trace or NO_TRACE
                    pack(
                        scratch, offset,
                        trace.trace_id, trace.span_id, trace.parent_id,
                        call.received_ns, request.decoded_ns, request.queued_ns,
                        series, request.rows, request.size_bytes, len(response),
                        variant, authority, port,
                        reason, trace.flags, marks | trace.marks, family, identity_bytes,
                        trace.state_bytes, trace.extra_bytes,
                        address, identity, trace.text,
                    )  # fmt: skip
                offset += RECORD_BYTES
            SHARED.pack_into(
                self._run, 0, run_id, unix_ns, times.started_ns, times.gathered_ns, times.ran_ns, replied_ns, rows,
                subject.number,
            )  # fmt: skip
            page, ring = self._series_page, self._ring
            publish_run(
                self._records, self._words, count, self._run_words, page.header, page.rows, ring.words, ring.slots,
                self._keep,
            )  # fmt: skip

    def refused(
        self,
        call: Recorded,
        status: Status,
        size_bytes: int,
        request: Request | None = None,
        subject: Subject = NOBODY,
        routing: Routing = NOT_ROUTED,
    ) -> None:
        """A request that got `status`: `request` where it could be read, else `routing` as far as it came."""
        now_ns = time.monotonic_ns()
        unix_ns = time.time_ns() - now_ns
        received_ns = call.received_ns
        trace = self.tracer.whole(call.trace) if self.tracer is not None and call.trace else Trace(b"", b"", 0, ())
        if trace.sampled or self._keep & (KEEP_ERRORS | KEEP_ALL):
            trace.add(REFUSAL_MESSAGE, status.message)
        decoded_ns = queued_ns = rows = 0
        identity = trace.request_id.encode()
        if request is not None:
            routing, rows, identity = request.routing or NOT_ROUTED, request.rows, request.id.encode()
            decoded_ns = max(request.decoded_ns - received_ns, 0)
            queued_ns = max(request.queued_ns - received_ns, 0)
        family, port, address = self._peers.find(call.peer_key())
        with self._lock:
            variant, series, reason, refusal = self._number(subject, routing, status.code, status.reason)
            PACKED.pack_into(
                self._scratch, 0,
                trace.trace_id, trace.span_id, trace.parent_id, b"",
                received_ns + unix_ns, decoded_ns, queued_ns, 0, 0, 0, now_ns - received_ns,
                subject.number, series, min(rows, LARGEST), 0, 0, min(size_bytes, LARGEST), 0,
                variant, self._authority(call.authority), refusal, port,
                status.code, reason, trace.flags,
                trace.marks | call.streamed * Mark.STREAM | (len(identity) > REQUEST_ID_BYTES) * Mark.ID_CUT,
                family, min(len(identity), REQUEST_ID_BYTES), trace.state_bytes, trace.extra_bytes,
                b"", address, identity, trace.text,
            )  # fmt: skip
            page, ring = self._series_page, self._ring
            publish(self._records, self._words, 1, page.header, page.rows, ring.words, ring.slots, self._keep)

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
