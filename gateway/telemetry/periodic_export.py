"""Metrics and log events, each on a thread of its own: rare, small, and never in the way of spans."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.background import give_way
from gateway.telemetry.exporting import ExportCounts
from gateway.telemetry.otlp.client import OtlpClient

log = logging.getLogger(__name__)

LAST_TRY_SECONDS = 0.5  # for an export under way when the time to flush has passed
END_SECONDS = 0.5  # for one that was ended to say so; one that hangs, in a name's lookup say, is left


@dataclass(frozen=True, slots=True)
class Payload:
    """A serialized Export*ServiceRequest, and how many data points or log records are in it."""

    data: bytes
    items: int


class PeriodicExport:
    """Calls `collect` every `interval_seconds` and once more at the end. `start`, then `stop`, once each."""

    def __init__(
        self,
        name: str,
        collect: Callable[[], Sequence[Payload]],
        client: OtlpClient,
        interval_seconds: float,
        counts: ExportCounts,
    ) -> None:
        self._name = name
        self._collect = collect
        self._client = client
        self._interval_seconds = interval_seconds
        self._counts = counts
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"export {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, flush_seconds: float) -> None:
        """Exports what is there for up to `flush_seconds`; what is under way soon after counts as failed."""
        self._stopping.set()
        self._thread.join(flush_seconds)
        self._client.stop()
        self._thread.join(LAST_TRY_SECONDS)
        self._client.close()
        self._thread.join(END_SECONDS)
        self._counts.abandon()

    def _run(self) -> None:
        give_way()
        while not self._stopping.wait(self._interval_seconds):
            self._export()
        self._export()

    def _export(self) -> None:
        try:
            payloads = self._collect()
            self._counts.begin(sum(payload.items for payload in payloads))
            for payload in payloads:
                self._counts.count(self._client.export(payload.data, payload.items), payload.items)
        except Exception:
            log.exception("an export of %s failed unforeseen; the next follows", self._name)
