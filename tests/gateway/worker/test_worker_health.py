"""grpc.health.v1: the status now, then each change and nothing else."""

from __future__ import annotations

import pytest
from google.rpc import code_pb2
from grpc_health.v1 import health_pb2

from gateway.errors import Status
from gateway.worker import health as module
from gateway.worker.health import Health, Watch
from gateway.worker.transport.interface import Metadata

NOT_SERVING, SERVING, UNKNOWN = (
    health_pb2.HealthCheckResponse.NOT_SERVING,
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.SERVICE_UNKNOWN,
)


class Said:
    """A Call and a Stream that keep, in order, what the client would get."""

    method = module.CHECK
    metadata: Metadata = ()
    deadline_seconds = float("inf")
    cancelled = False

    def __init__(self) -> None:
        self.said: list[object] = []

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def watch(self) -> None: ...

    def read(self) -> None:
        self.said.append("reads on")

    def answer(self, payload: bytes, headers: Metadata | None = None) -> None:
        self.said.append(health_pb2.HealthCheckResponse.FromString(payload).status)

    def send(self, payload: bytes) -> None:
        self.said.append(health_pb2.HealthCheckResponse.FromString(payload).status)

    def refuse(self, status: Status) -> None:
        self.said.append((status.code, status.message))

    def end(self, status: Status | None = None) -> None:
        self.said.append((status.code, status.message) if status is not None else "end")


def asks(service: str) -> bytes:
    return bytes(health_pb2.HealthCheckRequest(service=service).SerializeToString())


def check(health: Health, service: str) -> list[object]:
    call = Said()
    health.check(call, asks(service))
    return call.said


def watch(health: Health, service: str) -> tuple[Watch, list[object]]:
    stream = Said()
    made = health.watch(stream)
    made.message(asks(service))
    made.sent()
    return made, stream.said


def test_before_anything_is_known_the_server_does_not_serve() -> None:
    assert check(Health(), "") == [NOT_SERVING]


def test_a_check_answers_what_was_set_last() -> None:
    health = Health()
    health.set_all({"": True, "m": False, "m/1": True})
    assert [check(health, name) for name in ("", "m", "m/1")] == [[SERVING], [NOT_SERVING], [SERVING]]
    health.set_all({"": False})
    assert check(health, "") == [NOT_SERVING]


def test_a_check_of_what_is_not_here_is_not_found() -> None:
    health = Health()
    health.set_all({"": True, "m": True})
    health.set_all({"": True})
    assert check(health, "m") == [(code_pb2.NOT_FOUND, "no service or model 'm' here")]
    assert check(health, "x" * 1000) == [(code_pb2.NOT_FOUND, f"no service or model '{'x' * 200}' here")]


def test_bytes_that_are_no_request_are_refused() -> None:
    call, stream = Said(), Said()
    health = Health()
    health.check(call, b"\xff\xff")
    health.watch(stream).message(b"\xff\xff")
    refused = (code_pb2.INVALID_ARGUMENT, "the bytes received are not a grpc.health.v1.HealthCheckRequest")
    assert (call.said, stream.said) == ([refused], [refused])


def test_a_watch_gets_the_status_now_and_then_each_change_once() -> None:
    health = Health()
    made, said = watch(health, "m")
    assert said == [UNKNOWN, "reads on"], "it may be loaded later, so the watch goes on"
    for up in (True, True, False, True):
        health.set_all({"": True, "m": up})
        made.sent()
    health.set_all({"": True})
    assert said[2:] == [SERVING, NOT_SERVING, SERVING, UNKNOWN]


def test_a_watch_hears_nothing_of_other_services() -> None:
    health = Health()
    health.set_all({"a": True, "b": True})
    _, said = watch(health, "a")
    health.set_all({"a": True, "b": False})
    assert said == [SERVING, "reads on"]


def test_a_watch_that_is_cancelled_hears_no_more() -> None:
    health = Health()
    made, said = watch(health, "")
    made.half_closed()
    made.cancelled()
    health.set_all({"": True})
    assert said == [NOT_SERVING, "reads on"]


def test_watches_end_when_the_server_does_and_later_ones_get_one_answer() -> None:
    health = Health()
    health.set_all({"": True})
    _, said = watch(health, "")
    health.set_all({"": False})
    health.end_watches()
    _, late = watch(health, "")
    assert said == [SERVING, "reads on", NOT_SERVING, "end"]
    assert late == [NOT_SERVING, "end"]


def test_watches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WATCHES", 1)
    health = Health()
    first, _ = watch(health, "")
    _, said = watch(health, "")
    assert said == [(code_pb2.RESOURCE_EXHAUSTED, "1 health watches are open, the limit")]
    first.cancelled()
    assert watch(health, "")[1] == [NOT_SERVING, "reads on"]


def test_a_slow_reader_is_told_the_latest_status_and_not_all_between() -> None:
    health = Health()
    health.set_all({"": True})
    made, said = watch(health, "")
    for up in (False, True, False, True, False):
        health.set_all({"": up})
    assert said == [SERVING, "reads on", NOT_SERVING], "one answer is held for a client that does not read"
    health.set_all({"": True})
    made.sent()
    assert said == [SERVING, "reads on", NOT_SERVING, SERVING]
