"""A closed loop of predictions over several connections, which proves of every answer which version made it."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import grpc
import grpc.aio
import numpy as np
import psutil

from gateway.wire.pb.inference import grpc_service_pb2 as pb

INFER = "/inference.GRPCInferenceService/ModelInfer"
OK = grpc.StatusCode.OK
REQUESTS_PREPARED = 64
MAX_ROWS = 4
CONNECT_SECONDS = 20.0
CALL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One call's end. `version` 0: none came. `right`: the values are those of `version`. Times are monotonic."""

    channel: int
    status: grpc.StatusCode
    message: str
    version: int
    right: bool
    started: float
    seconds: float


class Load:
    """`in_flight` calls of one model at all times, spread over `channels` connections, from entry to exit.

    `constants`: version → k of its y = x + k. `local_ports[i]` is the client's port of channel i's first connection.
    """

    def __init__(
        self,
        address: str,
        model: str,
        constants: Mapping[int, float],
        *,
        model_version: str = "",
        in_flight: int = 64,
        channels: int = 16,
    ) -> None:
        self._address = address
        self._constants = dict(constants)
        self._in_flight = in_flight
        self._count = channels
        self._prepared = list(_requests(model, model_version))
        self._stopping = False
        self._started = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load")
        self.local_ports: list[int] = []
        self.answers: list[Answer] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        if self._failed is not None:
            self._thread.join()
            raise self._failed
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    @property
    def failures(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status is not OK]

    @property
    def wrong(self) -> list[Answer]:
        """Answers that name no version, or whose values are not those of the version they name."""
        return [answer for answer in self.answers if answer.status is OK and not answer.right]

    def between(self, start: float, end: float) -> list[Answer]:
        """Answers to calls that began and ended within this time."""
        return [a for a in self.answers if start <= a.started and a.started + a.seconds <= end]

    def wait_for(self, count: int, timeout_seconds: float = 60.0) -> None:
        """Until `count` more calls have ended."""
        target = len(self.answers) + count
        deadline = time.monotonic() + timeout_seconds
        while len(self.answers) < target:
            assert time.monotonic() < deadline, f"no {count} answers in {timeout_seconds} s"
            time.sleep(0.005)

    def _run(self) -> None:
        try:
            asyncio.run(self._drive())
        except BaseException as error:
            self._failed = error
        finally:
            self._started.set()

    async def _drive(self) -> None:
        channels: list[grpc.aio.Channel] = []
        try:
            for _ in range(self._count):
                before = _ports_to(self._address)
                channel = _channel(self._address)
                channels.append(channel)
                await asyncio.wait_for(channel.channel_ready(), CONNECT_SECONDS)
                (port,) = _ports_to(self._address) - before
                self.local_ports.append(port)
            callers = [
                asyncio.ensure_future(self._call_forever(number % self._count, channels[number % self._count], number))
                for number in range(self._in_flight)
            ]
            self._started.set()
            await asyncio.gather(*callers)
        finally:
            for channel in channels:
                await channel.close()

    async def _call_forever(self, index: int, channel: grpc.aio.Channel, offset: int) -> None:
        call: Any = channel.unary_unary(INFER, response_deserializer=pb.ModelInferResponse.FromString)
        for payload, sent in itertools.islice(itertools.cycle(self._prepared), offset, None):
            if self._stopping:
                return
            started = time.monotonic()
            version, right, status, message = 0, False, OK, ""
            try:
                response = await call(payload, timeout=CALL_SECONDS, wait_for_ready=True)
                version, right = self._judge(response, sent)
            except grpc.aio.AioRpcError as error:
                status, message = error.code(), error.details() or ""
            seconds = time.monotonic() - started
            self.answers.append(Answer(index, status, message, version, right, started, seconds))

    def _judge(self, response: pb.ModelInferResponse, sent: np.ndarray) -> tuple[int, bool]:
        if not response.model_version.isdigit():
            return 0, False
        version = int(response.model_version)
        k = self._constants.get(version)
        if k is None or len(response.raw_output_contents) != 1:
            return version, False
        return version, response.raw_output_contents[0] == (sent + np.float32(k)).tobytes()


def quantile_ms(answers: Sequence[Answer], q: float) -> float:
    return float(np.quantile([answer.seconds for answer in answers], q)) * 1000


def infer_request(model: str, x: np.ndarray, version: str = "") -> pb.ModelInferRequest:
    """`x`: float32[rows, columns], the model's only input."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=x.shape)
    return pb.ModelInferRequest(
        model_name=model, model_version=version, inputs=[tensor], raw_input_contents=[x.tobytes()]
    )


def _requests(model: str, version: str) -> Iterator[tuple[bytes, np.ndarray]]:
    random = np.random.default_rng(5)
    for number in range(REQUESTS_PREPARED):
        x = (random.standard_normal((1 + number % MAX_ROWS, 4)) * 1000).astype(np.float32)
        yield infer_request(model, x, version).SerializeToString(), x


def _channel(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(
        address,
        options=[
            ("grpc.use_local_subchannel_pool", 1),  # a connection of its own
            ("grpc.enable_http_proxy", 0),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.min_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 500),
        ],
    )


def _ports_to(address: str) -> set[int]:
    """Local ports of this process's connections to `address`."""
    port = int(address.rpartition(":")[2])
    return {
        connection.laddr.port
        for connection in psutil.Process().net_connections("tcp")
        if connection.raddr and connection.raddr.port == port and connection.status == psutil.CONN_ESTABLISHED
    }
