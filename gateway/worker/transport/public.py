"""The transport on grpc's public API (grpc.aio): slower, and there where the private one is not.

An event loop on a thread of its own receives; requests that arrive in one turn of the loop form one batch, which runs
on a small pool so that the loop goes on receiving.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
import grpc.aio

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

MAX_THREADS = 64  # of the pool, with those that stand in for others held up in a run
CODES = {code.value[0]: code for code in grpc.StatusCode}


class Outbox:
    """Outcomes on their way to the loop: however many threads put however many in, it is woken once for all of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._outcomes: deque[tuple[asyncio.Future[Any], Any]] = deque()
        self._woken = False

    def put(self, future: asyncio.Future[Any], outcome: Any) -> None:
        """Raises RuntimeError once the loop has ended."""
        self._outcomes.append((future, outcome))
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False  # before the first is taken: what is put in from here on wakes the loop again
        while self._outcomes:
            future, outcome = self._outcomes.popleft()
            if not future.done():
                future.set_result(outcome)


class PublicCall:
    """Answers from any thread; the RPC's coroutine waits for them."""

    __slots__ = (
        "_answer",
        "_outbox",
        "_peer",
        "cancelled",
        "deadline_seconds",
        "metadata",
        "method",
        "received_ns",
        "trace",
    )
    streamed = False
    authority = ""  # the public API does not tell

    def __init__(self, context: Any, method: str, loop: asyncio.AbstractEventLoop, outbox: Outbox) -> None:
        self._outbox = outbox
        self._answer: asyncio.Future[tuple[bytes, Headers | None] | Status] = loop.create_future()
        self._peer: str = context.peer()
        self.method = method
        self.metadata: Metadata = tuple(context.invocation_metadata() or ())
        remaining = context.time_remaining()
        self.deadline_seconds = float("inf") if remaining is None else time.time() + remaining
        self.received_ns = time.monotonic_ns()
        self.trace: Begun | None = None
        self.cancelled = False

    def peer(self) -> str:
        return self._peer

    peer_key = peer

    def watch(self) -> None:
        """`cancelled` is always kept up to date here."""

    def answer(self, payload: bytes, headers: Headers | None = None) -> None:
        self._settle((payload, headers))

    def refuse(self, status: Status) -> None:
        self._settle(status)

    async def outcome(self) -> tuple[bytes, Headers | None] | Status:
        try:
            return await self._answer
        except asyncio.CancelledError:
            self.cancelled = True
            raise

    def _settle(self, outcome: tuple[bytes, Headers | None] | Status) -> None:
        try:
            self._outbox.put(self._answer, outcome)
        except RuntimeError:  # the loop has ended: the client is gone with it
            self.cancelled = True


