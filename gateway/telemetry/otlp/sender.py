"""What carries a request: one try over gRPC or HTTP."""

from __future__ import annotations

from typing import Protocol

from gateway.telemetry.otlp.retry import Attempt

MAX_RESPONSE_BYTES = 4 * 1024 * 1024
"""A receiver's answer is some bytes; this is gRPC's own bound."""

STOPPED = "stopped"
"""The reason of what `close` ended."""
TLS = "tls"
"""The reason where a certificate's file is not right; over HTTP also where the handshake failed."""


class Sender(Protocol):
    """Thread-safe. Foreign exceptions end here: `send` maps each to an Attempt."""

    def pack(self, payload: bytes) -> bytes:
        """The body of every try of this payload."""
        ...

    def send(self, body: bytes, timeout_seconds: float) -> Attempt: ...

    def close(self) -> None:
        """Ends what is under way."""
        ...
