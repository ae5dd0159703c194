"""What is particular to OTLP over HTTP: answers that are no OTLP, redirects, and what must not leak or be sent."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from support.received import SIGNALS, UNAVAILABLE, Fault
from support.receiver import OtlpReceiver

from gateway.telemetry.otlp.client import OtlpClient, Outcome
from gateway.telemetry.otlp.sender import MAX_RESPONSE_BYTES
from gateway.telemetry.signal_settings import SignalSettings

REQUEST = SIGNALS["traces"].request()
REQUEST.resource_spans.add().scope_spans.add().spans.add(name="x")
ONE = REQUEST.SerializeToString()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as running:
        yield running


@pytest.fixture
def settings(receiver: OtlpReceiver) -> SignalSettings:
    return SignalSettings(f"{receiver.http}/v1/traces", "http/protobuf")


@pytest.fixture
def client(settings: SignalSettings) -> Iterator[OtlpClient]:
    made = OtlpClient(settings, "traces")
    yield made
    made.close()


def test_redirects_are_not_followed_and_the_log_says_where_they_lead(
    receiver: OtlpReceiver, client: OtlpClient, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = f"{receiver.http}/elsewhere/v1/traces"
    receiver.answer_with(Fault(status=307, headers=(("location", elsewhere),)))
    assert client.export(ONE, 1) == Outcome(0, 0, 1, 1, "307")
    assert [received.path for received in receiver.attempts] == ["/v1/traces"]
    assert f"redirects are not followed; this one leads to {elsewhere}" in caplog.text


def test_retry_after_may_be_a_date(receiver: OtlpReceiver, settings: SignalSettings) -> None:
    waits: list[float] = []
    client = OtlpClient(settings, "traces", wait=lambda seconds: bool(waits.append(seconds)), random_part=lambda: 0.0)
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=8), usegmt=True)
    receiver.answer_with(replace(UNAVAILABLE, headers=(("retry-after", at),)))
    assert client.export(ONE, 1).attempts == 2
    assert 6 < waits[0] <= 8  # an HTTP date has whole seconds
    client.close()


@pytest.mark.parametrize(
    ("fault", "remark"),
    [
        (Fault(kind="text/html", body=b"<html>hello</html>"), "got 18 bytes of text/html"),
        (Fault(body=b"\xff\xff\xff"), "expected ExportTraceServiceResponse, got 3 bytes that are none"),
        (Fault(kind="application/json", body=b"[1"), "got 2 bytes of application/json"),
        (Fault(kind="application/json", body=b"[1]"), "got 3 bytes of application/json"),
        (Fault(body=b"x" * (MAX_RESPONSE_BYTES + 1)), f"got more than {MAX_RESPONSE_BYTES} bytes"),
    ],
)
def test_a_yes_that_cannot_be_understood_is_a_yes_and_is_remarked(
    receiver: OtlpReceiver, client: OtlpClient, fault: Fault, remark: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer_with(fault)
    assert client.export(ONE, 1) == Outcome(1, 0, 0, 1, "")
    assert remark in caplog.text


@pytest.mark.parametrize(
    "fault",
    [
        Fault(body=b"", kind="text/plain"),
        Fault(status=202, body=b""),
        Fault(kind="application/json; charset=utf-8", body=b"{}"),
        Fault(kind="application/json", body=json.dumps({"partialSuccess": {}, "more": 1}).encode()),
    ],
)
def test_an_empty_yes_and_one_in_json_are_taken_without_a_word(
    receiver: OtlpReceiver, client: OtlpClient, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer_with(fault)
    assert client.export(ONE, 1) == Outcome(1, 0, 0, 1, "")
    assert caplog.records == []


def test_a_partial_success_in_json_counts(receiver: OtlpReceiver, client: OtlpClient) -> None:
    body = json.dumps({"partialSuccess": {"rejectedSpans": "1"}}).encode()
    receiver.answer_with(Fault(kind="application/json", body=body))
    assert client.export(ONE, 1) == Outcome(0, 1, 0, 1, "rejected")


def test_an_error_page_is_shown_in_short(
    receiver: OtlpReceiver, client: OtlpClient, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer_with(Fault(status=404, kind="text/html", body=b"no\n\nsuch page" + b"!" * 10_000))
    assert client.export(ONE, 1).reason == "404"
    assert "404: no such page!!!" in caplog.text
    assert len(caplog.records[0].getMessage()) < 500


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_connection_that_is_not_made_is_told_in_words(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    """One to a port whose queue of connections is full, and one to a port where nobody listens."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for caller in (first, second):
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        full, nobody = f"127.0.0.1:{listener.getsockname()[1]}", "127.0.0.1:1"
        for host in (full, nobody):
            settings = SignalSettings(f"{scheme}://{host}/v1/traces", "http/protobuf", timeout_seconds=0.2)
            OtlpClient(settings, "traces").export(ONE, 1)
    timeout, refused = (record.getMessage() for record in caplog.records)
    assert "timeout: no connection was made in time;" in timeout
    assert "connection: [Errno 111] Connection refused;" in refused


