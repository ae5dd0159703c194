"""Starts that cannot be: each ends with 2 and one line that says what to do; and starts that can."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.gateway import Gateway
from support.predict import client_of
from zoo import versioned, write_repository, write_version

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("running")
    write_version(folder / "models", "quick", 1, versioned(10.0))
    with Gateway(folder / "models", folder / "state") as gateway:
        yield gateway


def refused_start(state_dir: Path, **addresses: str) -> str:
    """What a gateway prints that cannot start."""
    command = [sys.executable, "-m", "gateway", "serve", "--models", ".", "--state-dir", str(state_dir)]
    for name in ("grpc", "http", "admin"):
        command += [f"--{name}", addresses.get(name, "127.0.0.1:0")]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("DRIFTGATE_")}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, env=clean)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1, ended.stderr
    return ended.stderr


@pytest.mark.parametrize("name", ["grpc", "http", "admin"])
def test_a_second_gateway_on_a_port_in_use_names_it(running: Gateway, tmp_path: Path, name: str) -> None:
    address = str(running.endpoints[name])
    said = refused_start(tmp_path / "state", **{name: address})
    assert f"cannot listen on {name} address {address}" in said
    assert f"choose another address with --{name}" in said
    with client_of(running.grpc) as client:
        assert client.predict("quick") == (1, 10.0)


def test_a_state_directory_in_use_by_another_gateway_is_named(running: Gateway) -> None:
    said = refused_start(running.state_dir)
    assert f"the state directory {running.state_dir} is in use by another gateway" in said
    assert "--state-dir" in said
    assert (running.state_dir / "endpoints.json").exists(), "the first one's endpoints are still there"


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Below a regular file nobody can make a folder, not even root."""
    (tmp_path / "file").write_text("")
    state = tmp_path / "file" / "state"
    said = refused_start(state)
    assert f"cannot write the state directory {state}" in said
    assert "--state-dir" in said


def test_a_state_directory_of_something_else_is_named(tmp_path: Path) -> None:
    """The store's file is no database: the control process refuses, and the gateway does not try for ever."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "state.db").write_bytes(b"not a database, but long enough to look at" * 100)
    write_version(tmp_path / "models", "quick", 1, versioned(10.0))
    gateway = Gateway(tmp_path / "models", state, config={"restart": {"initial_seconds": 0.01, "max_seconds": 0.1}})
    gateway.start(wait=False)
    assert gateway.process is not None
    status = gateway.process.wait(60)
    gateway.process = None
    assert status == 1
    assert "state.db" in gateway.log
    assert "control cannot be kept alive" in gateway.log
    assert "Traceback" not in gateway.log


def test_a_second_start_serves_what_the_first_one_left(tmp_path: Path) -> None:
    models = write_repository(tmp_path / "models", ["mlp", "forest", "add_const"])
    with Gateway(models, tmp_path / "state"):
        pass
    began = time.monotonic()
    with Gateway(models, tmp_path / "state", workers=2) as gateway:
        took = time.monotonic() - began
        with client_of(gateway.grpc) as client:
            assert client.predict("add_const") == (1, 1.0)
    print(f"\nready {took:.2f} s after the start")


def test_a_start_with_a_bad_model_serves_the_others_and_names_it(tmp_path: Path) -> None:
    models = write_repository(tmp_path / "models", ["add_const"])
    write_version(models, "broken", 1, b"no model")
    with Gateway(models, tmp_path / "state") as gateway, client_of(gateway.grpc) as client:
        assert client.predict("add_const") == (1, 1.0)
        gateway.logged("load 'broken' by system failed")
