"""An OTLP receiver that fails on demand: gRPC and HTTP, three signals, TLS and mTLS.

In a test:

    with OtlpReceiver() as receiver:
        receiver.answer_with(UNAVAILABLE, OK)
        ...
        receiver.wait_for(lambda: receiver.counts["traces"] == 100)

As a process of its own, with tests/ on PYTHONPATH, `python -m support.receiver --grpc 0 --http 0 [--count-only]` prints
one line of JSON with its ports, and another with its counts when SIGTERM ends it. Its HTTP port then also answers
`GET /counts`, and takes the answer to all further requests as fields of Fault: `POST /fault` with
`{"code": "UNAVAILABLE", "status": 503}`, or `{}` for OK.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import select
import signal
import socket
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import grpc

from support.received import OK, PROTOBUF, SIGNALS, Fault, Received

HOST = "127.0.0.1"
GZIP_MAGIC = b"\x1f\x8b"
WAIT_SECONDS = 20.0
GRPC_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.per_message_decompression", 0),  # so that compression and size on the wire can be seen
)


@dataclass(frozen=True)
class ServerTls:
    """PEM files; with `client_ca`, clients must show a certificate of it."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


class OtlpReceiver:
    """Listens from construction on. Thread-safe. `http_connections`: made so far. `closing`: what waits is to end."""

    def __init__(
        self, *, grpc_port: int = 0, http_port: int = 0, tls: ServerTls | None = None, count_only: bool = False
    ) -> None:
        self.count_only = count_only
        self._tls = tls
        self._changed = threading.Condition()
        self._script: deque[Fault] = deque()
        self._always = OK
        self._waiting = 0
        self._attempts: list[Received] = []
        self._counts = dict.fromkeys((*SIGNALS, "rejected", "requests", "refused"), 0)
        self.closing = threading.Event()
        self.http_connections = 0
        self.grpc_port, self.http_port = grpc_port, http_port
        self.listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_listening()

    @property
    def grpc(self) -> str:
        return f"{HOST}:{self.grpc_port}"

    @property
    def http(self) -> str:
        return f"{'https' if self._tls else 'http'}://{HOST}:{self.http_port}"

    def answer_with(self, *faults: Fault) -> None:
        """To the next requests, one each; those after them get what `answer_always` said."""
        with self._changed:
            self._script.extend(faults)

    def answer_always(self, fault: Fault) -> None:
        with self._changed:
            self._always = fault

    @property
    def attempts(self) -> list[Received]:
        """All requests, taken or not, in the order of their answers; none where the receiver only counts."""
        with self._changed:
            return list(self._attempts)

    @property
    def taken(self) -> list[Received]:
        return [received for received in self.attempts if received.taken]

    @property
    def counts(self) -> dict[str, int]:
        """By signal what was taken and not rejected; `rejected`; `requests` taken; `refused` requests."""
        with self._changed:
            return dict(self._counts)

    @property
    def waiting(self) -> int:
        """Requests that a slow answer holds up now."""
        with self._changed:
            return self._waiting

    @property
    def spans(self) -> list[Any]:
        return [span for received in self.taken if received.signal == "traces" for span in received.items]

    @property
    def metrics(self) -> list[Any]:
        return [metric for received in self.taken if received.signal == "metrics" for metric in received.items]

    @property
    def log_records(self) -> list[Any]:
        return [record for received in self.taken if received.signal == "logs" for record in received.items]

    def wait_for(self, holds: Callable[[], bool], timeout_seconds: float = WAIT_SECONDS) -> None:
        """Asked again after each request."""
        with self._changed:
            assert self._changed.wait_for(holds, timeout_seconds), f"not within {timeout_seconds} s: {self._counts}"

    def listen(self) -> None:
        """Again, on the same ports, after `stop_listening`."""
        self.closing = threading.Event()
        self._threads = futures.ThreadPoolExecutor(16, "receiver grpc")
        self._grpc = grpc.server(self._threads, options=GRPC_OPTIONS)
        self._grpc.add_generic_rpc_handlers([self._grpc_handler(name) for name in SIGNALS])
        if self._tls is None:
            self.grpc_port = self._grpc.add_insecure_port(self.grpc)
        else:
            self.grpc_port = self._grpc.add_secure_port(self.grpc, _grpc_credentials(self._tls))
        self._grpc.start()
        self._http = _HttpServer((HOST, self.http_port), self, None if self._tls is None else _ssl_context(self._tls))
        self.http_port = self._http.server_port
        self._http_thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="receiver http")
        self._http_thread.start()

    def stop_listening(self) -> None:
        """As if killed: connections end, what waits for its answer gets none."""
        self.closing.set()
        self._grpc.stop(None).wait()
        self._threads.shutdown()
        self._http.shutdown()
        self._http.end_connections()
        self._http.server_close()
        self._http_thread.join()

    def receive(
        self, name: str, protocol: str, path: str, headers: Mapping[str, str], body: bytes, is_gone: Callable[[], bool]
    ) -> Fault | None:
        """The answer; None: nobody waits for it, or the receiver ends."""
        packed = body.startswith(GZIP_MAGIC)
        payload = gzip.decompress(body) if packed else body
        count = SIGNALS[name].count(SIGNALS[name].request.FromString(payload))
        closing = self.closing
        with self._changed:
            fault = self._script.popleft() if self._script else self._always
        if fault.seconds:
            self._note_waiting(1)
            _wait(closing, fault.seconds, is_gone)
            self._note_waiting(-1)
        answered = not closing.is_set() and not is_gone()
        taken = answered and not fault.fails(protocol)
        with self._changed:
            if taken:
                self._counts[name] += max(0, count - fault.rejected)
                self._counts["rejected"] += min(count, fault.rejected)
            self._counts["requests" if taken else "refused"] += 1
            if not self.count_only:
                encoding = "gzip" if packed else "none"
                received = Received(name, protocol, path, headers, encoding, len(body), payload, count, fault, taken)
                self._attempts.append(received)
            self._changed.notify_all()
        return fault if answered else None

    def _note_waiting(self, change: int) -> None:
        with self._changed:
            self._waiting += change
            self._changed.notify_all()

    def response(self, name: str, fault: Fault) -> bytes:
        if fault.body is not None:
            return fault.body
        response = SIGNALS[name].response()
        if fault.rejected or fault.message:
            setattr(response.partial_success, SIGNALS[name].rejected_field, fault.rejected)
            response.partial_success.error_message = fault.message
        return bytes(response.SerializeToString())

    def _grpc_handler(self, name: str) -> Any:
        def export(body: bytes, context: grpc.ServicerContext) -> bytes:
            headers = {item.key: str(item.value) for item in context.invocation_metadata()}
            path = f"/{SIGNALS[name].service}/Export"
            fault = self.receive(name, "grpc", path, headers, body, lambda: not context.is_active())
            if fault is None:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the receiver ends")
            elif fault.code:
                context.set_trailing_metadata((("grpc-status-details-bin", fault.details()),))
                context.abort(grpc.StatusCode[fault.code], fault.message)
            else:
                return self.response(name, fault)
            raise AssertionError("abort raises")

        handlers = {"Export": grpc.unary_unary_rpc_method_handler(export)}
        return grpc.method_handlers_generic_handler(SIGNALS[name].service, handlers)


