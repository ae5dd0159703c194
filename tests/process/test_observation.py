"""Every row that was answered is in the windows, over all workers, whatever is killed: but for what a killed worker had
not handed over."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import psutil
import pytest
from support.admin import Refused, admin_of, until
from support.gateway import Gateway
from support.load import infer_request
from support.predict import Client, client_of
from zoo import versioned, write_version

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from gateway.wire.pb.driftgate.admin.v1.admin_pb2_grpc import AdminStub

pytestmark = pytest.mark.process

PANE_SECONDS = 1
HOUR = 3600
STATISTICS = {"pane_seconds": PANE_SECONDS, "windows_seconds": [60, HOUR], "drift_window_seconds": 60}
ROWS = 4
CLIENTS = 4


def features(gateway: Gateway, model: str = "served", window_seconds: int = HOUR) -> pb.GetFeaturesResponse:
    request = pb.GetFeaturesRequest(model=model, window_seconds=window_seconds)
    response: pb.GetFeaturesResponse = call(gateway, "GetFeatures", request)
    return response


def settled_rows(gateway: Gateway) -> int:
    """The rows in the window, once two panes have passed without another."""
    rows, since = -1, time.monotonic()

    def settled() -> bool:
        nonlocal rows, since
        now_rows = features(gateway).window.rows
        if now_rows != rows:
            rows, since = now_rows, time.monotonic()
        return time.monotonic() - since > 2.5 * PANE_SECONDS

    until(settled, "the window has all rows")
    return rows


class Traffic:
    """Threads that ask until told to end. `answered`: when each answer came, and how many rows it had."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self.answered: list[float] = []
        self.failed = 0
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    @property
    def rows(self) -> int:
        return ROWS * len(self.answered)

    def since(self, moment_seconds: float) -> int:
        """Rows answered from then on."""
        return ROWS * sum(answered >= moment_seconds for answered in self.answered)

    def _ask(self) -> None:
        x = np.random.default_rng(1).normal(size=(ROWS, 4)).astype(np.float32)
        request = infer_request("served", x)
        while not self._ending.is_set():
            with client_of(self._address) as client:
                self._ask_until_refused(client, request)

    def _ask_until_refused(self, client: Client, request: Any) -> None:
        while not self._ending.is_set():
            try:
                client.ask("ModelInfer", request)
            except Refused:
                with self._lock:
                    self.failed += 1
                return
            with self._lock:
                self.answered.append(time.time())

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_version(tmp_path / "models", "served", 1, versioned(10.0))
    return tmp_path / "models"


@contextmanager
def running(repository: Path, state: Path, workers: int = 2) -> Iterator[Gateway]:
    with Gateway(repository, state, workers=workers, config={"statistics": STATISTICS}) as gateway:
        yield gateway


def answered(traffic: Traffic, rows: int) -> None:
    until(lambda: traffic.rows >= rows, f"{rows} rows are answered")


def test_each_answered_row_is_in_the_window_once_and_a_restart_keeps_it(repository: Path, tmp_path: Path) -> None:
    with running(repository, tmp_path / "state") as gateway:
        with Traffic(gateway.grpc) as traffic:
            answered(traffic, 4_000)
        assert settled_rows(gateway) == traffic.rows
        (x, *_) = features(gateway).features
        assert x.live.rows == traffic.rows
    with running(repository, tmp_path / "state") as gateway:
        assert features(gateway).window.rows == traffic.rows
        with Traffic(gateway.grpc) as more:
            answered(more, 400)
        assert settled_rows(gateway) == traffic.rows + more.rows


def test_what_workers_hold_when_the_gateway_ends_is_kept(repository: Path, tmp_path: Path) -> None:
    with running(repository, tmp_path / "state") as gateway, Traffic(gateway.grpc) as traffic:
        answered(traffic, 2_000)
        traffic.__exit__()
    with running(repository, tmp_path / "state") as gateway:
        assert features(gateway).window.rows == traffic.rows


