"""A loaded version with all that answering for it needs: what the route table leads to."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

from gateway.errors import Status, status_of
from gateway.wire.decode import Decoder
from gateway.wire.encode import Encoder
from runtime.batching.request import Refusal, Request
from runtime.batching.runner import RunTimes
from runtime.errors import DeadlineExceeded
from runtime.shm.statistics import SlotWriter
from runtime.versions.version import LoadedVersion

log = logging.getLogger(__name__)

VERSION_HEADER = "driftgate-model-version"
DIGEST_HEADER = "driftgate-model-digest"


class Target:
    """Decodes for, submits to and delivers from one version (it is the version's Delivery)."""

    def __init__(self, version: LoadedVersion, counters: SlotWriter, on_done: Callable[[int], None]) -> None:
        configured = version.manifest.batching.max_batch_size
        self.version = version
        self.decoder = Decoder(version.signature, version.max_rows, configured or 0)
        self._encoder = Encoder(version.model, version.version, version.signature)
        self._headers = ((VERSION_HEADER, str(version.version)), (DIGEST_HEADER, version.digest))
        self._counters = counters
        self._on_done = on_done

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
        headers = self._headers
        for request, response in zip(requests, responses, strict=True):
            request.owner.answer(response, headers)
        self._end(len(requests))
        try:
            self._observe(requests, times)
        except Exception:
            log.exception("a run of %s could not be counted", self.version.name)

    def _observe(self, requests: Sequence[Request], times: RunTimes) -> None:
        """After the replies have been handed over."""
        replied_ns = time.monotonic_ns()
        arrived = sum([request.arrived_ns for request in requests])
        count = len(requests)
        self._counters.add_run(
            count,
            sum([request.rows for request in requests]),
            count * replied_ns - arrived,
            count * times.started_ns - arrived,
            times.gathered_ns - times.started_ns,
            times.ran_ns - times.gathered_ns,
            replied_ns - times.ran_ns,
            int(time.time() * 1000),
        )

    def refused(self, refusals: Sequence[Refusal]) -> None:
        for refusal in refusals:
            self._refuse_all([refusal.request], status_of(refusal.error, self.version.name), refusal.error)

    def _refuse_all(self, requests: Sequence[Request], status: Status, error: Exception | None = None) -> None:
        for request in requests:
            request.owner.refuse(status)
        self._end(len(requests))
        now_ns = time.monotonic_ns()
        total_ns = sum(now_ns - request.arrived_ns for request in requests)
        self._counters.add_failures(len(requests), total_ns, cancelled=isinstance(error, DeadlineExceeded))

    def _end(self, count: int) -> None:
        self.version.leases.give_back(count)
        self._on_done(count)
