"""OTLP/HTTP with binary protobuf. Proxies are those of the environment; redirects are not followed."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import socket
import threading
import time
import weakref
from datetime import UTC, datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any, cast

import requests
import requests.adapters
import requests.exceptions as failures
import urllib3
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from gateway.telemetry.otlp.retry import Attempt, failed_request
from gateway.telemetry.otlp.sender import MAX_RESPONSE_BYTES, STOPPED, TLS
from gateway.telemetry.otlp.services import Service
from gateway.telemetry.signal_settings import SignalSettings

PROTOBUF, JSON = "application/x-protobuf", "application/json"
GZIP_LEVEL = 1
"""Spans repeat themselves: level 6 makes them 3 % smaller than level 1, at twice the time."""
CHUNK_BYTES = 64 * 1024
TEXT_CHARACTERS = 200  # of an error page that a message shows


class HttpSender:
    """A session for each thread that sends, with connections that are kept."""

    def __init__(self, settings: SignalSettings, service: Service, user_agent: str) -> None:
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # its lines hold the URL, which may hold a key
        self._url = settings.endpoint
        self._service = service
        self._gzip = settings.compression == "gzip"
        self._headers = {"accept-encoding": "identity", **dict(settings.headers)}
        self._headers |= {"content-type": PROTOBUF, "user-agent": user_agent}
        if self._gzip:
            self._headers["content-encoding"] = "gzip"
        self._verify = str(settings.certificate) if settings.certificate else True
        self._shown = (
            (str(settings.client_certificate), str(settings.client_key)) if settings.client_certificate else None
        )
        self._local = threading.local()
        self._connections = _Connections()

    def pack(self, payload: bytes) -> bytes:
        return gzip.compress(payload, GZIP_LEVEL, mtime=0) if self._gzip else payload

    def send(self, body: bytes, timeout_seconds: float) -> Attempt:
        if self._connections.are_closed():
            return Attempt(STOPPED)
        try:
            return self._post(body, timeout_seconds)
        except (failures.RequestException, HTTPError, OSError) as error:
            return Attempt(STOPPED) if self._connections.are_closed() else _failed(error)

    def close(self) -> None:
        self._connections.close()

    def _post(self, body: bytes, timeout_seconds: float) -> Attempt:
        deadline = time.monotonic() + timeout_seconds
        # `timeout`: urllib3's own type bounds connecting and waiting for the answer together; requests takes it as it
        # is, though its types know only numbers. `verify` stands here because a session's own gives way to the
        # environment's.
        with self._session().post(
            self._url,
            data=body,
            headers=self._headers,
            timeout=cast("Any", urllib3.Timeout(total=timeout_seconds)),
            verify=self._verify,
            cert=self._shown,
            allow_redirects=False,
            stream=True,
        ) as response:
            answer = _read(response, deadline)
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if 200 <= response.status_code < 300:
                return self._taken(answer, kind)
            headers = response.headers
            message = _message(answer or b"", kind)
            if location := headers.get("location", "") if 300 <= response.status_code < 400 else "":
                message = f"redirects are not followed; this one leads to {location[:TEXT_CHARACTERS]}"
            now = datetime.now(UTC)
            return failed_request(
                response.status_code, message, headers.get("retry-after", "").strip(), headers.get("date", ""), now
            )

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            session = requests.Session()
            session.mount("http://", _Adapter(self._connections))
            session.mount("https://", _Adapter(self._connections))
            session.auth = _as_it_is  # else a ~/.netrc would replace the authorization header
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            self._local.session = session
        return cast("requests.Session", self._local.session)

    def _taken(self, answer: bytes | None, kind: str) -> Attempt:
        """An answer that says 2xx and cannot be understood has taken the request all the same, and is told of."""
        if not answer and answer is not None:
            return Attempt()
        try:
            if kind == PROTOBUF and answer is not None:
                return self._service.parse(answer)
            if kind == JSON and answer is not None:
                response = self._service.new_response()
                json_format.ParseDict(json.loads(answer), response, ignore_unknown_fields=True)
                return self._service.taken(response)
        except (DecodeError, json_format.ParseError, ValueError):
            pass
        size = f"{len(answer)} bytes" if answer is not None else f"more than {MAX_RESPONSE_BYTES} bytes"
        return Attempt(message=f"expected an answer of type {PROTOBUF}, got {size} of {kind or 'no type'}")


class _Connections:
    """The open ones, so that `close` can end what waits on them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()
        self._closed = False

    def are_closed(self) -> bool:
        return self._closed

    def add(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._open.add(connection)
            closed = self._closed
        if closed:
            _shut(connection)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            connections = list(self._open)
        for connection in connections:
            _shut(connection)


class _Adapter(requests.adapters.HTTPAdapter):
    """Makes connections that report themselves once they are made."""

    def __init__(self, connections: _Connections) -> None:
        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                connections.add(self)

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                connections.add(self)

        class PlainPool(urllib3.HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(urllib3.HTTPSConnectionPool):
            ConnectionCls = Secure

        self._pools = {"http": PlainPool, "https": SecurePool}
        super().__init__(max_retries=0)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **options)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _shut(connection: HTTPConnection) -> None:
    """Whoever reads or writes there sees the end at once; its own thread closes it."""
    if connection.sock is not None:
        with contextlib.suppress(OSError):  # it is closed already
            # Not SSLSocket's own, which takes the TLS state away from under a reader.
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)


def _read(response: requests.Response, deadline: float) -> bytes | None:
    """The whole body; None: there is more than MAX_RESPONSE_BYTES."""
    answer = bytearray()
    while chunk := response.raw.read1(CHUNK_BYTES, decode_content=False):
        answer += chunk
        if len(answer) > MAX_RESPONSE_BYTES:
            return None
        if time.monotonic() > deadline:
            raise failures.ReadTimeout
    return bytes(answer)


def _message(answer: bytes, kind: str) -> str:
    if kind == PROTOBUF:
        try:
            return str(status_pb2.Status.FromString(answer).message)
        except DecodeError:
            return ""
    return " ".join(answer[: 4 * TEXT_CHARACTERS].decode(errors="replace").split())[:TEXT_CHARACTERS]


def _failed(error: Exception) -> Attempt:
    message = str(_innermost(error))
    match error:
        case failures.SSLError():
            return Attempt(TLS, message, retryable=True)
        case failures.ConnectTimeout():
            return Attempt("timeout", "no connection was made in time", retryable=True)
        case failures.Timeout() | urllib3.exceptions.TimeoutError():
            return Attempt("timeout", "no answer came in time", retryable=True)
        case failures.ConnectionError() | HTTPError():
            return Attempt("connection", message, retryable=True)
        case failures.RequestException():  # not a connection's fault: it cannot be sent
            return Attempt("request", message)
    return Attempt(TLS, message)  # OSError: requests looks for the files before it connects


def _innermost(error: BaseException) -> BaseException:
    """The one that says what was wrong: those around it name the URL, with its query, and Python's objects."""
    parts = (getattr(error, "reason", None), *error.args, error.__cause__)
    inner = next((part for part in parts if isinstance(part, BaseException)), None)
    return error if inner is None else _innermost(inner)
