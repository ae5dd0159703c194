"""OTEL_* variables as a whole gateway follows them: what is exported, what is sampled, what ends the start."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from support.calls import Ask, Caller, Told, identified
from support.gateway import Gateway
from support.load import infer_request
from support.predict import client_of
from support.receiver import OtlpReceiver
from support.spans import requests_and_runs
from zoo import versioned, write_version

from gateway.wire.pb.inference import grpc_service_pb2 as pb

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

REQUESTS = 600
REFUSES = 0
WANTS = 1
DEFAULT_PORTS = (4317, 4318)
WRONG = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "collector:port",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
    "OTEL_EXPORTER_OTLP_HEADERS": "no equals sign",
}
WRONG_NUMBERS = {
    "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
    "OTEL_BSP_SCHEDULE_DELAY": "-5",
    "OTEL_METRIC_EXPORT_INTERVAL": "1s",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("environment") / "models"
    write_version(root, "m", 1, versioned(1.0))
    return root


def asks(count: int) -> Iterator[Ask]:
    """In turn: without a parent, with one that is sampled, with one that is not."""
    draw = random.Random(11)
    request = infer_request("m", np.zeros((1, 4), np.float32))
    for number in range(count):
        parent = (f"{draw.getrandbits(128):032x}", f"{draw.getrandbits(64):016x}")
        flags = WANTS if number % 3 == 1 else REFUSES
        yield Ask("any", identified(request), parent if number % 3 else None, flags)


def send(gateway: Gateway, count: int = REQUESTS) -> list[Told]:
    with Caller(gateway.grpc, asks(count), in_flight=8, channels=4) as caller:
        told = caller.finish()
    assert {each.code for each in told} == {"OK"}
    return told


def exported(models: Path, state: Path, environment: dict[str, str], config: Any = None) -> list[Told]:
    """Of REQUESTS requests, those whose spans have arrived: the replies have told which. Metrics count all."""
    with OtlpReceiver() as receiver:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.grpc}"}
        if config is not None:
            config = {"telemetry": {"otel": {**config, **endpoint}}}
        with Gateway(models, state, config=config, environment=environment if config else environment | endpoint) as g:
            told = send(g)
            g.wait_for(lambda: g.metric("driftgate_requests_total") == REQUESTS, 20.0, "to count all")
        spans = {span.span_id for span in requests_and_runs(receiver.spans)[0]}
        assert receiver.metrics
        found = [each for each in told if each.span_id in spans]
        assert len(found) == len(spans)
        assert found == [each for each in told if each.flags]
        return found


def by_parent(told: list[Told]) -> tuple[int, int, int]:
    """How many had no parent, one that is sampled, and one that is not."""
    roots = sum(each.ask.parent is None for each in told)
    refusing = sum(each.ask.refuses_sampling for each in told)
    return roots, len(told) - roots - refusing, refusing


def is_quarter(count: int, of: int) -> bool:
    """Within six standard deviations of the binomial distribution."""
    return bool(abs(count - of / 4) < 6 * (of * 0.25 * 0.75) ** 0.5)


def test_always_on_exports_what_callers_do_not_want_sampled_too(models: Path, tmp_path: Path) -> None:
    told = exported(models, tmp_path / "state", {"OTEL_TRACES_SAMPLER": "always_on"})
    assert len(told) == REQUESTS


def test_a_ratio_below_a_parent_is_of_new_traces_alone(models: Path, tmp_path: Path) -> None:
    settings = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}
    roots, wanting, refusing = by_parent(exported(models, tmp_path / "state", settings))
    assert is_quarter(roots, REQUESTS // 3)
    assert wanting == REQUESTS // 3
    assert refusing == 0


def test_the_configuration_may_hold_the_variables_and_the_environment_goes_first(models: Path, tmp_path: Path) -> None:
    """A ratio, which asks no parent, in place of `always_off`; the rest is the file's."""
    file = {"OTEL_TRACES_SAMPLER": "always_off", "OTEL_TRACES_SAMPLER_ARG": 0.25, "OTEL_METRIC_EXPORT_INTERVAL": 200}
    told = exported(models, tmp_path / "state", {"OTEL_TRACES_SAMPLER": "traceidratio"}, file)
    assert all(is_quarter(count, REQUESTS // 3) for count in by_parent(told)), by_parent(told)
    for each in told:
        assert int(each.trace_id[16:], 16) < 2**62


class Outgoing:
    """Connections that a gateway's processes make, looked for from entry to exit. Those to its own ports count not."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look, name="outgoing")
        self.seen: set[Any] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _look(self) -> None:
        own = {int(str(self._gateway.endpoints[name]).rpartition(":")[2]) for name in ("grpc", "http", "admin")}
        tree = self._gateway.children()
        while not self._ending.wait(0.02):
            for process in tree:
                for connection in process.net_connections("inet"):
                    if connection.raddr and connection.laddr.port not in own:
                        self.seen.add(connection)


@contextmanager
def default_ports() -> Iterator[list[socket.socket]]:
    """Listeners where OTLP goes by default, but where somebody else listens: a connection to that one would be seen."""
    with ExitStack() as stack:
        listeners = []
        for port in DEFAULT_PORTS:
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
                listener.listen()
            except OSError:
                continue
            listener.setblocking(False)
            listeners.append(listener)
        yield listeners


def test_a_gateway_without_settings_connects_to_nobody_and_counts_all_the_same(models: Path, tmp_path: Path) -> None:
    quick = {"OTEL_METRIC_EXPORT_INTERVAL": "100", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with default_ports() as listeners:
        with Gateway(models, tmp_path / "state", environment=quick) as gateway, Outgoing(gateway) as outgoing:
            told = send(gateway)
            gateway.wait_for(lambda: gateway.metric("driftgate_requests_total") == REQUESTS, 20.0, "to count all")
        assert outgoing.seen == set()
        for listener in listeners:
            with pytest.raises(BlockingIOError):
                listener.accept()
    assert {each.trace_id for each in told} == {""}, "without spans there are no ids to tell"


@pytest.mark.parametrize(
    "switched_off",
    [
        pytest.param({"OTEL_SDK_DISABLED": "true"}, id="disabled"),
        pytest.param({f"OTEL_{name}_EXPORTER": "none" for name in ("TRACES", "METRICS", "LOGS")}, id="none"),
    ],
)
def test_what_is_switched_off_goes_nowhere(models: Path, tmp_path: Path, switched_off: dict[str, str]) -> None:
    with OtlpReceiver() as receiver:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.grpc}",
            "OTEL_METRIC_EXPORT_INTERVAL": "100",
            **switched_off,
        }
        with Gateway(models, tmp_path / "state", environment=settings) as gateway, Outgoing(gateway) as outgoing:
            send(gateway)
            assert gateway.get("/metrics")[0] == 200
            with client_of(gateway.grpc) as client:
                (row,) = client.ask("ModelStatistics", pb.ModelStatisticsRequest()).model_stats
            assert row.inference_stats.success.count == REQUESTS
        assert outgoing.seen == set()
        assert receiver.attempts == []


def test_wrong_numbers_are_warned_of_and_empty_variables_are_none(models: Path, tmp_path: Path) -> None:
    with OtlpReceiver() as receiver:
        config = {"telemetry": {"otel": {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.grpc}"}}}
        settings = WRONG_NUMBERS | {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}
        with Gateway(models, tmp_path / "state", config=config, environment=settings) as gateway:
            send(gateway)
            receiver.wait_for(lambda: receiver.counts["traces"] >= REQUESTS * 2 // 3)  # a third is not sampled
        warned = [line for line in gateway.log.splitlines() if "; the default holds" in line]
        assert {name for line in warned for name in WRONG_NUMBERS if f"{name}: expected" in line} == set(WRONG_NUMBERS)


def test_wrong_destinations_end_the_start_and_each_is_named(models: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gateway", "serve", "--models", str(models), "--state-dir", str(tmp_path)]
    command += [part for name in ("grpc", "http", "admin") for part in (f"--{name}", "127.0.0.1:0")]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("DRIFTGATE_")}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, env=clean | WRONG)
    assert ended.returncode == 2
    assert {line.split(":")[0].strip() for line in ended.stderr.splitlines() if line.startswith("  ")} == set(WRONG)
    assert f"{len(WRONG)} problems" in ended.stderr
    assert ended.stdout == ""
