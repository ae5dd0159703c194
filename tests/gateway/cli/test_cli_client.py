"""How client commands reach the admin API, who they say they are, and how they end when a call fails."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from canned_gateway import CannedGateway, refuse, serve
from certificates import Authority
from click.testing import CliRunner, Result

from gateway.cli import cli
from gateway.errors import Draining, Unauthenticated
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.errors import DeadlineExceeded, LoadError, NotFound

Driftgate = Callable[..., Result]
Run = Callable[..., subprocess.CompletedProcess[str]]
EMPTY = pb.ListModelsResponse()
TOKEN = "a-token-of-some-length"


def test_the_user_of_the_operating_system_is_named_as_actor(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["ListModels"] = EMPTY
    assert driftgate("models").exit_code == 0
    assert gateway.metadata["driftgate-actor"] == pwd.getpwuid(os.getuid()).pw_name
    assert "authorization" not in gateway.metadata


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.cli.client import user_name

    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_001)
    assert user_name() == "uid 4000000001"


@pytest.mark.parametrize("source", ["flag", "file", "environment", "file over environment"])
def test_a_token_is_sent_as_bearer(
    gateway: CannedGateway, driftgate: Driftgate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    gateway.answers["ListModels"] = EMPTY
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\nthe second line is not the token\n")
    if "environment" in source:
        monkeypatch.setenv("DRIFTGATE_TOKEN", "some-other-token" if "file" in source else TOKEN)
    flags = {"flag": ["--token", TOKEN], "environment": []}.get(source, ["--token-file", str(file)])
    assert driftgate("models", *flags).exit_code == 0
    assert gateway.metadata["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--admin", "localhost"], "expected HOST:PORT"),
        (["--admin", "localhost:99999"], "expected HOST:PORT"),
        (["--token", "t", "--token-file", "{file}"], "exclude each other"),
        (["--token", "ключ"], "printable ASCII"),
        (["--token", "a\nb"], "printable ASCII"),
        (["--token-file", "{missing}"], "does not exist"),
        (["--cert", "{file}"], "--cert and --key belong together"),
        (["--timeout", "0"], "x>0"),
        (["--timeout", "soon"], "not a valid float"),
    ],
)
def test_wrong_options_are_refused_before_a_call(
    gateway: CannedGateway, driftgate: Driftgate, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "file").write_text("x")
    paths = {"file": tmp_path / "file", "missing": tmp_path / "missing"}
    result = driftgate("models", *(argument.format(**paths) for argument in arguments))
    assert result.exit_code == 2
    assert said in result.stderr
    assert gateway.asked == []


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (NotFound("no model 'iris'; known models: none"), "error: NOT_FOUND: no model 'iris'; known models: none"),
        (LoadError("not\nan ONNX \x1b[31mgraph"), r"error: FAILED_PRECONDITION: not an ONNX \x1b[31mgraph"),
        (Unauthenticated("needs a token"), "error: UNAUTHENTICATED: needs a token"),
        (Draining("the gateway is draining"), "error: UNAVAILABLE: the gateway is draining"),
        (DeadlineExceeded("the load took too long"), "error: DEADLINE_EXCEEDED: the load took too long"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_the_gateway_refuses_is_one_line_and_status_1(
    gateway: CannedGateway, driftgate: Driftgate, error: Exception, line: str
) -> None:
    gateway.answers["LoadModel"] = error
    result = driftgate("load", "iris")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", line + "\n")


def test_a_gateway_that_is_not_there_is_status_3_and_says_what_to_check(process: Run) -> None:
    with socket.socket() as bound:  # bound, so that nobody else takes the port, and not listening
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        done = process("status", DRIFTGATE_ADMIN=address)
    assert (done.returncode, done.stdout) == (3, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(
        f"error: cannot reach the gateway's admin API at {address}: is it running? (--admin, DRIFTGATE_ADMIN)"
    )
    assert "Connection refused" in line


def test_a_connection_that_breaks_during_a_call_is_status_3() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        listener.settimeout(30)

        def hang_up() -> None:
            connection, _ = listener.accept()
            listener.close()
            connection.close()

        with ThreadPoolExecutor(1) as threads:
            hung_up = threads.submit(hang_up)
            result = CliRunner().invoke(cli, ["status", "--admin", address])
            hung_up.result()
    assert result.exit_code == 3
    assert f"cannot reach the gateway's admin API at {address}" in result.stderr


def test_no_answer_within_the_timeout_says_so_and_that_a_change_may_go_on(
    gateway: CannedGateway, driftgate: Driftgate
) -> None:
    gateway.answers["SetLabel"] = lambda _: gateway.end_streams.wait()
    result = driftgate("label", "set", "iris", "stable", "2", "--timeout", "0.2")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: DEADLINE_EXCEEDED: no answer from {gateway.address} in 0.2 s (--timeout)")
    assert "a change may go on" in result.stderr


@pytest.mark.parametrize(("command", "low", "high"), [(["load", "m"], 500, 600), (["unload", "m"], 5, 10)])
def test_a_load_waits_ten_minutes_and_anything_else_ten_seconds(
    gateway: CannedGateway, driftgate: Driftgate, command: list[str], low: float, high: float
) -> None:
    remaining: list[float] = []

    def answer(context: Any) -> None:
        remaining.append(context.time_remaining())
        refuse(context, NotFound("no"))

    gateway.answers |= {"LoadModel": answer, "UnloadModel": answer}
    assert driftgate(*command).exit_code == 1
    assert low < remaining[0] <= high * 1.02  # gRPC rounds a timeout up when it sends it


def test_a_proxy_for_the_web_is_not_asked_for_the_admin_api(
    gateway: CannedGateway, driftgate: Driftgate, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    gateway.answers["ListModels"] = EMPTY
    assert driftgate("models").exit_code == 0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def _tls(authority: Authority, *, mutual: bool) -> grpc.ServerCredentials:
    certificate, key = authority.issue("server")
    ca = authority.certificate.read_bytes() if mutual else None
    return grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())], ca, mutual)


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mtls"])
def test_the_admin_api_is_reached_over_tls(authority: Authority, *, mutual: bool) -> None:
    gateway = CannedGateway({"ListModels": EMPTY})
    stop = serve(gateway, _tls(authority, mutual=mutual))
    certificate, key = authority.issue("operator")
    flags = ["--cert", str(certificate), "--key", str(key)] if mutual else []
    try:
        result = CliRunner().invoke(
            cli, ["models", "--admin", gateway.address, "--ca", str(authority.certificate), *flags]
        )
    finally:
        stop()
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(gateway.asked) == 1


@pytest.mark.parametrize("shown", ["plain text", "no certificate", "another authority"])
def test_a_connection_that_tls_refuses_is_status_3_with_one_line(
    process: Run, authority: Authority, tmp_path: Path, shown: str
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    flags = {
        "plain text": [],
        "no certificate": ["--ca", str(authority.certificate)],
        "another authority": ["--ca", str(other.certificate)],
    }[shown]
    gateway = CannedGateway({"ListModels": EMPTY})
    stop = serve(gateway, _tls(authority, mutual=shown == "no certificate"))
    try:
        done = process("models", "--admin", gateway.address, *flags)
    finally:
        stop()
    assert done.returncode == 3
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: cannot reach the gateway's admin API at {gateway.address}")
    assert gateway.asked == []