def test_a_key_in_the_query_is_sent_and_never_logged(
    receiver: OtlpReceiver, settings: SignalSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """Not by the libraries below either, whatever the log's level, and though an answer is none."""
    caplog.set_level(logging.DEBUG)
    client = OtlpClient(replace(settings, endpoint=f"{settings.endpoint}?key=hidden", timeout_seconds=0.5), "traces")
    receiver.answer_with(Fault(headers=(("no header", "x"),)))
    assert client.export(ONE, 1).accepted == 1
    assert receiver.taken[0].path == "/v1/traces?key=hidden"
    receiver.stop_listening()
    assert client.export(ONE, 1).dropped == 1
    receiver.listen()
    assert "Connection refused" in caplog.text
    assert "hidden" not in caplog.text
    client.close()


def test_cookies_and_netrc_are_not_used(
    receiver: OtlpReceiver, settings: SignalSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password word\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    client = OtlpClient(replace(settings, headers=(("authorization", "Bearer mine"),)), "traces")
    receiver.answer_with(Fault(headers=(("set-cookie", "a=b"),)))
    for _ in range(2):
        assert client.export(ONE, 1).accepted == 1
    for received in receiver.taken:
        assert received.headers["authorization"] == "Bearer mine"
        assert "cookie" not in received.headers
    client.close()


def test_a_connection_is_kept_from_export_to_export(receiver: OtlpReceiver, client: OtlpClient) -> None:
    for _ in range(5):
        assert client.export(ONE, 1).accepted == 1
    assert receiver.http_connections == 1


def test_an_answer_that_drips_does_not_outlast_the_timeout(receiver: OtlpReceiver, settings: SignalSettings) -> None:
    client = OtlpClient(replace(settings, timeout_seconds=0.4), "traces")
    receiver.answer_with(Fault(body=b"x" * 10_000, drip_seconds=0.1))
    assert client.export(ONE, 1) == Outcome(0, 0, 1, 1, "timeout")
    client.close()


def test_proxies_of_the_environment_are_used(
    receiver: OtlpReceiver, settings: SignalSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver stands for a proxy: it is asked for the whole URL."""
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", receiver.http)
    client = OtlpClient(replace(settings, endpoint="http://collector.invalid:4318/v1/traces"), "traces")
    assert client.export(ONE, 1).accepted == 1
    assert receiver.taken[0].path == "http://collector.invalid:4318/v1/traces"
    client.close()


@pytest.mark.parametrize(("protocol", "port"), [("grpc", "http_port"), ("http/protobuf", "grpc_port")])
def test_the_wrong_protocol_for_a_port_is_dropped_and_logged(
    receiver: OtlpReceiver, protocol: Any, port: str, caplog: pytest.LogCaptureFixture
) -> None:
    address = f"127.0.0.1:{getattr(receiver, port)}"
    endpoint = address if protocol == "grpc" else f"http://{address}/v1/traces"
    client = OtlpClient(SignalSettings(endpoint, protocol, timeout_seconds=0.5), "traces")
    assert client.export(ONE, 1).dropped == 1
    assert f"cannot export spans to {endpoint}" in caplog.text
    client.close()
