"""The HTTP port is open to anyone: what anyone may send fills no log."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.control.web import WebServer
from gateway.telemetry.measure import Figures, Measures
from runtime.shm.series import SeriesReader
from runtime.shm.statistics import StatisticsReader

ANSWER_SECONDS = 20.0


@contextmanager
def web() -> Iterator[tuple[str, int]]:
    figures = Figures(
        workers_expected=0, workers_serving=lambda: 0, restarts=dict, memory_bytes=dict, versions_served=list,
        repository_problems=lambda: 0,
    )  # fmt: skip
    server = WebServer(Measures(SeriesReader([]), StatisticsReader([]), figures, 1.0), {}, lambda: "")
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(listener)))
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        server.stop()
        thread.join()


def answer(address: tuple[str, int], data: bytes) -> bytes:
    with socket.create_connection(address, ANSWER_SECONDS) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(4096), b""))


NOISE = b"\x00\r\n\r\n"
REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
ACCEPT = REQUEST + b"Accept: application/openmetrics-text; version=abc\r\n\r\n"
UPGRADE = REQUEST.replace(b"close", b"close, Upgrade") + b"Upgrade: websocket\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status"), [(NOISE, b"400"), (ACCEPT, b"200"), (UPGRADE, b"200")], ids=["noise", "accept", "upgrade"]
)
def test_what_anyone_may_send_leaves_no_line(caplog: pytest.LogCaptureFixture, data: bytes, status: bytes) -> None:
    with caplog.at_level(logging.WARNING), web() as address:
        for _ in range(3):
            assert answer(address, data).split()[1] == status
    assert caplog.records == []
