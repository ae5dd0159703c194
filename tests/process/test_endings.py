"""How the gateway ends: health first, then the port, while what is in flight finishes, within the grace."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.admin import until
from support.gateway import Gateway
from support.leaks import is_free
from support.load import infer_request
from support.predict import Client, client_of
from zoo import slow, versioned, write_version

from gateway.wire.pb.inference import grpc_service_pb2 as pb

pytestmark = pytest.mark.process

STEP_SECONDS = 2.5e-6
BELOW_GRACE_SECONDS = 20.0
"""The grace is 30 s where nothing is configured, and runs that are in flight would take 60."""
DELAY_SECONDS = 1.5
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """`slow` takes about a second a run, `quick` nothing."""
    root = tmp_path / "models"
    write_version(root, "slow", 1, slow(int(1.0 / STEP_SECONDS)))
    (root / "slow" / "model.yaml").write_text("warmup: {enabled: false}\n")
    write_version(root, "quick", 1, versioned(10.0))
    return root


def slow_request() -> pb.ModelInferRequest:
    return infer_request("slow", np.ones((1, 64), np.float32))


@contextmanager
def in_flight(gateway: Gateway, client: Client, count: int) -> Iterator[list[Any]]:
    """`count` slow requests under way, as the gateway's own figures say."""
    calls = [client.begin("ModelInfer", slow_request()) for _ in range(count)]
    until(lambda: gateway.metric("driftgate_request_in_flight") == count, "requests are in flight")
    yield calls


class HealthWatch:
    """grpc.health.v1 Watch of the server: every status, and when it came."""

    def __init__(self, client: Client) -> None:
        stub = health_pb2_grpc.HealthStub(client.channel)
        self._call = stub.Watch(health_pb2.HealthCheckRequest(), timeout=30)
        self.statuses: list[tuple[int, float]] = []
        self.end: tuple[grpc.StatusCode, float] | None = None
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._first.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _read(self) -> None:
        try:
            for response in self._call:
                self.statuses.append((response.status, time.monotonic()))
                self._first.set()
        except grpc.RpcError:
            pass
        self.end = (self._call.code(), time.monotonic())


def connects(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False


def test_sigterm_flips_health_lets_requests_finish_and_ends_with_0(models: Path, tmp_path: Path) -> None:
    config = {"drain": {"delay_seconds": DELAY_SECONDS}}
    gateway = Gateway(models, tmp_path / "state", config=config)
    gateway.start()
    with client_of(gateway.grpc) as client, client_of(gateway.grpc) as watcher, HealthWatch(watcher) as health:
        with in_flight(gateway, client, 2) as calls:
            told = time.monotonic()
            assert gateway.process is not None
            gateway.process.send_signal(signal.SIGTERM)
            until(lambda: gateway.get("/readyz")[0] == 503, "/readyz flips", 5)
            assert '"shutting down"' in gateway.get("/readyz")[1]
            assert gateway.get("/livez")[0] == 200
            until(lambda: len(health.statuses) > 1, "a health watch is told", 5)
            assert connects(gateway.grpc), "health has flipped, and the port is still open"
            assert client.predict("quick") == (1, 10.0), "who has not noticed yet is served"
            until(lambda: not connects(gateway.grpc), "the port closes", 5)
            closed = time.monotonic()
            assert [call.code() for call in calls] == [grpc.StatusCode.OK] * 2
        assert gateway.process.wait(20) == 0
        gateway.process = None
    assert [status for status, _ in health.statuses] == [SERVING, NOT_SERVING]
    flipped = health.statuses[1][1]
    print(f"\nSIGTERM → health {flipped - told:.3f} s → port {closed - told:.3f} s → end")
    assert flipped < closed
    assert told + DELAY_SECONDS <= closed + 0.05, "not before the delay has passed"
    assert health.end is not None
    assert health.end[0] in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)


def test_with_a_watch_open_and_nothing_in_flight_the_gateway_ends_at_once_and_frees_its_ports(
    models: Path, tmp_path: Path
) -> None:
    gateway = Gateway(models, tmp_path / "state", workers=2)
    gateway.start()
    addresses = [str(gateway.endpoints[name]) for name in ("grpc", "http", "admin")]
    assert [is_free(address) for address in addresses] == [False] * 3
    with client_of(gateway.grpc) as watcher, HealthWatch(watcher) as health:
        began = time.monotonic()
        assert gateway.stop(BELOW_GRACE_SECONDS) == 0
        took = time.monotonic() - began
    print(f"\nan idle gateway ends in {took:.2f} s")
    assert [is_free(address) for address in addresses] == [True] * 3
    assert [status for status, _ in health.statuses] == [SERVING, NOT_SERVING]


def test_requests_that_outlast_the_grace_are_cut_off_and_the_gateway_ends(models: Path, tmp_path: Path) -> None:
    """The exit status is still 0: ending was asked for, and done as configured; the log names it."""
    write_version(models, "slow", 1, slow(int(60.0 / STEP_SECONDS)))
    gateway = Gateway(models, tmp_path / "state", config={"drain": {"grace_seconds": 0.5}})
    gateway.start()
    with client_of(gateway.grpc) as client, in_flight(gateway, client, 1) as calls:
        began = time.monotonic()
        status = gateway.stop(BELOW_GRACE_SECONDS)  # the run itself is stopped, too
        took = time.monotonic() - began
        code = calls[0].code()
    print(f"\ngrace 0.5 s, request of 60 s: ended after {took:.2f} s with {status}")
    assert status == 0
    assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert "ended with requests in flight: the grace of 0.5 s passed" in gateway.log


def test_a_second_signal_does_not_cut_the_drain_short(models: Path, tmp_path: Path) -> None:
    gateway = Gateway(models, tmp_path / "state")
    gateway.start()
    with client_of(gateway.grpc) as client, in_flight(gateway, client, 1) as calls:
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGINT)
        until(lambda: "draining" in gateway.log, "the drain begins")
        gateway.process.send_signal(signal.SIGTERM)
        assert calls[0].code() is grpc.StatusCode.OK
        assert gateway.process.wait(20) == 0
        gateway.process = None


@pytest.mark.parametrize("transport", ["queue", "public"])
def test_a_run_whose_client_has_left_does_not_hold_up_the_end(models: Path, tmp_path: Path, transport: str) -> None:
    write_version(models, "slow", 1, slow(int(60.0 / STEP_SECONDS)))
    gateway = Gateway(models, tmp_path / "state", config={"transport": transport})
    gateway.start()
    with client_of(gateway.grpc) as client, in_flight(gateway, client, 1) as calls:
        calls[0].cancel()
        assert gateway.stop(BELOW_GRACE_SECONDS) == 0
    assert "Check failure" not in gateway.log
    assert "grace" not in gateway.log.partition("draining")[2].partition("\n")[2]
