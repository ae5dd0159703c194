"""What a transport gives to the data plane, and what it asks of it.

A transport receives RPCs as bytes and hands over *whatever is ready at once*. Two stand behind this interface: `queue`
on the C-core's completion queue, and `public` on grpc.aio. The same suite runs on both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import Status
from gateway.telemetry.context import Begun

Metadata = Sequence[tuple[str, str | bytes]]
Headers = Sequence[tuple[bytes, bytes]]
"""Of a reply."""


class Call(Protocol):
    """One unary RPC. Exactly one of `answer` and `refuse` is called, once, from any thread; neither raises.

    `deadline_seconds` is on the wall clock, inf for none. `cancelled` is kept up to date only after `watch`, which
    costs an event: ask for it where a request may wait. `received_ns` is on the monotonic clock; `trace` is the
    pipeline's to set; `streamed`: a message of a stream; `peer_key`: what `peer` is made from, at less cost.
    """

    received_ns: int
    trace: Begun | None

    @property
    def method(self) -> str: ...
    @property
    def metadata(self) -> Metadata: ...
    @property
    def deadline_seconds(self) -> float: ...
    @property
    def cancelled(self) -> bool: ...
    @property
    def authority(self) -> str: ...
    @property
    def streamed(self) -> bool: ...

    def peer(self) -> str: ...
    def peer_key(self) -> str | bytes: ...
    def watch(self) -> None: ...
    def answer(self, payload: bytes, headers: Headers | None = None) -> None: ...
    def refuse(self, status: Status) -> None: ...


class Stream(Protocol):
    """One bidirectional RPC. `send` and `end` may be called from any thread; answers leave in the order of `send`.

    `read` asks for the next message: the handler bounds what it takes on by not asking.
    """

    method: str
    metadata: Metadata
    deadline_seconds: float
    cancelled: bool
    authority: str

    def peer(self) -> str: ...
    def read(self) -> None: ...
    def send(self, payload: bytes) -> None: ...
    def end(self, status: Status | None = None) -> None: ...


Ready = list[tuple[Call, bytes]]


class StreamHandler(Protocol):
    """Effects of a stream on the data plane. A message may become a request of the batch in the making.

    `sent` follows each `send` when the client's flow control has taken it: what is sent and not yet `sent` is held in
    memory, so a handler bounds that too.
    """

    def message(self, payload: bytes) -> tuple[Call, bytes] | None: ...
    def sent(self) -> None: ...
    def half_closed(self) -> None: ...
    def cancelled(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Methods:
    """The data plane as a table. `infer` takes all requests that are ready; `unary` and `streams` go by RPC path.

    `empty` takes a call of `infer_path` that has ended without a message.
    """

    infer_path: str
    infer: Callable[[Ready], None]
    unary: Mapping[str, Callable[[Call, bytes], None]]
    streams: Mapping[str, Callable[[Stream], StreamHandler]]
    empty: Callable[[Call], None]


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM bytes. With `client_ca`, clients must present a certificate signed by it (mTLS)."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None = None


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """Bounds of what clients may do to a worker; each is a field of the configuration."""

    address: str
    max_message_bytes: int
    max_metadata_bytes: int
    max_concurrent_streams: int
    max_connection_age_seconds: float
    max_connection_idle_seconds: float
    tls: Tls | None = None
    threads: int = 1

    def channel_arguments(self) -> list[tuple[str, int]]:
        arguments = [
            ("grpc.so_reuseport", 1),  # workers share the port; the supervisor holds it against other programs
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", self.max_metadata_bytes),
            ("grpc.absolute_max_metadata_size", self.max_metadata_bytes),
            ("grpc.max_concurrent_streams", self.max_concurrent_streams),
            # Past these the C-core kills calls before Python sees them; admission is decided, and counted, here.
            ("grpc.server.max_pending_requests", 1 << 20),
            ("grpc.server.max_pending_requests_hard_limit", 1 << 20),
            # Clients may ping every 10 s, also without a call in flight, as service meshes do.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.server_handshake_timeout_ms", 10_000),
        ]
        if self.max_connection_age_seconds:
            arguments.append(("grpc.max_connection_age_ms", int(self.max_connection_age_seconds * 1000)))
            arguments.append(("grpc.max_connection_age_grace_ms", 60_000))
        if self.max_connection_idle_seconds:
            arguments.append(("grpc.max_connection_idle_ms", int(self.max_connection_idle_seconds * 1000)))
        return arguments


class Transport(Protocol):
    """`start` listens and answers the port; `stop` refuses new calls, lets those in flight end within the grace.

    `relieve` is told how many receiving threads are held up in long runs, and keeps others receiving.
    `close`, after `stop`, frees what is left: only once every call has been answered, whether its client waits or not.
    """

    name: str

    def start(self, methods: Methods) -> int: ...
    def relieve(self, busy_threads: int) -> None: ...
    def stop(self, grace_seconds: float) -> bool: ...
    def close(self) -> None: ...


class BindError(OSError):
    """The address cannot be listened on."""
