"""grpc.health.v1: the server as "", the service by its name, each model as "model", each version as "model/version"."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from gateway.errors import status_of
from gateway.worker.transport.interface import Call, Stream
from runtime.errors import InvalidRequest, NotFound, Overloaded

SERVING: int = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: int = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN: int = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
MAX_WATCHES = 1024


class Health:
    """`set_all` replaces every status; watchers hear of theirs only when it changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._statuses: dict[str, int] = {"": NOT_SERVING}
        self._watches: set[Watch] = set()
        self._ended = False

    def set_all(self, statuses: Mapping[str, bool]) -> None:
        with self._lock:
            self._statuses = {name: SERVING if up else NOT_SERVING for name, up in statuses.items()}
            watches = list(self._watches)
        for watch in watches:
            watch.tell()

    def status(self, service: str) -> int:
        return self._statuses.get(service, SERVICE_UNKNOWN)

    def check(self, call: Call, payload: bytes) -> None:
        try:
            service = _service(payload)
            status = self.status(service)
            if status == SERVICE_UNKNOWN:
                raise NotFound(f"no service or model {service[:200]!r} here")
        except Exception as error:
            call.refuse(status_of(error, CHECK))
            return
        call.answer(health_pb2.HealthCheckResponse(status=status).SerializeToString())

    def watch(self, stream: Stream) -> Watch:
        return Watch(self, stream)

    @property
    def ended(self) -> bool:
        """True once watches are no longer kept open."""
        return self._ended

    def add(self, watch: Watch) -> bool:
        with self._lock:
            if len(self._watches) >= MAX_WATCHES:
                return False
            self._watches.add(watch)
            return True

    def remove(self, watch: Watch) -> None:
        with self._lock:
            self._watches.discard(watch)

    def end_watches(self) -> None:
        """At shutdown: a watch would otherwise hold the drain until its grace ends."""
        with self._lock:
            self._ended = True
            watches = list(self._watches)
            self._watches.clear()
        for watch in watches:
            watch.stream.end()


class Watch:
    """One Watch call: the status now, then each change. The transport gives it one message and its end."""

    def __init__(self, health: Health, stream: Stream) -> None:
        self._health = health
        self.stream = stream
        self._service: str | None = None
        self._told: int | None = None
        self._sending = False
        self._lock = threading.Lock()

    def message(self, payload: bytes) -> None:
        try:
            service = _service(payload)
            if not self._health.add(self):
                raise Overloaded(f"{MAX_WATCHES} health watches are open, the limit", retry_after_seconds=1.0)
        except Exception as error:
            self.stream.end(status_of(error, WATCH))
            return
        self._service = service
        if self.stream.cancelled:  # before it was added
            self._health.remove(self)
            return
        self.tell()
        if self._health.ended:
            self.stream.end()
        else:
            self.stream.read()

    def tell(self) -> None:
        with self._lock:
            if self._service is None:
                return
            status = self._health.status(self._service)
            if status == self._told or self._sending:
                return
            self._told = status
            self._sending = True
            self.stream.send(health_pb2.HealthCheckResponse(status=status).SerializeToString())

    def sent(self) -> None:
        """A slow reader is told the latest status, not all that were between."""
        with self._lock:
            self._sending = False
        self.tell()

    def half_closed(self) -> None:
        """A watch has one message; it lasts until the client cancels."""

    def cancelled(self) -> None:
        self._health.remove(self)


def _service(payload: bytes) -> str:
    try:
        return str(health_pb2.HealthCheckRequest.FromString(payload).service)
    except DecodeError:
        raise InvalidRequest("the bytes received are not a grpc.health.v1.HealthCheckRequest") from None
