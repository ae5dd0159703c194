"""The process log of a real gateway: whatever its reader does, nothing waits for it, and what is lost is told."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from support.gateway import Gateway
from support.load import infer_request
from zoo import built, versioned, write_version

from gateway.wire.pb.inference import grpc_service_pb2 as pb
from gateway.wire.pb.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub

pytestmark = pytest.mark.process

CALL_SECONDS = 10.0
END_SECONDS = 60.0
PIPE_BYTES = 4096  # the least that the kernel gives a pipe: a few lines fill it
OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_version(tmp_path / "models", "m", 1, versioned(1.0))
    write_version(tmp_path / "models", "gather", 1, built("gather"))
    return tmp_path / "models"


@contextmanager
def stub(gateway: Gateway) -> Iterator[Any]:
    with grpc.insecure_channel(gateway.grpc, options=OPTIONS) as channel:
        yield GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]  # generated


def code_of(call: Any, request: Any) -> grpc.StatusCode:
    try:
        call(request, timeout=CALL_SECONDS)
    except grpc.RpcError as error:
        return error.code()  # type: ignore[no-any-return]
    return grpc.StatusCode.OK


def failing_request() -> pb.ModelInferRequest:
    """Its run fails: there is no such row in the table."""
    request = pb.ModelInferRequest(model_name="gather")
    request.inputs.add(name="ids", datatype="INT64", shape=[1])
    request.raw_input_contents.append(np.array([999_999], np.int64).tobytes())
    return request


def test_a_reader_that_has_stalled_delays_no_request_no_change_and_no_end(models: Path, tmp_path: Path) -> None:
    """Both streams on one pipe that nobody reads, as with `2>&1 | less`; failures of all kinds want to be logged."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    config = {"telemetry": {"access_log": "all"}, "log_level": "debug"}
    found: list[bytes] = []
    with Gateway(models, tmp_path / "state", config=config, output=writing, errors=writing) as gateway:
        os.close(writing)
        with stub(gateway) as client:
            good = infer_request("m", np.zeros((1, 4), np.float32), "")
            for number in range(60):
                assert code_of(client.ModelInfer, failing_request()) is grpc.StatusCode.INTERNAL
                refused = pb.RepositoryModelLoadRequest(model_name=f"none-{number}")
                assert code_of(client.RepositoryModelLoad, refused) is grpc.StatusCode.NOT_FOUND
            assert code_of(client.ModelInfer, good) is grpc.StatusCode.OK
        assert gateway.get("/readyz")[0] == 200
        gateway.children("worker")[0].kill()
        gateway.wait_for(
            lambda: gateway.metric("driftgate_process_restarts_total") == 1, CALL_SECONDS, "to restart the worker"
        )
        gateway.wait_ready()
        assert gateway.stop() == 0, "nobody has read until now"
        reader = threading.Thread(target=lambda: found.append(b"".join(iter(lambda: os.read(reading, 65536), b""))))
        reader.start()
        reader.join(END_SECONDS)
    os.close(reading)
    assert 0 < len(found[0]) <= PIPE_BYTES
    assert all(line for line in found[0].splitlines()[:-1])


def test_a_reader_that_comes_back_gets_every_line_in_its_order(models: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    gateway = Gateway(models, tmp_path / "state", log_format="json", errors=writing, config={"log_level": "debug"})
    with gateway:
        os.close(writing)
        with stub(gateway) as client:
            for number in range(20):
                refused = pb.RepositoryModelLoadRequest(model_name=f"none-{number}")
                assert code_of(client.RepositoryModelLoad, refused) is grpc.StatusCode.NOT_FOUND
        data: list[bytes] = []
        reader = threading.Thread(target=lambda: data.extend(iter(lambda: os.read(reading, 65536), b"")))
        reader.start()
    reader.join(END_SECONDS)
    os.close(reading)
    lines = [json.loads(line) for line in b"".join(data).splitlines()]
    assert lines[-1]["message"] == "driftgate has ended", "nothing was lost: what the pipe could not hold has waited"
    times = {name: [line["time"] for line in lines if line["process"] == name] for name in ("control", "worker 0")}
    assert all(found == sorted(found) for found in times.values())
    assert not any("dropped here" in line["message"] for line in lines)


def test_the_last_words_of_a_worker_that_crashes_are_in_the_log(models: Path, tmp_path: Path) -> None:
    """An abort in native code writes to standard error itself, and no line before it is lost."""
    environment = {"PYTHONFAULTHANDLER": "1"}
    with Gateway(models, tmp_path / "state", environment=environment) as gateway:
        gateway.children("worker")[0].send_signal(signal.SIGABRT)
        gateway.wait_for(lambda: "was ended by signal 6" in gateway.log, CALL_SECONDS, "to tell of the end")
        log = gateway.log
        assert "Fatal Python error: Aborted" in log
        assert log.index("listens with the") < log.index("Fatal Python error") < log.index("was ended by signal 6")


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_standard_streams_may_be_closed(models: Path, tmp_path: Path, closed: str) -> None:
    """The gateway serves, and no file of its own is taken for one of them."""
    state = tmp_path / "state"
    command = (
        f"exec {sys.executable} -m gateway serve --models {models} --state-dir {state} --workers 1 "
        f"--grpc 127.0.0.1:0 --http 127.0.0.1:0 --admin 127.0.0.1:0 {closed}"
    )
    gateway = Gateway(models, state)
    gateway.process = subprocess.Popen(["sh", "-c", command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        gateway.wait_ready()
        for process in (gateway.supervisor, *gateway.children()):
            files = [Path(f"/proc/{process.pid}/fd/{fd}") for fd in range(3)]
            assert {str(file.readlink()).partition(":")[0] for file in files} <= {os.devnull, "pipe"}
    finally:
        assert gateway.stop() == 0
