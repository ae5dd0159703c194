"""Inference calls that a client remembers: what it sent, when, and everything that it was told in return."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
import grpc.aio

from gateway.wire.pb.inference import grpc_service_pb2 as pb
from support.answered_by import answered_by
from support.load import INFER

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
CALL_SECONDS = 60.0
END_SECONDS = 120.0
OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
)

Metadata = tuple[tuple[str, str], ...]
_ids = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `kind`: a test's own name for such requests. `parent`: trace id and span id that the client sends.

    `payload`: sent instead of `request`, where it is to be no request.
    """

    kind: str
    request: pb.ModelInferRequest
    parent: tuple[str, str] | None = None
    flags: int = 1
    more: Metadata = ()
    payload: bytes = b""

    @property
    def model(self) -> str:
        return str(self.request.model_name)

    @property
    def version(self) -> str:
        """As asked for: a number, a label, or nothing."""
        return str(self.request.model_version)

    @property
    def id(self) -> str:
        return str(self.request.id)

    @property
    def metadata(self) -> Metadata:
        if self.parent is None:
            return self.more
        return (("traceparent", f"00-{self.parent[0]}-{self.parent[1]}-{self.flags:02x}"), *self.more)

    @property
    def refuses_sampling(self) -> bool:
        return self.parent is not None and not self.flags & 1


@dataclass(frozen=True, slots=True)
class Told:
    """What the client knows of one request. Times are Unix nanoseconds.

    `trace_id`, `span_id`, `flags`: of the traceparent in the response's metadata, "" and None where there was none.
    `version` 0, `digest` "": not told.
    """

    ask: Ask
    code: str
    message: str
    sent_ns: int
    received_ns: int
    trace_id: str = ""
    span_id: str = ""
    flags: int | None = None
    version: int = 0
    digest: str = ""
    streamed: bool = False


def new_parent() -> tuple[str, str]:
    return secrets.token_hex(16), secrets.token_hex(8)


def identified(request: pb.ModelInferRequest) -> pb.ModelInferRequest:
    """A copy with an id that no other request of this process has."""
    copy = pb.ModelInferRequest()
    copy.CopyFrom(request)
    copy.id = f"r{next(_ids)}"
    return copy


@dataclass
class Caller:
    """Sends `asks` until they end or the context is left, `in_flight` at a time over `channels` connections.

    `told` grows as calls end. A member of `asks` that is a sequence goes out as the messages of one stream. Calls wait
    for a server that is away; where they are not `patient`, they end when there is none, and so does the sending.
    """

    address: str
    asks: Iterable[Ask | Sequence[Ask]]
    in_flight: int = 64
    channels: int = 16
    patient: bool = True
    told: list[Told] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stopping = False
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="caller")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    def finish(self) -> list[Told]:
        """When all of `asks` have been told."""
        self._thread.join(END_SECONDS)
        assert not self._thread.is_alive(), f"{len(self.told)} calls in {END_SECONDS} s"
        return self.told

    def wait_for(self, count: int) -> None:
        """Until `count` more calls have ended."""
        target = len(self.told) + count
        deadline = time.monotonic() + END_SECONDS
        while len(self.told) < target and self._thread.is_alive():
            assert time.monotonic() < deadline, f"no {count} answers in {END_SECONDS} s"
            time.sleep(0.005)

    def _run(self) -> None:
        try:
            asyncio.run(self._drive())
        except BaseException as error:
            self._failed = error

    async def _drive(self) -> None:
        channels = [grpc.aio.insecure_channel(self.address, options=OPTIONS) for _ in range(self.channels)]
        asks = iter(self.asks)
        try:
            await asyncio.gather(*(self._call_on(channels[i % self.channels], asks) for i in range(self.in_flight)))
        finally:
            for channel in channels:
                await channel.close()

    async def _call_on(self, channel: grpc.aio.Channel, asks: Iterator[Ask | Sequence[Ask]]) -> None:
        unary: Any = channel.unary_unary(INFER)
        stream: Any = channel.stream_stream(STREAM, response_deserializer=pb.ModelStreamInferResponse.FromString)
        for ask in asks:
            if self._stopping:
                return
            if isinstance(ask, Ask):
                told = await _ask(unary, ask, self.patient)
                self.told.append(told)
                if not self.patient and told.code == "UNAVAILABLE" and not told.span_id:
                    return
            else:
                self.told.extend(await _ask_in_stream(stream, ask))


async def _ask(unary: Any, ask: Ask, patient: bool) -> Told:
    payload = ask.payload or ask.request.SerializeToString()
    sent_ns = time.time_ns()
    call = unary(payload, timeout=CALL_SECONDS, metadata=ask.metadata, wait_for_ready=patient)
    code, message = "OK", ""
    try:
        await call
        received_ns = time.time_ns()
        metadata = await call.initial_metadata()
    except grpc.aio.AioRpcError as error:
        received_ns = time.time_ns()
        metadata = error.trailing_metadata() or ()
        code, message = error.code().name, error.details() or ""
    return _told(ask, code, message, sent_ns, received_ns, dict(metadata))


def _told(ask: Ask, code: str, message: str, sent_ns: int, received_ns: int, metadata: dict[str, Any]) -> Told:
    parts = metadata.get("traceparent", "---").split("-")
    return Told(
        ask=ask,
        code=code,
        message=message,
        sent_ns=sent_ns,
        received_ns=received_ns,
        trace_id=parts[1],
        span_id=parts[2],
        flags=int(parts[3], 16) if parts[3] else None,
        version=answered_by(metadata).version,
        digest=answered_by(metadata).digest,
    )


async def _ask_in_stream(stream: Any, asks: Sequence[Ask]) -> list[Told]:
    """All messages at once; answers come in their order. The stream has the first one's metadata."""
    sent_ns = time.time_ns()
    messages = [ask.request.SerializeToString() for ask in asks]
    call = stream(_each(messages), timeout=CALL_SECONDS, metadata=asks[0].metadata, wait_for_ready=True)
    found = []
    for ask in asks:
        answer = await call.read()
        received_ns = time.time_ns()
        message = answer.error_message
        version = int(answer.infer_response.model_version or 0) if not message else 0
        code = "error" if message else "OK"
        found.append(Told(ask, code, message, sent_ns, received_ns, version=version, streamed=True))
    assert await call.read() is grpc.aio.EOF
    return found


async def _each(messages: Sequence[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message
