"""OTLP/gRPC. The payload goes out as the bytes that it is."""

from __future__ import annotations

import threading
from typing import Any

import grpc

from gateway.telemetry.otlp.retry import Attempt, failed_call
from gateway.telemetry.otlp.sender import MAX_RESPONSE_BYTES, STOPPED, TLS
from gateway.telemetry.otlp.services import Service
from gateway.telemetry.signal_settings import SignalSettings

STATUS_DETAILS = "grpc-status-details-bin"

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
    # A receiver that is back is found within these, not within gRPC's two minutes; the least is a connection's time.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # A connection that has silently gone is noticed while a call waits on it. Idle ones are not pinged: receivers on
    # grpc-go count pings that come more often than every 5 minutes, unless they answer calls in between.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
)


class GrpcSender:
    """A channel of its own, made with the first request; files of certificates are read then, once."""

    def __init__(self, settings: SignalSettings, service: Service, user_agent: str) -> None:
        self._settings = settings
        self._service = service
        self._options = [*OPTIONS, ("grpc.primary_user_agent", user_agent)]
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._call: grpc.UnaryUnaryMultiCallable[bytes, bytes] | None = None
        self._closed = False

    def pack(self, payload: bytes) -> bytes:
        """As it is: gRPC's core compresses."""
        return payload

    def send(self, body: bytes, timeout_seconds: float) -> Attempt:
        try:
            call = self._call or self._connect()
            return self._service.parse(call(body, timeout=timeout_seconds, metadata=self._settings.headers))
        except grpc.RpcError as error:
            return Attempt(STOPPED) if self._closed else _failed(error)
        except OSError as error:
            return Attempt(TLS, f"{error.filename} cannot be read: {error.strerror}")
        except ValueError:  # of a closed channel
            return Attempt(STOPPED)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._channel is not None:
                self._channel.close()

    def _connect(self) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
        with self._lock:
            if self._call is None:
                channel = self._new_channel()
                if self._closed:
                    channel.close()
                self._channel = channel
                self._call = channel.unary_unary(
                    self._service.path, request_serializer=None, response_deserializer=None
                )
            return self._call

    def _new_channel(self) -> grpc.Channel:
        settings = self._settings
        compression = grpc.Compression.Gzip if settings.compression == "gzip" else grpc.Compression.NoCompression
        if settings.insecure:
            return grpc.insecure_channel(settings.endpoint, self._options, compression)
        files = (settings.certificate, settings.client_key, settings.client_certificate)
        credentials = grpc.ssl_channel_credentials(*(None if file is None else file.read_bytes() for file in files))
        return grpc.secure_channel(settings.endpoint, credentials, self._options, compression)


def _failed(error: Any) -> Attempt:
    """`error` is a grpc.Call too, which the types of grpc cannot say."""
    trailers = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, bytes)}
    return failed_call(error.code().name, error.details() or "", trailers.get(STATUS_DETAILS, b""))
