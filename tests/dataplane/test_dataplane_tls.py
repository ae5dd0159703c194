"""TLS and mTLS on the data port: who is let in, who is not, and that all else is as without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton  # type: ignore[import-untyped]
from dataplane_certificates import Authority, Signed
from dataplane_client import TIMEOUT_SECONDS, Client, channel_arguments, channel_to, make_request, refused
from support.gateway import Gateway

from gateway.wire.pb.inference import grpc_service_pb2 as pb

X = np.zeros((1, 4), dtype=np.float32)
REFUSED_SECONDS = 2.0


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("driftgate test authority")


@pytest.fixture(scope="module")
def stranger() -> Authority:
    return Authority("another authority")


def write(folder: Path, name: str, content: bytes) -> str:
    file = folder / name
    file.write_bytes(content)
    return str(file)


def tls_settings(folder: Path, signed: Signed, client_ca: bytes | None) -> dict[str, Any]:
    settings = {
        "certificate": write(folder, "server.pem", signed.certificate),
        "key": write(folder, "server.key", signed.key),
    }
    if client_ca is not None:
        settings["client_ca"] = write(folder, "clients.pem", client_ca)
    return settings


@pytest.fixture(scope="module")
def tls_gateway(
    transport: str, small_repository: Path, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("tls")
    tls = tls_settings(folder, authority.sign("localhost"), None)
    config = {"transport": transport, "tls": tls, "repository_control": "off"}
    with Gateway(small_repository, folder / "state", config=config) as running:
        yield running


@pytest.fixture(scope="module")
def mtls_gateway(
    transport: str, small_repository: Path, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("mtls")
    tls = tls_settings(folder, authority.sign("localhost"), authority.certificate)
    with Gateway(small_repository, folder / "state", config={"transport": transport, "tls": tls}) as running:
        yield running


def secure_client(gateway: Gateway, root: bytes, shown: Signed | None = None) -> Client:
    credentials = grpc.ssl_channel_credentials(root, shown.key if shown else None, shown.certificate if shown else None)
    return Client(grpc.secure_channel(gateway.grpc, credentials, channel_arguments()))


def assert_answers(client: Client) -> None:
    with client.channel:
        assert client.infer(make_request("add_const", {"x": X}))["y"][0, 0] == 1
        assert client.refused(make_request("add_const", {"x": X[:, :3]})).fields == ["x"]
        (message,) = client.stub.ModelStreamInfer(iter([make_request("add_const", {"x": X})]), timeout=TIMEOUT_SECONDS)
        assert message.infer_response.model_name == "add_const"


def assert_not_let_in(client: Client) -> None:
    with client.channel:
        refusal = client.refused(make_request("add_const", {"x": X}), timeout=REFUSED_SECONDS)
    assert refusal.code is grpc.StatusCode.UNAVAILABLE


def test_tls_serves_whoever_trusts_the_authority(tls_gateway: Gateway, authority: Authority) -> None:
    assert_answers(secure_client(tls_gateway, authority.certificate))


def test_tls_through_tritonclient(tls_gateway: Gateway, authority: Authority, tmp_path: Path) -> None:
    root = write(tmp_path, "root.pem", authority.certificate)
    client = triton.InferenceServerClient(tls_gateway.grpc, ssl=True, root_certificates=root)
    assert client.is_server_ready()
    client.close()


def test_clients_refuse_a_server_of_another_authority(tls_gateway: Gateway, stranger: Authority) -> None:
    assert_not_let_in(secure_client(tls_gateway, stranger.certificate))


def test_plain_text_does_not_reach_a_tls_port(tls_gateway: Gateway, authority: Authority) -> None:
    assert_not_let_in(Client(channel_to(tls_gateway.grpc)))
    assert_answers(secure_client(tls_gateway, authority.certificate))


def test_where_repository_control_is_off_nobody_may_load(tls_gateway: Gateway, authority: Authority) -> None:
    client = secure_client(tls_gateway, authority.certificate)
    with client.channel:
        request = pb.RepositoryModelLoadRequest(model_name="add_const")
        refusal = refused(lambda: client.stub.RepositoryModelLoad(request, timeout=TIMEOUT_SECONDS))
    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
    assert "load is switched off on this port" in refusal.message
    assert refusal.reason == "PERMISSION_DENIED"


def test_mtls_serves_whoever_shows_a_certificate_of_the_authority(mtls_gateway: Gateway, authority: Authority) -> None:
    assert_answers(secure_client(mtls_gateway, authority.certificate, authority.sign("client")))


def test_mtls_through_tritonclient(mtls_gateway: Gateway, authority: Authority, tmp_path: Path) -> None:
    shown = authority.sign("client")
    client = triton.InferenceServerClient(
        mtls_gateway.grpc,
        ssl=True,
        root_certificates=write(tmp_path, "root.pem", authority.certificate),
        private_key=write(tmp_path, "client.key", shown.key),
        certificate_chain=write(tmp_path, "client.pem", shown.certificate),
    )
    assert client.is_model_ready("add_const")
    client.close()


def test_mtls_lets_nobody_in_without_a_certificate_or_with_a_strangers(
    mtls_gateway: Gateway, authority: Authority, stranger: Authority
) -> None:
    assert_not_let_in(secure_client(mtls_gateway, authority.certificate))
    assert_not_let_in(secure_client(mtls_gateway, authority.certificate, stranger.sign("client")))
    assert_not_let_in(Client(channel_to(mtls_gateway.grpc)))
    assert_answers(secure_client(mtls_gateway, authority.certificate, authority.sign("client")))
