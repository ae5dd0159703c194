"""Exports serialized requests of one signal: tries, waits, and says what became of every item."""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.telemetry.otlp.export_log import ExportLog
from gateway.telemetry.otlp.retry import Attempt, Backoff
from gateway.telemetry.otlp.sender import Sender
from gateway.telemetry.otlp.services import SERVICES, Service
from gateway.telemetry.signal_settings import Signal, SignalSettings

log = logging.getLogger(__name__)

USER_AGENT = "OTel-OTLP-Exporter-Python"

JITTER = random.Random().random  # noqa: S311  # no secret depends on it. Its own: threads share the module's generator.


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one export's items: `accepted + rejected + dropped` is their count.

    `accepted`: the receiver took them. `rejected`: it took the request and said that it did not keep these. `dropped`:
    it did not take the request, or not so that this client knows. `attempts`: tries that were made.

    `reason`: "" where all were accepted, `rejected`, or why they were dropped: gRPC's name of the code, an HTTP status
    as "503", `timeout`, `connection`, `tls`, `request` (it could not be sent as it is), `stopped`, or the name
    of an unforeseen error. Few values: fit for error.type.
    """

    accepted: int
    rejected: int
    dropped: int
    attempts: int
    reason: str


class OtlpClient:
    """Thread-safe; every thread may have an export under way. An export takes `settings.timeout_seconds` at most, its
    tries and waits together. `stop`, then `close`, end it.
    """

    def __init__(
        self,
        settings: SignalSettings,
        signal: Signal,
        *,
        user_agent: str = USER_AGENT,
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
        random_part: Callable[[], float] = JITTER,
    ) -> None:
        """`wait(seconds)` is True when `stop` ended it. The connection is made with the first export."""
        self._signal = signal
        self._timeout_seconds = settings.timeout_seconds
        self._sender = _make_sender(settings, SERVICES[signal], user_agent)
        self._log = ExportLog(SERVICES[signal].items, settings.shown, clock)
        self._backoff = backoff
        self._clock = clock
        self._stopping = threading.Event()
        self._wait = wait or self._stopping.wait
        self._random_part = random_part

    def __repr__(self) -> str:
        return f"<OtlpClient {self._signal}{' stopped' if self._stopping.is_set() else ''}>"

    def export(self, payload: bytes, items: int) -> Outcome:
        """`payload`: a serialized Export*ServiceRequest of this signal with `items` spans, data points or log records.

        Blocks. It is sent as it is, the same bytes at each try. Never raises.
        """
        deadline = self._clock() + self._timeout_seconds
        body = self._sender.pack(payload)
        left_seconds = self._timeout_seconds
        for attempts in itertools.count(1):
            attempt = self._try(body, left_seconds)
            if not attempt.reason:
                return self._taken(attempt, items, attempts)
            wait_seconds = self._backoff.wait_seconds(attempts, self._random_part(), attempt.least_wait_seconds)
            in_time = self._clock() + wait_seconds < deadline
            if not attempt.retryable or not in_time or self._stopping.is_set():
                break
            self._log.failed(attempt, 0)
            stopped = self._wait(wait_seconds)
            left_seconds = deadline - self._clock()
            if stopped or left_seconds <= 0:
                break
        self._log.failed(attempt, items)
        return Outcome(0, 0, items, attempts, attempt.reason)

    def stop(self) -> None:
        """No more retries: waits end at once, and what waits is dropped. From now on an export has one try."""
        self._stopping.set()

    def close(self) -> None:
        """`stop`, and ends the tries under way. Later exports are dropped."""
        self._stopping.set()
        self._sender.close()

    def _try(self, body: bytes, timeout_seconds: float) -> Attempt:
        try:
            return self._sender.send(body, timeout_seconds)
        except Exception as error:
            log.exception("an export of %s failed unforeseen", self._signal)
            return Attempt(type(error).__name__, str(error))

    def _taken(self, attempt: Attempt, items: int, attempts: int) -> Outcome:
        rejected = min(attempt.rejected, items)
        self._log.taken(attempt, rejected)
        return Outcome(items - rejected, rejected, 0, attempts, "rejected" if rejected else "")


def _make_sender(settings: SignalSettings, service: Service, user_agent: str) -> Sender:
    """Each library is imported only where it is used."""
    if settings.protocol == "grpc":
        from gateway.telemetry.otlp.grpc_sender import GrpcSender

        return GrpcSender(settings, service, user_agent)
    from gateway.telemetry.otlp.http_sender import HttpSender

    return HttpSender(settings, service, user_agent)
