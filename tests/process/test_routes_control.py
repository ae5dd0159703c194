"""A route that operators set: every worker follows it, an explanation says the same, and it outlives its processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from support.admin import Admin, Refused, admin_of, until
from support.answered_by import answered_by
from support.gateway import Gateway
from support.load import INFER, infer_request
from zoo import versioned, write_version

from gateway.wire.pb.inference import grpc_service_pb2 as inference

pytestmark = pytest.mark.process

CONSTANTS = {1: 10.0, 2: 20.0, 3: 30.0}
WORKERS = 2
ROUTE = """
sticky: {metadata: x-user}
rules:
  - name: testers
    when: {x-tier: gold, x-user: {prefix: test-}}
    to: 3
  - name: europe
    when: {x-region: {regex: "eu-.*"}}
    split: {stable: 1, 2: 1}
split:
  stable: 80
  challenger: {to: 2, weight: 20}
shadows: [{to: 3, of: stable}]
"""
USERS = [("x-user", f"user-{number}") for number in range(40)]
REQUESTS: list[tuple[str, Sequence[tuple[str, str]]]] = [
    *(("", [user]) for user in USERS),
    *(("", [user, ("x-region", "eu-west")]) for user in USERS[:20]),
    ("", [("x-user", "test-1"), ("x-tier", "gold")]),
    ("", [("x-user", "test-1"), ("x-tier", "silver"), ("x-tier", "gold")]),
    ("3", [("x-user", "test-1"), ("x-tier", "gold")]),
    ("stable", USERS[:1]),
]


@dataclass(frozen=True, slots=True)
class Answered:
    version: int
    k: float
    digest: str
    variant: str
    reason: str


class Clients:
    """Connections of their own, so that several workers answer."""

    def __init__(self, address: str) -> None:
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
        self._channels = [grpc.insecure_channel(address, options=options) for _ in range(8)]
        self._calls = [
            channel.unary_unary(
                INFER, inference.ModelInferRequest.SerializeToString, inference.ModelInferResponse.FromString
            )
            for channel in self._channels
        ]

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

    def ask(
        self,
        model: str,
        version: str = "",
        metadata: Sequence[tuple[str, str]] = (),
        parameters: dict[str, Any] | None = None,
        request_id: str = "",
        connection: int = 0,
    ) -> Answered:
        request = infer_request(model, np.zeros((1, 4), np.float32), version)
        request.id = request_id
        for name, value in (parameters or {}).items():
            kind = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
            setattr(request.parameters[name], kind, value)
        try:
            response, call = self._calls[connection].with_call(request, metadata=tuple(metadata), timeout=30)
        except grpc.RpcError as error:
            raise Refused(error) from None
        said = {item.key: item.value for item in (*call.initial_metadata(), *call.trailing_metadata())}
        k = float(np.frombuffer(response.raw_output_contents[0], np.float32)[0])
        by = answered_by(said)
        assert by.version == int(response.model_version)
        # A model without a route does not say variant and reason.
        return Answered(by.version, k, by.digest, by.variant or "default", by.reason or "default")


@dataclass(frozen=True, slots=True)
class Served:
    gateway: Gateway
    admin: Admin
    clients: Clients

    def require_agreement(self, model: str, **request: Any) -> Answered:
        """The answer on each connection, which must be what an explanation says."""
        told = self.admin.explain(
            model, request.get("version", ""), request.get("metadata", ()),
            {name: str(value).lower() for name, value in (request.get("parameters") or {}).items()},
            request.get("request_id", ""),
        )  # fmt: skip
        expected = Answered(told.version, CONSTANTS[told.version], told.digest, told.variant, told.reason)
        for connection in range(8):
            assert self.clients.ask(model, connection=connection, **request) == expected
        return expected


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("routes")
    for name in ("m", "n", "declared"):
        for version, k in CONSTANTS.items():
            write_version(folder / "models", name, version, versioned(k))
        (folder / "models" / name / "model.yaml").write_text("versions: all\nlabels: {stable: 1}\ndefault: stable\n")
    with (folder / "models" / "declared" / "model.yaml").open("a") as file:
        file.write("route: {rules: [{name: r, when: {x-tier: gold}, to: 2}]}\n")
    with Gateway(folder / "models", folder / "state", workers=WORKERS) as gateway, admin_of(gateway.admin) as admin:
        assert all(model.served for model in admin.models().values()), gateway.log
        clients = Clients(gateway.grpc)
        yield Served(gateway, admin, clients)
        clients.close()


def test_what_an_explanation_says_is_what_a_request_gets_on_every_worker(served: Served) -> None:
    response = served.admin.set_route("m", ROUTE, reason="spring campaign")
    assert (response.changed, list(response.warnings)) == (True, [])
    answers = [served.require_agreement("m", version=version, metadata=metadata) for version, metadata in REQUESTS]
    assert {answer.variant for answer in answers} == {
        "stable", "challenger", "europe/stable", "europe/2", "testers/3", "pinned",
    }  # fmt: skip
    assert {answer.reason for answer in answers} == {"sticky", "rule", "version", "label"}
    drawn = {served.clients.ask("m").reason for _ in range(10)}
    assert drawn == {"drawn"} == {served.admin.explain("m").reason}
    record = served.admin.audit("m")[0]
    assert (record.action, record.outcome, record.reason) == ("set route", "done", "spring campaign")
    assert json.loads(record.detail.removeprefix("route ")) == json.loads(response.route)


@pytest.mark.parametrize("value", ["ada", 12, -3, True, False])
def test_a_parameter_is_the_same_key_in_a_request_and_as_text_in_an_explanation(served: Served, value: Any) -> None:
    served.admin.set_route("n", "sticky: {parameter: user}\nsplit: {1: 1, 2: 1, 3: 1}")
    assert served.require_agreement("n", parameters={"user": value}).reason == "sticky"


def test_a_request_id_is_a_key(served: Served) -> None:
    served.admin.set_route("n", "sticky: request_id\nsplit: {1: 1, 2: 1, 3: 1}")
    found = {served.require_agreement("n", request_id=f"r-{number}").version for number in range(12)}
    assert found == {1, 2, 3}


def test_a_route_of_model_yaml_is_followed(served: Served) -> None:
    assert served.require_agreement("declared", metadata=[("x-tier", "gold")]).variant == "r/2"
    assert served.require_agreement("declared").reason == "default"


def test_what_a_route_cannot_be_is_refused_with_everything_and_nothing_changes(served: Served) -> None:
    before = served.admin.route("m")
    for text, problems in (
        ("splits: {1: 1}\nsalt: 7\nsplit: {9: 1, nobody: 1}", 4),
        ("split: {1: 1, 9: 1}\nshadows: [{to: 8}]", 2),
    ):
        for dry_run in (True, False):
            with pytest.raises(Refused) as refusal:
                served.admin.set_route("m", text, dry_run=dry_run)
            assert refusal.value.code is grpc.StatusCode.INVALID_ARGUMENT
            assert f"{problems} problems" in refusal.value.message
    served.admin.default("m", "2")
    with pytest.raises(
        Refused, match=r"named by route\.rules\[1\]\.split\.stable, route\.split\.stable, route\.shadows\[0\]\.of"
    ) as refusal:
        served.admin.delete_label("m", "stable")
    assert refusal.value.code is grpc.StatusCode.FAILED_PRECONDITION
    with pytest.raises(Refused, match=r"version 3 .* is named by route\.rules\[0\]\.to, route\.shadows\[0\]\.to"):
        served.admin.unload("m", 3)
    served.admin.default("m", "stable")
    assert served.admin.route("m") == before


def test_a_route_outlives_control_and_the_whole_gateway(served: Served) -> None:
    served.admin.set_route("m", ROUTE)
    route = served.admin.route("m")
    before = [served.require_agreement("m", metadata=[user]) for user in USERS[:10]]
    (control,) = served.gateway.children("control")
    control.send_signal(signal.SIGKILL)
    assert [served.clients.ask("m", metadata=[user]) for user in USERS[:10]] == before, "workers go on without control"
    until(lambda: _answers(served.admin), "control to be back")
    assert served.admin.route("m") == route
    assert [served.require_agreement("m", metadata=[user]) for user in USERS[:10]] == before
    served.gateway.stop()
    served.gateway.start()
    clients = Clients(served.gateway.grpc)
    with admin_of(served.gateway.admin) as admin:
        again = Served(served.gateway, admin, clients)
        assert admin.route("m") == route
        assert [again.require_agreement("m", metadata=[user]) for user in USERS[:10]] == before
        answer = admin.set_route("m", "")
        assert (answer.changed, answer.route) == (True, "")
        assert again.require_agreement("m", metadata=USERS[:1]).reason == "default"
    clients.close()


def test_the_command_line_sets_shows_explains_and_deletes(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "route.yaml"
    file.write_text(ROUTE)

    def driftgate(*arguments: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-m", "gateway", "route", *arguments, "--admin", served.gateway.admin],
            env=os.environ, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (ran.returncode, ran.stderr) == (0, "")
        return ran.stdout

    assert driftgate("set", "m", str(file), "--dry-run").startswith("m: dry run, nothing has changed\n")
    assert driftgate("set", "m", str(file)).startswith("m: changed, audit ")
    assert "challenger  to 2       ██████" in driftgate("show", "m")
    assert "variant testers/3, reason rule" in driftgate(
        "explain", "m", "--metadata", "X-User=test-1", "--metadata", "x-tier=gold"
    )
    file.write_text(driftgate("show", "m", "--yaml"))
    assert "unchanged, it was already so" in driftgate("set", "m", str(file))
    assert driftgate("set", "m", "--delete").startswith("m: changed, audit ")


def _answers(admin: Admin) -> bool:
    try:
        return bool(admin.route("m").route)
    except Refused:
        return False
