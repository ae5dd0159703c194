"""Replies come, and memory is as small, whatever the receiver of telemetry does.

Healthy and faulty slices take turns, so that what else the machine does falls on both. DRIFTGATE_FAULT_SECONDS is how
long each fault is measured, and health as long; the ratios of latencies are printed: see them with -s.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from dataplane.dataplane_certificates import Authority
from support.export_counts import export_counts
from support.gateway import Gateway
from support.load import Answer, Load, quantile_ms
from support.receiver import ServerTls
from support.receiver_process import ReceiverProcess
from zoo import versioned, write_version

pytestmark = [pytest.mark.process, pytest.mark.timeout(3600)]

SECONDS = float(os.environ.get("DRIFTGATE_FAULT_SECONDS", "0.4"))
IS_SHORT = SECONDS < 5
SLICES = 2 if IS_SHORT else 10
"""Of each kind."""
SETTLE_SECONDS = 0.1 if IS_SHORT else 1.0
"""After a change of the receiver, before a slice is measured."""
RING_RECORDS = 4096
IN_FLIGHT, CHANNELS = 8, 4
MEBIBYTE = 2**20
GROWTH_BYTES = 30 * MEBIBYTE
ANSWERS: dict[str, dict[str, Any]] = {
    "partial success": {"rejected": 10, "message": "too old"},
    "no room": {"code": "RESOURCE_EXHAUSTED"},
    "no room, with RetryInfo": {"code": "RESOURCE_EXHAUSTED", "told_seconds": 1.0},
    "unavailable": {"code": "UNAVAILABLE"},
    "slow by 10 s": {"seconds": 10.0},
}
FAULTS = ("killed", "wrong certificate", *ANSWERS)
"""Those first after which a client takes seconds to connect anew."""


@dataclass
class Scene:
    gateway: Gateway
    receiver: ReceiverProcess
    tls: ServerTls
    wrong: ServerTls
    resident: dict[psutil.Process, int]

    def begin(self, fault: str) -> None:
        if fault in ANSWERS:
            self.receiver.answer_always(**ANSWERS[fault])
        else:
            self.receiver.kill()
            if fault == "wrong certificate":
                self.receiver.start(self.wrong)

    def heal(self, fault: str) -> None:
        if fault in ANSWERS:
            self.receiver.answer_always()
        else:
            self.receiver.kill()
            self.receiver.start(self.tls)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("latency")
    write_version(folder / "models", "served", 1, versioned(1.0))
    authority, stranger = Authority("trusted"), Authority("a stranger")
    (folder / "ca.pem").write_bytes(authority.certificate)
    tls, wrong = (write_pair(folder, name, who) for name, who in (("right", authority), ("wrong", stranger)))
    with ReceiverProcess(tls) as receiver:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://127.0.0.1:{receiver.grpc_port}",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(folder / "ca.pem"),
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        }
        config = {"telemetry": {"ring_records": RING_RECORDS}}
        gateway = Gateway(folder / "models", folder / "state", config=config, environment=environment)
        with gateway:
            with Load(gateway.grpc, "served", {1: 1.0}, in_flight=IN_FLIGHT, channels=CHANNELS) as load:
                load.wait_for(RING_RECORDS)
            resident = {child: child.memory_info().rss for child in gateway.children()}
            yield Scene(gateway, receiver, tls, wrong, resident)


def write_pair(folder: Path, name: str, authority: Authority) -> ServerTls:
    signed = authority.sign("localhost")
    files = ServerTls(folder / f"{name}.pem", folder / f"{name}-key.pem")
    files.certificate.write_bytes(signed.certificate)
    files.key.write_bytes(signed.key)
    return files


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_receiver_holds_up_no_reply_and_no_memory(scene: Scene, fault: str) -> None:
    healthy: list[Answer] = []
    faulty: list[Answer] = []
    before = export_counts(scene.gateway)
    with Load(scene.gateway.grpc, "served", {1: 1.0}, in_flight=IN_FLIGHT, channels=CHANNELS) as load:
        for _ in range(SLICES):
            healthy += measured(load)
            scene.begin(fault)
            faulty += measured(load)
            scene.heal(fault)
    assert load.failures == []
    assert faulty, "requests are begun and answered while the fault lasts"
    counts = export_counts(scene.gateway) - before
    ratios = {q: quantile_ms(faulty, q) / quantile_ms(healthy, q) for q in (0.5, 0.99, 0.999)}
    growth = max(child.memory_info().rss - size for child, size in scene.resident.items())
    for name, answers in (("healthy", healthy), ("faulty", faulty)):
        print(f"\n{fault}, {name}: {len(answers) / SECONDS:.0f}/s, p99 {quantile_ms(answers, 0.99):.2f} ms", end="")
    shown = ", ".join(f"p{100 * q:g} {ratio:.3f}" for q, ratio in ratios.items())
    print(f"\n{fault}, ratios: {shown}; {growth / MEBIBYTE:.1f} MiB grown; {counts}")
    assert growth < GROWTH_BYTES


def measured(load: Load) -> list[Answer]:
    """A slice, from a moment after the last change."""
    time.sleep(SETTLE_SECONDS)
    began, first = time.monotonic(), len(load.answers)
    time.sleep(SECONDS / SLICES)
    ended = time.monotonic()
    return [answer for answer in load.answers[first:] if began <= answer.started and answer.started <= ended]
