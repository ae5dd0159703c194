"""`driftgate watch`, as a process of its own whose lines are read as they come."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from canned_gateway import DIGEST, CannedGateway, timestamp, without_colours
from click.testing import Result

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.errors import Overloaded

Driftgate = Callable[..., Result]

EVENTS = [
    pb.ModelEvent(
        time=timestamp(1_750_000_000.5), model="iris", version=2, digest=DIGEST,
        state=pb.VERSION_STATE_AVAILABLE, worker=0, initial=True,
    ),
    pb.ModelEvent(
        time=timestamp(1_750_000_001), model="iris", version=3, state=pb.VERSION_STATE_FAILED, worker=-1,
        reason="LOAD_FAILED: not\nan ONNX graph \x1b[2J" + "x" * 300, dropped=4,
    ),
]  # fmt: skip
LINES = [
    "2025-06-15T15:06:40.500Z  worker 0  available   iris/2  0123456789ab  (at the start)",
    r"2025-06-15T15:06:41.000Z  gateway   failed      iris/3  -  LOAD_FAILED: not an ONNX graph \x1b[2J"
    + "x" * 300
    + "  (4 events before it lost: this watcher reads too slowly)",
]


@contextmanager
def _watching(gateway: CannedGateway, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "watch", "--admin", gateway.address, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "80"},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_each_event_is_a_line_at_once_and_ctrl_c_is_a_good_end(gateway: CannedGateway) -> None:
    gateway.answers["WatchModels"] = EVENTS
    with _watching(gateway, "iris") as process:
        assert process.stdout is not None
        # The stream is still open: what is read here was flushed.
        assert [process.stdout.readline().rstrip("\n") for _ in EVENTS] == LINES
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
    assert (process.returncode, rest, errors) == (0, "", "")
    assert gateway.gone.wait(30)
    assert gateway.request == pb.WatchModelsRequest(model="iris")


def test_json_is_one_document_a_line(gateway: CannedGateway) -> None:
    gateway.answers["WatchModels"] = EVENTS
    with _watching(gateway, "--json") as process:
        assert process.stdout is not None
        first, second = (json.loads(process.stdout.readline()) for _ in EVENTS)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert (first["digest"], first["initial"], first["dropped"]) == (DIGEST, True, "0")
    assert (second["state"], second["worker"], second["dropped"]) == ("VERSION_STATE_FAILED", -1, "4")


def test_the_end_of_the_gateway_is_status_3(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["WatchModels"] = EVENTS[:1]
    gateway.end_streams.set()
    result = driftgate("watch")
    assert result.exit_code == 3
    assert result.stdout == LINES[0] + "\n"
    assert result.stderr == f"error: the gateway at {gateway.address} ended the watch: it is shutting down\n"


def test_a_terminal_breaks_long_lines_itself(gateway: CannedGateway, terminal: Callable[..., str]) -> None:
    gateway.answers["WatchModels"] = EVENTS
    gateway.end_streams.set()
    shown = without_colours(terminal(60, "watch", "--admin", gateway.address, status=3)).splitlines()
    assert shown[: len(LINES)] == LINES


def test_a_watch_has_no_deadline(gateway: CannedGateway, driftgate: Driftgate) -> None:
    assert driftgate("watch", "--timeout", "5").exit_code == 2
    assert gateway.asked == []


def test_a_reader_that_leaves_ends_the_watch(gateway: CannedGateway) -> None:
    gateway.answers["WatchModels"] = [*EVENTS] * 2000  # more than a pipe holds
    with _watching(gateway) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        process.wait(30)
        assert process.stderr is not None
        assert process.stderr.read() == ""
        process.stdout = None
    assert gateway.gone.wait(30)


@pytest.mark.parametrize("error", [Overloaded("too many watchers are connected", retry_after_seconds=1.0)])
def test_a_watch_that_is_refused_is_status_1(gateway: CannedGateway, driftgate: Driftgate, error: Overloaded) -> None:
    gateway.answers["WatchModels"] = error
    result = driftgate("watch")
    assert (result.exit_code, result.stderr) == (
        1, "error: RESOURCE_EXHAUSTED: too many watchers are connected\n"
    )  # fmt: skip
