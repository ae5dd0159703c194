"""Clients that send at a stated rate, whatever becomes of their requests, and keep what each got."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import grpc
import grpc.aio
import numpy as np

from gateway.wire.pb.inference import grpc_service_pb2 as pb
from support.answered_by import answered_by
from support.load import INFER, OK, infer_request

CALL_SECONDS = 10.0
CHANNELS = 8
TICK_SECONDS = 0.005
MOST_WAITING = 4096  # calls under way; a gateway that hangs must not fill the test's memory

Metadata = tuple[tuple[str, str], ...]
OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


@dataclass(frozen=True, slots=True)
class Ask:
    """`rows`: float32[rows, columns]"""

    rows: np.ndarray
    metadata: Metadata = ()
    version: str = ""


@dataclass(frozen=True, slots=True)
class Got:
    """One call's end. `version` 0 and `variant` "": none was named. `at` is monotonic."""

    ask: Ask
    status: grpc.StatusCode
    message: str
    version: int
    variant: str
    reason: str
    at: float
    seconds: float


class Arrivals:
    """Calls `draw` for each request, from entry to exit. `put` sends one more, out of turn.

    `rate`, requests a second, may be set at any time.
    """

    def __init__(self, address: str, model: str, rate: float, draw: Callable[[], Ask]) -> None:
        self._address = address
        self._model = model
        self.rate = rate
        self._draw = draw
        self._stopping = False
        self._extra: list[Ask] = []
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="arrivals")
        self.sent = 0
        self.under_way = 0
        self.skipped = 0
        self.got: list[Got] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    def put(self, ask: Ask) -> None:
        self._extra.append(ask)

    def failures(self) -> list[Got]:
        return [got for got in self.got if got.status is not OK]

    def share(self, version: int, got: Sequence[Got] | None = None) -> float:
        """Of the requests that were answered by a version."""
        answered = [each for each in (self.got if got is None else got) if each.version]
        return sum(each.version == version for each in answered) / len(answered) if answered else 0.0

    def _run(self) -> None:
        try:
            asyncio.run(self._drive())
        except BaseException as error:
            self._failed = error

    async def _drive(self) -> None:
        channels = [grpc.aio.insecure_channel(self._address, options=OPTIONS) for _ in range(CHANNELS)]
        calls: list[Any] = [
            channel.unary_unary(INFER, response_deserializer=pb.ModelInferResponse.FromString) for channel in channels
        ]
        waiting: set[asyncio.Task[None]] = set()
        last, owed = time.monotonic(), 0.0
        try:
            while not self._stopping:
                now = time.monotonic()
                owed += (now - last) * self.rate
                last = now
                asks = [self._draw() for _ in range(int(owed))]
                owed -= int(owed)
                while self._extra:
                    asks.append(self._extra.pop(0))
                for ask in asks:
                    if len(waiting) >= MOST_WAITING:
                        self.skipped += 1
                        continue
                    task = asyncio.create_task(self._call(calls[self.sent % CHANNELS], ask))
                    self.sent += 1
                    waiting.add(task)
                    task.add_done_callback(waiting.discard)
                self.under_way = len(waiting) + len(self._extra)
                await asyncio.sleep(TICK_SECONDS)
            await asyncio.gather(*waiting)
        finally:
            for channel in channels:
                await channel.close()

    async def _call(self, method: Any, ask: Ask) -> None:
        started = time.monotonic()
        payload = infer_request(self._model, ask.rows, ask.version).SerializeToString()
        call = method(payload, metadata=ask.metadata, timeout=CALL_SECONDS, wait_for_ready=True)
        status, message = OK, ""
        headers: dict[str, str] = {}
        try:
            await call
        except grpc.aio.AioRpcError as error:
            status, message = error.code(), error.details() or ""
            headers = _texts(error.initial_metadata()) | _texts(error.trailing_metadata())
        else:
            headers = _texts(await call.initial_metadata()) | _texts(await call.trailing_metadata())
        by = answered_by(headers)
        seconds = time.monotonic() - started
        self.got.append(Got(ask, status, message, by.version, by.variant, by.reason, started, seconds))


def _texts(metadata: Any) -> dict[str, str]:
    return {key: value for key, value in metadata or () if isinstance(value, str)}
