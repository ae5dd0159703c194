"""The transport on the gRPC C-core's completion queue: the only module that touches grpc's private API.

A polling thread drains every event that is ready, and hands the requests among them over as one batch. One thread is
the quickest, and others stand in while it is held up in a long run; docs/life-of-a-request.md says why.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
from google.rpc import code_pb2
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # untyped, and ours to handle with care

from gateway.errors import Status
from gateway.telemetry.context import Begun
from gateway.worker.transport.interface import (
    BindError,
    Headers,
    Metadata,
    Methods,
    Ready,
    StreamHandler,
    TransportSettings,
)

log = logging.getLogger(__name__)

POSTED_INFER_CALLS = 512  # ModelInfer calls the C-core may hand over before it is asked for more
POSTED_OTHER_CALLS = 64
MAX_DRAINED_EVENTS = 1024  # then what is ready is answered first: bounds the wait of the oldest
EMPTY_LOOKS = 2  # in a row: one look reads what a connection has received, and finds it only at the next look
MAX_THREADS = 64  # polling threads, with those that stand in for others held up in a run
EMPTY_FLAGS = 0
BUFFER_HINT = 1  # GRPC_WRITE_BUFFER_HINT: the message may wait for the next, to be written together with it
NOT_FOUND_METHOD = "unknown method %s: see the server's reflection service for those it has"
NO_MESSAGE = Status(code_pb2.INVALID_ARGUMENT, "the call ended without a request message")

_SENT = object()
_NEW_INFER = object()
_NEW_OTHER = object()

REQUIRED = (
    "Server",
    "CompletionQueue",
    "CompletionType",
    "SendInitialMetadataOperation",
    "SendMessageOperation",
    "SendStatusFromServerOperation",
    "ReceiveMessageOperation",
    "ReceiveCloseOnServerOperation",
)


def probe() -> str:
    """Why this grpcio cannot carry the transport; "" if it can."""
    missing = [name for name in REQUIRED if not hasattr(cygrpc, name)]
    missing += [
        f"Server.{name}"
        for name in ("register_method", "request_registered_call", "request_call", "register_completion_queue")
        if not hasattr(getattr(cygrpc, "Server", None), name)
    ]
    return f"grpcio {grpc.__version__} lacks {', '.join(missing)}" if missing else ""


class QueueCall:
    __slots__ = (
        "_close",
        "_core",
        "cancelled",
        "deadline_seconds",
        "metadata",
        "method",
        "received_ns",
        "trace",
    )
    streamed = False
    authority = ""  # the C-core does not tell it of registered methods

    def __init__(self, core: Any, method: str, metadata: Metadata, details: Any) -> None:
        self._core = core
        self.method = method
        self.metadata = metadata
        self.deadline_seconds: float = details.deadline
        self.received_ns = 0
        self.trace: Begun | None = None
        self.cancelled = False
        # Exactly one batch of a call waits for its close. Whoever pops this, in one step of the interpreter, has it.
        self._close = [cygrpc.ReceiveCloseOnServerOperation(EMPTY_FLAGS)]

    def peer(self) -> str:
        return _text(self._core.peer())

    def peer_key(self) -> bytes:
        peer: bytes = self._core.peer()
        return peer

    def watch(self) -> None:
        try:
            close = self._close.pop()
        except IndexError:  # watched already, or answered
            return
        self._core.start_server_batch((close,), self._on_close)

    def answer(self, payload: bytes, headers: Headers | None = None) -> None:
        self._finish(
            [
                cygrpc.SendInitialMetadataOperation(headers, EMPTY_FLAGS),
                cygrpc.SendMessageOperation(payload, EMPTY_FLAGS),
                cygrpc.SendStatusFromServerOperation(None, 0, b"", EMPTY_FLAGS),
            ]
        )

    def refuse(self, status: Status) -> None:
        message = status.message.encode()
        self._finish(
            [
                cygrpc.SendInitialMetadataOperation(None, EMPTY_FLAGS),
                cygrpc.SendStatusFromServerOperation(status.trailers, status.code, message, EMPTY_FLAGS),
            ]
        )

    def _finish(self, operations: list[Any]) -> None:
        try:
            operations.append(self._close.pop())
        except IndexError:
            log.debug("%s was watched: another batch waits for its close", self.method)
        try:
            self._core.start_server_batch(operations, _SENT)
        except Exception:
            log.exception("a reply could not be handed to the C-core")

    def _on_close(self, event: Any) -> None:
        self.cancelled = bool(event.batch_operations[0].cancelled())


class QueueStream:
    """At most one read and one send are in flight, as the C-core demands; further answers wait in order."""

    def __init__(self, core: Any, method: str, metadata: Metadata, details: Any) -> None:
        self._core = core
        self._peer = _text(core.peer())  # each of its records asks
        self.authority = _text(details.host)
        self.method = method
        self.metadata = metadata
        self.deadline_seconds: float = details.deadline
        self.cancelled = False
        self._handler: StreamHandler | None = None
        self._lock = threading.Lock()
        self._outgoing: deque[bytes] = deque()
        self._sending = False
        self._reading = False
        self._half_closed = False
        self._end: Status | None = None
        self._ended = False

    def peer(self) -> str:
        return self._peer

    def open(self, handler: StreamHandler) -> None:
        self._handler = handler
        self._core.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(EMPTY_FLAGS),), self._on_close)
        self._core.start_server_batch((cygrpc.SendInitialMetadataOperation(None, EMPTY_FLAGS),), _SENT)
        self.read()

    def read(self) -> None:
        with self._lock:
            if self._reading or self._half_closed or self._ended or self.cancelled:
                return
            self._reading = True
        self._core.start_server_batch((cygrpc.ReceiveMessageOperation(EMPTY_FLAGS),), self._on_read)

    def send(self, payload: bytes) -> None:
        with self._lock:
            if self._ended or self.cancelled or self._end is not None:
                return
            if self._sending:
                self._outgoing.append(payload)
                return
            self._sending = True
        self._send(payload)

    def end(self, status: Status | None = None) -> None:
        status = status or Status(0, "")
        with self._lock:
            if self._ended or self._end is not None:
                return
            self._end = status
            if self._sending:
                return
            self._ended = True
        self._send_status(status)

    def _send(self, payload: bytes, flags: int = EMPTY_FLAGS) -> None:
        self._core.start_server_batch((cygrpc.SendMessageOperation(payload, flags),), self._on_sent)

    def _send_status(self, status: Status) -> None:
        operation = cygrpc.SendStatusFromServerOperation(
            status.trailers, status.code, status.message.encode(), EMPTY_FLAGS
        )
        self._core.start_server_batch((operation,), _SENT)

    def _on_read(self, event: Any) -> tuple[Any, bytes] | None:
        payload = event.batch_operations[0].message()
        with self._lock:
            self._reading = False
            self._half_closed = payload is None
        if self._handler is None:
            return None
        if payload is None:
            self._handler.half_closed()
            return None
        return self._handler.message(payload)

    def _on_sent(self, event: Any) -> None:
        self._send_next(written=bool(event.success))
        if event.success and self._handler is not None:
            self._handler.sent()

    def _send_next(self, *, written: bool) -> None:
        with self._lock:
            if not written:
                self._outgoing.clear()
            flags = EMPTY_FLAGS
            if self._outgoing:
                payload, status = self._outgoing.popleft(), None
                if self._outgoing:  # the last one takes those before it along
                    flags = BUFFER_HINT
            else:
                self._sending = False
                payload, status = None, self._end
                if status is None or self._ended:
                    return
                self._ended = True
        if payload is not None:
            self._send(payload, flags)
        elif status is not None:
            self._send_status(status)

    def _on_close(self, event: Any) -> None:
        if not event.batch_operations[0].cancelled():
            return
        with self._lock:
            self.cancelled = True
            self._outgoing.clear()
            ended, self._ended = self._ended, True
        if self._handler is not None:
            self._handler.cancelled()
        if not ended:
            self._send_status(Status(code_pb2.CANCELLED, "cancelled"))


class QueueTransport:
    name = "queue"

    def __init__(self, settings: TransportSettings) -> None:
        self._settings = settings
        self._queue = cygrpc.CompletionQueue()
        self._server = cygrpc.Server(settings.channel_arguments(), False)
        self._server.register_completion_queue(self._queue)
        self._threads: list[threading.Thread] = []
        self._stopped = threading.Event()
        self._stopping = False
        self._closed = False

    def start(self, methods: Methods) -> int:
        """Raises BindError."""
        self._methods = methods
        self._server.register_method(methods.infer_path)
        port = self._listen()
        self._server.start()
        for _ in range(POSTED_INFER_CALLS):
            self._server.request_registered_call(self._queue, self._queue, methods.infer_path, _NEW_INFER)
        for _ in range(POSTED_OTHER_CALLS):
            self._server.request_call(self._queue, self._queue, _NEW_OTHER)
        for _ in range(self._settings.threads):
            self._start_thread()
        return port

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._poll, name=f"poll #{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def relieve(self, busy_threads: int) -> None:
        """Keeps at least the configured number of threads polling beside `busy_threads` that are held up in runs."""
        wanted = min(self._settings.threads + busy_threads, MAX_THREADS)
        while len(self._threads) < wanted and not self._closed:
            self._start_thread()

    def stop(self, grace_seconds: float) -> bool:
        """False if calls had to be cancelled at the end of the grace."""
        self._stopping = True
        self._server.shutdown(self._queue, self._on_shutdown)
        in_time = self._stopped.wait(grace_seconds)
        if not in_time:
            self._server.cancel_all_calls()
            self._stopped.wait(5.0)
        return in_time

    def close(self) -> None:
        """An answer after it would abort the process, also one to a call that was cancelled."""
        self._closed = True
        self._queue.shutdown()
        for thread in self._threads:
            thread.join(timeout=5.0)

    def _listen(self) -> int:
        tls = self._settings.tls
        address = self._settings.address.encode()
        try:
            if tls is None:
                port = self._server.add_http2_port(address)
            else:
                credentials: Any = grpc.ssl_server_credentials(
                    [(tls.key, tls.certificate)], tls.client_ca, require_client_auth=tls.client_ca is not None
                )
                port = self._server.add_http2_port(address, credentials._credentials)  # noqa: SLF001  (see module)
        except RuntimeError:
            port = 0
        if not port:
            raise BindError(f"cannot listen on {self._settings.address}: in use, not an address of this host, or TLS")
        return int(port)

    def _on_shutdown(self, _event: Any) -> None:
        self._stopped.set()

    def _poll(self) -> None:
        poll = self._queue.poll
        take = self._take_safely
        infer = self._methods.infer
        while True:
            event = poll()
            if event.tag is None and event.completion_type == cygrpc.CompletionType.queue_shutdown:
                return
            ready: Ready = []
            looked = 0
            for _ in range(MAX_DRAINED_EVENTS):
                if event.tag is None:
                    looked += 1
                    if looked == EMPTY_LOOKS or not ready:
                        break
                else:
                    looked = 0
                    take(event, ready)
                event = poll(0.0)
            else:
                if event.tag is not None:
                    take(event, ready)
            if ready:
                try:
                    infer(ready)
                except Exception:
                    log.exception("a batch of requests could not be handled")

    def _take_safely(self, event: Any, ready: Ready) -> None:
        try:
            self._take(event, ready)
        except Exception:
            log.exception("an event of the completion queue could not be handled")

    def _take(self, event: Any, ready: Ready) -> None:
        tag = event.tag
        if tag is _SENT:
            return
        if type(tag) is QueueCall:
            payload = event.batch_operations[0].message()
            tag.received_ns = time.monotonic_ns()
            if tag.method is self._methods.infer_path:
                if payload is None:
                    self._methods.empty(tag)
                else:
                    ready.append((tag, payload))
            elif payload is None:
                tag.refuse(NO_MESSAGE)
            else:
                self._methods.unary[tag.method](tag, payload)
        elif tag is _NEW_INFER:
            if event.success:
                if not self._stopping:
                    self._post_infer()
                call = QueueCall(event.call, self._methods.infer_path, event.invocation_metadata, event.call_details)
                event.call.start_server_batch((cygrpc.ReceiveMessageOperation(EMPTY_FLAGS),), call)
        elif tag is _NEW_OTHER:
            if event.success:
                self._open(event)
        else:
            request = tag(event)
            if request is not None:
                ready.append(request)

    def _post_infer(self) -> None:
        try:
            self._server.request_registered_call(self._queue, self._queue, self._methods.infer_path, _NEW_INFER)
        except ValueError:  # the server began to shut down in this moment
            if not self._stopping:
                raise

    def _open(self, event: Any) -> None:
        if not self._stopping:
            try:
                self._server.request_call(self._queue, self._queue, _NEW_OTHER)
            except ValueError:
                if not self._stopping:
                    raise
        details = event.call_details
        method = _text(details.method)
        if method in self._methods.unary:
            call = QueueCall(event.call, method, event.invocation_metadata, details)
            event.call.start_server_batch((cygrpc.ReceiveMessageOperation(EMPTY_FLAGS),), call)
            return
        make_handler: Callable[[Any], StreamHandler] | None = self._methods.streams.get(method)
        if make_handler is None:
            call = QueueCall(event.call, method, event.invocation_metadata, details)
            call.refuse(Status(code_pb2.UNIMPLEMENTED, NOT_FOUND_METHOD % method[:200]))
            return
        stream = QueueStream(event.call, method, event.invocation_metadata, details)
        stream.open(make_handler(stream))


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
