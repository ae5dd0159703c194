"""A version whose code ends its process is named: in the log, in an event, and by nothing that counts requests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from rollout_models import crash_row, crashing_at_warm_up, everyday, write_pair
from support.admin import Refused, admin_of, until
from support.gateway import Gateway
from support.load import infer_request
from support.predict import Client, client_of
from support.receiver import OtlpReceiver
from zoo import write_version

pytestmark = pytest.mark.process

MODEL = "m"
# Control counts those that ended since it looked last: two ends make one line or two.
CRASHED = re.compile(r"version 2 of 'm' was being run or loaded by (\d+) processes that died of it")


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as running:
        yield running


@pytest.fixture
def gateway(tmp_path: Path, receiver: OtlpReceiver) -> Iterator[Gateway]:
    """Versions 1 and 2 are served; 2 ends its process at one row."""
    models = write_pair(tmp_path / "models", MODEL, "crashing_on_demand")
    (models / MODEL / "model.yaml").write_text("versions: all\ndefault: 1\n")
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.grpc}", "OTEL_TRACES_SAMPLER": "always_off"}
    with Gateway(models, tmp_path / "state", workers=2, environment=environment) as running:
        yield running


def crashes(receiver: OtlpReceiver) -> list[str]:
    records = [record for taken in receiver.taken if taken.signal == "logs" for record in taken.items]
    return [record.body.string_value for record in records if record.event_name == "driftgate.version.crashed"]


def ended_by_version_2(lines: Iterable[str]) -> int:
    return sum(int(count) for line in lines for count in CRASHED.findall(line))


def send_crash(client: Client) -> None:
    with pytest.raises(Refused) as refusal:
        client.ask("ModelInfer", infer_request(MODEL, crash_row(), "2"))
    assert refusal.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_crash_names_the_version_and_the_gateway_serves_on(gateway: Gateway, receiver: OtlpReceiver) -> None:
    before = ended_by_version_2(crashes(receiver))
    rows = everyday(np.random.default_rng(1), 2)
    with client_of(gateway.grpc) as client:
        client.ask("ModelInfer", infer_request(MODEL, rows, "1"))
        for _ in range(2):
            send_crash(client)
            gateway.wait_ready()
    gateway.logged("died in m/2")
    until(lambda: ended_by_version_2(gateway.log.splitlines()) == 2, "both crashes are logged")
    assert "m/1" not in "".join(line for line in gateway.log.splitlines() if "died in" in line)
    until(lambda: ended_by_version_2(crashes(receiver)) - before == 2, "both crashes are events")
    with client_of(gateway.grpc) as client:
        client.ask("ModelInfer", infer_request(MODEL, rows, "1"))


def test_a_worker_that_is_killed_from_outside_has_crashed_in_nothing(gateway: Gateway) -> None:
    worker = gateway.children("worker")[0]
    worker.kill()
    gateway.logged("was ended by signal 9")
    gateway.wait_ready()
    assert "died in" not in gateway.log


def test_a_version_that_ends_its_process_at_warm_up_is_named_and_nothing_else_changes(
    gateway: Gateway, tmp_path: Path
) -> None:
    write_version(tmp_path / "models", MODEL, 3, crashing_at_warm_up())
    with admin_of(gateway.admin) as admin, client_of(gateway.grpc) as client:
        with pytest.raises(Refused, match="breaks its process"):
            admin.load(MODEL, 1, 2, 3)
        gateway.logged("died in m/3")
        until(lambda: admin.available(MODEL) == {1, 2}, "what was served is served")
        client.ask("ModelInfer", infer_request(MODEL, everyday(np.random.default_rng(1)), "1"))
    assert "died in m/1" not in gateway.log
    assert "died in m/2" not in gateway.log