def _wait(closing: threading.Event, seconds: float, is_gone: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and not is_gone():
        if closing.wait(min(left, 0.05)):
            return


def _grpc_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
    roots = tls.client_ca.read_bytes() if tls.client_ca else None
    return grpc.ssl_server_credentials([pair], roots, require_client_auth=roots is not None)


def _ssl_context(tls: ServerTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    if tls.client_ca:
        context.load_verify_locations(tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = False  # so that `server_close` waits for them

    def __init__(self, address: tuple[str, int], receiver: OtlpReceiver, context: ssl.SSLContext | None) -> None:
        self.receiver = receiver
        self._context = context
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        super().__init__(address, _HttpHandler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, peer = super().get_request()
        if self._context is not None:  # the handshake is made by the connection's own thread
            connection = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self._connections.add(connection)
            self.receiver.http_connections += 1
        return connection, peer

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):  # the client was first
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves, or shows no certificate, is nothing to print."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _HttpHandler(BaseHTTPRequestHandler):
    server: _HttpServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # the answer leaves in one piece
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        found = self.path == "/counts"
        self._answer(200 if found else 404, "application/json", json.dumps(self.server.receiver.counts).encode())

    def do_POST(self) -> None:
        receiver = self.server.receiver
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/fault":
            receiver.answer_always(Fault(**json.loads(body)))
            self._answer(200, "application/json", b"{}")
            return
        name = self.path.partition("?")[0].rpartition("/")[2]
        if name not in SIGNALS or self.headers["content-type"] != PROTOBUF:
            self._answer(400, "text/plain", b"expected protobuf at /v1/traces, /v1/metrics or /v1/logs")
            return
        headers = {key.lower(): value for key, value in self.headers.items()}
        fault = receiver.receive(name, "http", self.path, headers, body, self._is_gone)
        if fault is None:
            self.close_connection = True
            return
        answer = fault.details() if fault.fails("http") else receiver.response(name, fault)
        more = list(fault.headers)
        if fault.told_seconds is not None:
            more.append(("retry-after", str(int(fault.told_seconds))))
        self._answer(fault.status, fault.kind, answer if fault.body is None else fault.body, more, fault.drip_seconds)

    def _answer(
        self, status: int, kind: str, body: bytes, more: Iterable[tuple[str, str]] = (), drip_seconds: float = 0.0
    ) -> None:
        self.send_response(status)
        for key, value in (("content-type", kind), ("content-length", str(len(body))), *more):
            self.send_header(key, value)
        self.end_headers()
        for part in [body[at : at + 1] for at in range(len(body))] if drip_seconds else [body]:
            self.wfile.write(part)
            if drip_seconds:
                self.wfile.flush()
                _wait(self.server.receiver.closing, drip_seconds, self._is_gone)
                if self._is_gone():
                    return

    def _is_gone(self) -> bool:
        """A client that waits for its answer sends nothing, so what can be read is its end."""
        return bool(select.select([self.connection], [], [], 0)[0])

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class names it so
        pass


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="An OTLP receiver that fails on demand.")
    parser.add_argument("--grpc", type=int, default=0, help="port of OTLP/gRPC; 0: any")
    parser.add_argument("--http", type=int, default=0, help="port of OTLP/HTTP, /counts and /fault; 0: any")
    parser.add_argument("--count-only", action="store_true", help="keep counts, not what was received")
    options = parser.parse_args(arguments)
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    with OtlpReceiver(grpc_port=options.grpc, http_port=options.http, count_only=options.count_only) as receiver:
        print(json.dumps({"grpc": receiver.grpc_port, "http": receiver.http_port}), flush=True)
        ending.wait()
    print(json.dumps(receiver.counts), flush=True)


if __name__ == "__main__":
    main()
