"""The OTLP client against a receiver that is a process of its own, which is killed and comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, Self

import pytest
from support.received import SIGNALS

from gateway.telemetry.otlp.client import OtlpClient
from gateway.telemetry.otlp.retry import Backoff
from gateway.telemetry.signal_settings import SignalSettings

TESTS = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 20.0
REQUEST = SIGNALS["traces"].request()
SPANS = REQUEST.resource_spans.add().scope_spans.add().spans
for _ in range(10):
    SPANS.add(name="x")
TEN = REQUEST.SerializeToString()


class Process:
    """`python -m support.receiver`."""

    def __init__(self, *arguments: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(TESTS), "PYTHONWARNINGS": "error"}
        command = [sys.executable, "-m", "support.receiver", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        self.out = self.process.stdout
        self.ports: dict[str, int] = json.loads(self.out.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.out.close()

    def ask(self, path: str, fields: dict[str, Any] | None = None) -> Any:
        data = None if fields is None else json.dumps(fields).encode()
        url = f"http://127.0.0.1:{self.ports['http']}{path}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(url, data), timeout=WAIT_SECONDS) as answer:
            return json.load(answer)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_spans_taken_and_dropped_add_up_over_a_receivers_death(protocol: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed between two exports and started again on its ports; one that refuses on demand drops the rest."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Process("--count-only") as first:
        ports = [f"--{name}={port}" for name, port in first.ports.items()]
        address = f"127.0.0.1:{first.ports['grpc' if protocol == 'grpc' else 'http']}"
        endpoint = address if protocol == "grpc" else f"http://{address}/v1/traces"
        backoff = Backoff(initial_seconds=0.05, factor=1.0)
        patient = OtlpClient(
            SignalSettings(endpoint, protocol, timeout_seconds=WAIT_SECONDS), "traces", backoff=backoff
        )
        hasty = OtlpClient(SignalSettings(endpoint, protocol, timeout_seconds=0.2), "traces", backoff=backoff)
        assert patient.export(TEN, 10).accepted == 10
        assert first.ask("/counts")["traces"] == 10
    assert hasty.export(TEN, 10).dropped == 10
    with Process("--count-only", *ports) as second:
        assert second.ports == first.ports
        assert patient.export(TEN, 10).accepted == 10
        second.ask("/fault", {"code": "PERMISSION_DENIED", "status": 403})
        assert patient.export(TEN, 10).reason == ("PERMISSION_DENIED" if protocol == "grpc" else "403")
        second.ask("/fault", {})
        assert patient.export(TEN, 10).accepted == 10
        patient.close()
        hasty.close()
        second.process.terminate()
        counts = json.loads(second.out.readline())
        assert (counts["traces"], counts["requests"], counts["refused"]) == (20, 2, 1)
        assert second.process.wait(WAIT_SECONDS) == 0
