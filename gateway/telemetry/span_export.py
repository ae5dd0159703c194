"""Rings → spans → receiver: a thread drains the workers' rings, and a few exports are under way at once.

Records stay in their ring until their export has ended, so that the next control process exports what this one could
not. When a ring fills nevertheless, because the receiver is slow or away, the oldest records make room and are counted
as dropped: memory is bounded by the rings and by EXPORTS_AT_ONCE payloads, and no worker ever waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

import numpy as np

from gateway.background import KEEPING_UP_NICE, give_way
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.daemon_pool import DaemonPool
from gateway.telemetry.exporting import ExportCounts
from gateway.telemetry.fates import Fate
from gateway.telemetry.otlp.client import OtlpClient
from gateway.telemetry.periodic_export import END_SECONDS, LAST_TRY_SECONDS
from gateway.telemetry.sampler import SAMPLED
from gateway.telemetry.settings import BatchProcessorSettings
from gateway.telemetry.spans import SpanEncoder
from runtime.shm.record import Records
from runtime.shm.ring import RingReader
from runtime.yielding import let_others_run

log = logging.getLogger(__name__)

EXPORTS_AT_ONCE = 4
BUSY_POLL_SECONDS = 0.05
IDLE_POLL_SECONDS = 0.2
BEHIND_SHARE = 0.25  # of a ring: from here on an export does not wait for others of its core
FULL_SHARE = 0.75  # of a ring: from here on the oldest records make room
ROOM_SHARE = 0.5
FLUSH_SECONDS = 5.0  # at the end, for what is still to be exported


@dataclass(slots=True)
class Lane:
    """One worker's ring, and what of it is on its way."""

    worker: int
    reader: RingReader
    waiting_since: float | None = None
    batches: deque[Batch] = field(default_factory=deque)


@dataclass(slots=True)
class Batch:
    """Records on their way to the receiver. `held`: they are still in the ring."""

    records: int
    exports: list[Future[None]]
    held: bool = True