def test_a_killed_worker_loses_at_most_its_open_pane(repository: Path, tmp_path: Path) -> None:
    with running(repository, tmp_path / "state") as gateway, Traffic(gateway.grpc) as traffic:
        at_risk = 0
        for kill in range(3):
            answered(traffic, 2_000 * (kill + 1))
            began = time.time() // PANE_SECONDS * PANE_SECONDS - PANE_SECONDS  # its pane may have been closed late
            worker = gateway.children("worker")[kill % 2]
            worker.kill()
            at_risk += traffic.since(began)
            psutil.wait_procs([worker], 10)
            until(lambda: serving(gateway) == 2, "both workers serve")
        answered(traffic, traffic.rows + 2_000)
        traffic.__exit__()
        rows = settled_rows(gateway)
        in_flight = ROWS * traffic.failed  # measured, and the answer never came
        assert traffic.rows - at_risk <= rows <= traffic.rows + in_flight


def test_a_killed_control_loses_nothing_and_counts_nothing_twice(repository: Path, tmp_path: Path) -> None:
    with running(repository, tmp_path / "state") as gateway, Traffic(gateway.grpc) as traffic:
        for kill in range(3):
            answered(traffic, 2_000 * (kill + 1))
            (control,) = gateway.children("control")
            control.kill()
            psutil.wait_procs([control], 10)
            gateway.wait_ready()
        traffic.__exit__()
        assert settled_rows(gateway) == traffic.rows


def test_after_everything_was_killed_what_was_stored_is_there(repository: Path, tmp_path: Path) -> None:
    gateway = Gateway(repository, tmp_path / "state", workers=2, config={"statistics": STATISTICS})
    gateway.start()
    with Traffic(gateway.grpc) as traffic:
        answered(traffic, 4_000)
    stored = settled_rows(gateway)
    everyone = [gateway.supervisor, *gateway.children()]
    for process in everyone:
        process.kill()
    gateway.process.wait(10)
    psutil.wait_procs(everyone, 10)
    with running(repository, tmp_path / "state") as again:
        assert features(again).window.rows == stored == traffic.rows


def test_live_rows_become_the_reference_and_the_audit_tells_it_once(repository: Path, tmp_path: Path) -> None:
    with running(repository, tmp_path / "state") as gateway, admin_of(gateway.admin, "ana") as admin:
        asked = pb.SetReferenceRequest(model="served", version=1, kind="live", live_rows=1_000, reason="a good week")
        assert call(gateway, "SetReference", asked).changed
        with Traffic(gateway.grpc) as traffic:
            answered(traffic, 1_000)

            def reference() -> pb.Reference:
                response = call(gateway, "GetDrift", pb.GetDriftRequest(model="served", version=1))
                found: pb.Reference = response.reports[0].reference
                return found

            until(lambda: reference().kind == "live", "the rows are the reference")
        assert 1_000 <= reference().rows <= traffic.rows
        told = [(r.action, r.actor, r.reason) for r in reversed(admin.audit("served")) if r.action != "load"]
        assert told == [
            ("set reference live", "loopback:ana", "a good week"),
            ("set reference live", "system", ""),
            ("end gathering", "system", ""),
        ]
        digest = reference().digest
    with running(repository, tmp_path / "state") as again:
        response = call(again, "GetDrift", pb.GetDriftRequest(model="served", version=1))
        assert response.reports[0].reference.digest == digest


def call(gateway: Gateway, method: str, request: Any) -> Any:
    with grpc.insecure_channel(gateway.admin, options=(("grpc.enable_http_proxy", 0),)) as channel:
        stub: Any = AdminStub(channel)  # type: ignore[no-untyped-call]  # generated
        return getattr(stub, method)(request, timeout=30, metadata=(("driftgate-actor", "ana"),))


def serving(gateway: Gateway) -> int:
    with admin_of(gateway.admin) as admin:
        return sum(worker.state == "serving" for worker in admin.status().workers)
