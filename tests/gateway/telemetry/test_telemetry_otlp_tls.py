"""The OTLP client through TLS and mTLS: whom it trusts, what it shows, and what it says when it may not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from dataplane.dataplane_certificates import Authority
from support.received import SIGNALS
from support.receiver import OtlpReceiver, ServerTls

from gateway.telemetry.otlp.client import OtlpClient, Outcome
from gateway.telemetry.otlp.retry import Backoff
from gateway.telemetry.settings import read_settings
from gateway.telemetry.signal_settings import SignalSettings

TIMEOUT_SECONDS = 10.0
REFUSED_SECONDS = 0.5
EMPTY = SIGNALS["traces"].request().SerializeToString()


@dataclass(frozen=True)
class Files:
    """PEM files of one authority, and of what it signed."""

    ca: Path
    certificate: Path
    key: Path


def write(folder: Path, authority: Authority) -> Files:
    folder.mkdir()
    signed = authority.sign("localhost")
    files = Files(folder / "ca.pem", folder / "certificate.pem", folder / "key.pem")
    files.ca.write_bytes(authority.certificate)
    files.certificate.write_bytes(signed.certificate)
    files.key.write_bytes(signed.key)
    return files


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write(tmp_path_factory.mktemp("tls") / "trusted", Authority("driftgate test authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write(tmp_path_factory.mktemp("tls") / "stranger", Authority("another authority"))


@pytest.fixture(scope="module")
def receiver(trusted: Files) -> Iterator[OtlpReceiver]:
    with OtlpReceiver(tls=ServerTls(trusted.certificate, trusted.key)) as running:
        yield running


@pytest.fixture(scope="module")
def strict_receiver(trusted: Files) -> Iterator[OtlpReceiver]:
    """Of mTLS."""
    with OtlpReceiver(tls=ServerTls(trusted.certificate, trusted.key, trusted.ca)) as running:
        yield running


@pytest.fixture(params=["grpc", "http/protobuf"])
def protocol(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return request.param


def settings_for(
    receiver: OtlpReceiver, protocol: str, trusts: Files | None = None, shows: Files | None = None
) -> SignalSettings:
    """From an environment, as operators have it."""
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://{receiver.grpc}" if protocol == "grpc" else receiver.http,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(trusts.ca) if trusts else "",
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(shows.certificate) if shows else "",
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(shows.key) if shows else "",
    }
    settings = read_settings(environment).traces
    assert settings is not None
    return replace(settings, timeout_seconds=TIMEOUT_SECONDS)


def export(settings: SignalSettings) -> Outcome:
    client = OtlpClient(settings, "traces", backoff=Backoff(initial_seconds=0.05, factor=1.0))
    try:
        return client.export(EMPTY, 1)
    finally:
        client.close()


def assert_not_let_in(settings: SignalSettings, *reasons: str) -> None:
    """Tried again until the time is over, as for a receiver that is away."""
    outcome = export(replace(settings, timeout_seconds=REFUSED_SECONDS))
    assert (outcome.accepted, outcome.dropped) == (0, 1)
    assert outcome.attempts > 1
    assert outcome.reason in reasons


def test_a_receiver_with_a_certificate_of_the_given_authority_is_trusted(
    receiver: OtlpReceiver, protocol: str, trusted: Files
) -> None:
    assert export(settings_for(receiver, protocol, trusted)).accepted == 1


def test_a_receiver_of_another_authority_is_not_trusted_and_the_log_says_why(
    receiver: OtlpReceiver, protocol: str, stranger: Files, caplog: pytest.LogCaptureFixture
) -> None:
    assert_not_let_in(settings_for(receiver, protocol, stranger), "UNAVAILABLE", "DEADLINE_EXCEEDED", "tls", "timeout")
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text.upper().replace(" ", "_")
    assert_not_let_in(settings_for(receiver, protocol), "UNAVAILABLE", "DEADLINE_EXCEEDED", "tls", "timeout")


def test_authorities_of_the_environment_do_not_replace_the_given_one(
    receiver: OtlpReceiver, protocol: str, trusted: Files, stranger: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(stranger.ca))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(stranger.ca))
    assert export(settings_for(receiver, protocol, trusted)).accepted == 1


def test_plain_text_does_not_reach_a_tls_port(receiver: OtlpReceiver, protocol: str) -> None:
    settings = settings_for(receiver, protocol)
    settings = replace(settings, endpoint=settings.endpoint.replace("https:", "http:"), insecure=True)
    assert_not_let_in(settings, "UNAVAILABLE", "DEADLINE_EXCEEDED", "connection", "timeout")


def test_mtls_lets_in_whoever_shows_a_certificate_of_the_authority(
    strict_receiver: OtlpReceiver, protocol: str, trusted: Files
) -> None:
    assert export(settings_for(strict_receiver, protocol, trusted, trusted)).accepted == 1


def test_mtls_lets_nobody_in_without_a_certificate_or_with_a_strangers(
    strict_receiver: OtlpReceiver, protocol: str, trusted: Files, stranger: Files
) -> None:
    before = len(strict_receiver.attempts)
    reasons = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "tls", "connection", "timeout")
    assert_not_let_in(settings_for(strict_receiver, protocol, trusted), *reasons)
    assert_not_let_in(settings_for(strict_receiver, protocol, trusted, stranger), *reasons)
    assert len(strict_receiver.attempts) == before


def test_a_certificate_file_that_has_gone_since_the_start_drops_exports_and_is_named(
    receiver: OtlpReceiver, protocol: str, trusted: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Telemetry fails, the process does not; and once the file is back, so are the exports."""
    moved = tmp_path / "moved.pem"
    client = OtlpClient(replace(settings_for(receiver, protocol, trusted), certificate=moved), "traces")
    assert client.export(EMPTY, 1) == Outcome(0, 0, 1, 1, "tls")
    assert str(moved) in caplog.text
    moved.write_bytes(trusted.ca.read_bytes())
    assert client.export(EMPTY, 1).accepted == 1
    client.close()