class PublicStream:
    authority = ""

    def __init__(self, context: Any, method: str, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self._outgoing: asyncio.Queue[bytes | Status] = asyncio.Queue()
        self._wanted = asyncio.Event()
        self._peer: str = context.peer()
        self.method = method
        self.metadata: Metadata = tuple(context.invocation_metadata() or ())
        remaining = context.time_remaining()
        self.deadline_seconds = float("inf") if remaining is None else time.time() + remaining
        self.cancelled = False

    def peer(self) -> str:
        return self._peer

    def read(self) -> None:
        self._soon(self._wanted.set)

    def send(self, payload: bytes) -> None:
        self._soon(self._outgoing.put_nowait, payload)

    def end(self, status: Status | None = None) -> None:
        self._soon(self._outgoing.put_nowait, status or Status(0, ""))

    def _soon(self, function: Callable[..., Any], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            self.cancelled = True

    async def run(self, handler: StreamHandler, admit: Callable[[Any], None]) -> None:
        reader = asyncio.create_task(self._read_forever(handler, admit))
        try:
            while True:
                item = await self._outgoing.get()
                if isinstance(item, Status):
                    break
                await self._context.write(item)
                handler.sent()
            if item.code:
                await _abort(self._context, item)
        except asyncio.CancelledError:
            self.cancelled = True
            handler.cancelled()
            raise
        finally:
            reader.cancel()

    async def _read_forever(self, handler: StreamHandler, admit: Callable[[Any], None]) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            message = await self._context.read()
            if message is grpc.aio.EOF:
                handler.half_closed()
                return
            request = handler.message(message)
            if request is not None:
                admit(request)


class PublicTransport(grpc.GenericRpcHandler):
    name = "public"

    def __init__(self, settings: TransportSettings) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._outbox = Outbox(self._loop)
        self._thread: threading.Thread | None = None
        self._threads = max(settings.threads, 2)  # inference, and the rare calls beside it
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="run")
        self._pool_threads = self._threads
        self._server: Any = None
        self._ready: Ready = []
        self._handlers: dict[str, Any] = {}

    def start(self, methods: Methods) -> int:
        """Raises BindError."""
        self._methods = methods
        self._handlers[methods.infer_path] = grpc.unary_unary_rpc_method_handler(self._infer)
        for path, unary in methods.unary.items():
            self._handlers[path] = grpc.unary_unary_rpc_method_handler(self._unary(path, unary))
        for path, opener in methods.streams.items():
            self._handlers[path] = grpc.stream_stream_rpc_method_handler(self._stream(path, opener))
        self._thread = threading.Thread(target=self._loop.run_forever, name="grpc.aio", daemon=True)
        self._thread.start()
        return asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    def relieve(self, busy_threads: int) -> None:
        """The loop receives on a thread of its own; the pool's threads are what runs hold up."""
        wanted = min(self._threads + busy_threads, MAX_THREADS)
        if wanted > self._pool_threads:
            old, self._pool = self._pool, ThreadPoolExecutor(wanted, thread_name_prefix="run")
            self._pool_threads = wanted
            old.shutdown(wait=False)

    def stop(self, grace_seconds: float) -> bool:
        started = time.monotonic()
        asyncio.run_coroutine_threadsafe(self._server.stop(grace_seconds), self._loop).result()
        return time.monotonic() - started < grace_seconds

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread is not None:
            self._thread.join(timeout=5.0)
        self._loop.close()

    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method)

    async def _start(self) -> int:
        self._server = grpc.aio.server(options=self._settings.channel_arguments(), handlers=[self])
        tls = self._settings.tls
        try:
            if tls is None:
                port = self._server.add_insecure_port(self._settings.address)
            else:
                credentials = grpc.ssl_server_credentials(
                    [(tls.key, tls.certificate)], tls.client_ca, require_client_auth=tls.client_ca is not None
                )
                port = self._server.add_secure_port(self._settings.address, credentials)
        except RuntimeError:
            port = 0
        if not port:
            raise BindError(f"cannot listen on {self._settings.address}: in use, not an address of this host, or TLS")
        await self._server.start()
        return int(port)

    async def _infer(self, payload: bytes, context: Any) -> bytes:
        call = PublicCall(context, self._methods.infer_path, self._loop, self._outbox)
        self._admit((call, payload))
        return await self._reply(call, context)

    def _admit(self, request: tuple[Any, bytes]) -> None:
        self._ready.append(request)
        if len(self._ready) == 1:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        ready, self._ready = self._ready, []
        self._submit(self._methods.infer, ready)

    def _submit(self, function: Callable[..., None], *arguments: Any) -> None:
        pool = self._pool
        try:
            pool.submit(self._run, function, *arguments)
        except RuntimeError:
            if pool is self._pool:
                raise
            self._pool.submit(self._run, function, *arguments)  # `relieve` has put another in its place meanwhile

    def _run(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            function(*arguments)
        except Exception:
            log.exception("a batch of requests could not be handled")

    def _unary(self, path: str, handle: Callable[[Any, bytes], None]) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def behaviour(payload: bytes, context: Any) -> bytes:
            call = PublicCall(context, path, self._loop, self._outbox)
            self._submit(handle, call, payload)
            return await self._reply(call, context)

        return behaviour

    def _stream(self, path: str, opener: Callable[[Any], StreamHandler]) -> Callable[[Any, Any], Awaitable[None]]:
        async def behaviour(_requests: Any, context: Any) -> None:
            stream = PublicStream(context, path, self._loop)
            handler = opener(stream)
            stream.read()
            await stream.run(handler, self._admit)

        return behaviour

    async def _reply(self, call: PublicCall, context: Any) -> bytes:
        outcome = await call.outcome()
        if isinstance(outcome, Status):
            return await _abort(context, outcome)
        payload, headers = outcome
        if headers:
            await context.send_initial_metadata(headers)
        return payload


async def _abort(context: Any, status: Status) -> NoReturn:
    code = CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    await context.abort(code, status.message, trailing_metadata=status.trailers)
    raise RuntimeError("abort returned")


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