class SpanExport:
    """`start`, then `stop`, once each. `encoder` and `client` None: records only go to the access log."""

    def __init__(
        self,
        readers: Sequence[RingReader],
        encoder: SpanEncoder | None,
        client: OtlpClient | None,
        access_log: AccessLog | None,
        batch: BatchProcessorSettings,
        counts: ExportCounts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lanes = [Lane(worker, reader) for worker, reader in enumerate(readers)]
        self._turns = deque(self._lanes)  # the first has the next export
        self._encoder = encoder
        self._client = client
        self._access_log = access_log
        self._batch = batch
        self._counts = counts
        self._clock = clock
        self._stopping = threading.Event()
        self._pool = DaemonPool(EXPORTS_AT_ONCE, "export spans")
        self._under_way = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="drain rings", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, flush_seconds: float = FLUSH_SECONDS) -> None:
        """Exports what is there for up to `flush_seconds`; then what is under way fails, the rest is dropped."""
        self._stopping.set()
        self._thread.join()
        deadline = self._clock() + flush_seconds
        self._try_turn(flush=True)
        while self._clock() < deadline and any(lane.batches or lane.reader.waiting for lane in self._lanes):
            self._finish(timeout_seconds=0.05)
            self._try_turn(flush=True)
        if self._client is not None:
            self._client.stop()
            self._finish(timeout_seconds=LAST_TRY_SECONDS)
            self._client.close()
        self._pool.close(END_SECONDS)
        self._counts.abandon()
        for lane in self._lanes:
            lane.reader.look()
            self._log(lane)
            self._let_go(lane)
            if left := lane.reader.waiting:
                self._counts.dropped(Fate.QUEUE_FULL, _sampled(lane.reader.take(left)))
                lane.reader.release(left)

    def _run(self) -> None:
        give_way(KEEPING_UP_NICE)
        pause = IDLE_POLL_SECONDS
        while not self._stopping.wait(pause):
            pause = BUSY_POLL_SECONDS if self._try_turn() else IDLE_POLL_SECONDS

    def _try_turn(self, *, flush: bool = False) -> bool:
        try:
            return self.turn(flush=flush)
        except Exception:
            log.exception("a turn of the span export failed; the next follows")
            return True

    def turn(self, *, flush: bool = False) -> bool:
        """One look at every ring; True if there was something in one of them."""
        busy = False
        for lane in self._lanes:
            lane.reader.look()
            self._log(lane)
            self._release(lane)
            busy = lane.reader.waiting > 0 or busy
            if self._encoder is None:
                lane.reader.release_logged()
        if self._encoder is not None:
            self._export_due(self._encoder, flush=flush)
            for lane in self._lanes:
                self._make_room(lane)
        return busy

    def _export_due(self, encoder: SpanEncoder, *, flush: bool) -> None:
        """One export a ring in turn, so that a receiver that takes less than there is has some of every worker."""
        passed = 0
        while passed < len(self._turns) and self._under_way < EXPORTS_AT_ONCE:
            lane = self._turns[0]
            self._turns.rotate(-1)
            passed += 1
            if self._due(lane, flush=flush):
                passed = 0
                self._export(lane, encoder)

    def _due(self, lane: Lane, *, flush: bool) -> bool:
        waiting = lane.reader.waiting
        if not waiting:
            lane.waiting_since = None
            return False
        if lane.waiting_since is None:
            lane.waiting_since = self._clock()
        late = self._clock() - lane.waiting_since >= self._batch.schedule_delay_seconds
        return flush or late or waiting >= self._most(lane)

    def _most(self, lane: Lane) -> int:
        """Records of one export: no more than leaves room for others in the ring meanwhile."""
        return max(min(self._batch.max_export_batch_size, lane.reader.capacity // EXPORTS_AT_ONCE), 1)

    def _log(self, lane: Lane) -> None:
        """The access log comes first, and never waits for a receiver."""
        if self._access_log is not None:
            for records in lane.reader.untold():
                self._access_log.write(lane.worker, records, lane.reader.names.names)

    def _export(self, lane: Lane, encoder: SpanEncoder) -> None:
        before = lane.reader.taken
        records = lane.reader.take(self._most(lane))
        lane.waiting_since = None
        batch = Batch(lane.reader.taken - before, [])
        lane.batches.append(batch)
        try:
            payloads = encoder.encode(lane.worker, records, lane.reader.names.names)
        except Exception:
            self._counts.dropped(Fate.FAILED, _sampled(records))
            raise
        for payload in payloads:
            with self._lock:
                self._under_way += 1
            self._counts.begin(payload.requests, payload.runs)
            batch.exports.append(self._pool.submit(self._send, payload.payload, payload.requests, payload.runs))
        if lane.reader.held < BEHIND_SHARE * lane.reader.capacity:
            let_others_run()

    def _send(self, payload: bytes, requests: int, runs: int) -> None:
        try:
            if self._client is not None:
                self._counts.count(self._client.export(payload, requests + runs), requests, runs)
        finally:
            with self._lock:
                self._under_way -= 1

    def _release(self, lane: Lane) -> None:
        """Gives back the records of the oldest batches that are done."""
        while lane.batches and all(export.done() for export in lane.batches[0].exports):
            batch = lane.batches.popleft()
            if batch.held:
                lane.reader.release(batch.records)

    def _make_room(self, lane: Lane) -> None:
        """For a ring that fills while the exports are all held up."""
        reader = lane.reader
        if reader.held < FULL_SHARE * reader.capacity or self._under_way < EXPORTS_AT_ONCE:
            return
        self._let_go(lane)
        surplus = reader.held - int(ROOM_SHARE * reader.capacity)
        if surplus > 0:
            before = reader.taken
            self._counts.dropped(Fate.QUEUE_FULL, _sampled(reader.take(surplus)))
            reader.release(reader.taken - before)

    def _let_go(self, lane: Lane) -> None:
        """Of records whose payloads are made: only a crash of this process would lose them now."""
        for batch in lane.batches:
            if batch.held:
                lane.reader.release(batch.records)
                batch.held = False

    def _finish(self, timeout_seconds: float) -> None:
        """Waits a little for the exports under way."""
        under_way = [export for lane in self._lanes for batch in lane.batches for export in batch.exports]
        wait([export for export in under_way if not export.done()], timeout_seconds, FIRST_COMPLETED)


def _sampled(records: Sequence[Records]) -> int:
    return sum(int(np.count_nonzero(part["trace_flags"] & SAMPLED)) for part in records)
