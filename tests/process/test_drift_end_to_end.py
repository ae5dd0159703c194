"""A real model on real data: rows drawn from its training data alarm nobody, a shift of two features names these two,
in the RPC, at the command line, in OTLP and in the report."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.admin import until
from support.gateway import Gateway
from support.load import infer_request
from support.predict import Client, client_of
from support.receiver import OtlpReceiver

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from gateway.wire.pb.driftgate.admin.v1.admin_pb2_grpc import AdminStub

pytestmark = pytest.mark.process

WINDOW_SECONDS = 5
STATISTICS = {
    "pane_seconds": 1,
    "windows_seconds": [WINDOW_SECONDS, 60],
    "drift_window_seconds": WINDOW_SECONDS,
}
CALM_ROWS = 200_000
ROWS = 200  # of a request
SHIFTED = ("mean area", "worst radius")
ROWS_PER_SECOND = 10_000
DELAY_ROWS = 150_000
"""Within which a shift of one standard deviation raises an alarm: a window must fill with such rows, twice."""

DATA = load_breast_cancer()
FEATURES = DATA.data.astype(np.float32)
NAMES = [str(name) for name in DATA.feature_names]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A logistic regression, its features named, and the profile of what it learned from, built as a user would."""
    root = tmp_path_factory.mktemp("models")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(FEATURES, DATA.target)
    graph = to_onnx(classifier, FEATURES[:1], options={"zipmap": False})
    folder = root / "tumours" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    settings = {"statistics": {"names": {"X": NAMES}, "reject_below": 0.6}}
    (root / "tumours" / "model.yaml").write_text(json.dumps(settings))
    data = root.parent / "train.npz"
    np.savez(data, X=FEATURES)
    driftgate("profile", "build", "--models", str(root), "--model", "tumours", "--version", "1", "--data", str(data))
    return root


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(models: Path, receiver: OtlpReceiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.grpc}",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "OTEL_TRACES_SAMPLER": "always_off",
    }
    state = tmp_path_factory.mktemp("state") / "state"
    with Gateway(models, state, config={"statistics": STATISTICS}, environment=environment) as running:
        yield running


def driftgate(*arguments: str) -> str:
    command = [sys.executable, "-m", "gateway", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def drift(gateway: Gateway) -> pb.DriftReport:
    with grpc.insecure_channel(gateway.admin, options=(("grpc.enable_http_proxy", 0),)) as channel:
        stub: Any = AdminStub(channel)  # type: ignore[no-untyped-call]  # generated
        response = stub.GetDrift(pb.GetDriftRequest(model="tumours", version=1, history=720), timeout=30)
        report: pb.DriftReport = response.reports[0]
        return report


class Traffic:
    """Rows drawn from the training data. `change` is made to each block of them.

    At a stated rate: what is awaited is a window that fills, which takes seconds however fast the machine is.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._random = np.random.default_rng(7)
        self._began = time.monotonic()
        self.rows = 0

    def send(self, change: Callable[[np.ndarray], None] = lambda _: None) -> None:
        rows = FEATURES[self._random.integers(0, len(FEATURES), ROWS)]
        change(rows)
        request = infer_request("tumours", rows)
        request.inputs[0].name = "X"
        self._client.ask("ModelInfer", request)
        self.rows += ROWS
        time.sleep(max(self._began + self.rows / ROWS_PER_SECOND - time.monotonic(), 0))


def shift(rows: np.ndarray) -> None:
    """Both features by one of their standard deviations."""
    for name in SHIFTED:
        at = NAMES.index(name)
        rows[:, at] += FEATURES[:, at].std()


def alarmed(report: pb.DriftReport) -> list[str]:
    """Features and outputs: how fast a test's machine answers is not this test's business."""
    alarms = [verdict for verdict in report.verdicts if verdict.alarmed or verdict.alarmed_by_evidence]
    return [verdict.subject for verdict in alarms if verdict.role in ("feature", "output")]


def events(receiver: OtlpReceiver, name: str) -> list[dict[str, Any]]:
    records = [record for taken in receiver.taken if taken.signal == "logs" for record in taken.items]
    return [
        {each.key: _value(each.value) for each in record.attributes} for record in records if record.event_name == name
    ]


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


def test_a_shift_is_found_where_it_is_and_nothing_before_it(
    gateway: Gateway, receiver: OtlpReceiver, tmp_path: Path
) -> None:
    with client_of(gateway.grpc) as client:
        calm = Traffic(client)
        looks = set()
        began = time.monotonic()
        while calm.rows < CALM_ROWS or time.monotonic() - began < 3 * WINDOW_SECONDS:
            calm.send()
            if calm.rows % 10_000 == 0:
                report = drift(gateway)
                assert alarmed(report) == []
                looks.add(report.looked_at.seconds)
        assert len(looks) > 5, "so many looks were made at it"
        assert [e for e in events(receiver, "driftgate.drift.detected") if e["driftgate.drift.role"] == "feature"] == []

        shifted = Traffic(client)
        while not set(SHIFTED) <= set(alarmed(drift(gateway))):
            for _ in range(10):
                shifted.send(shift)
            assert shifted.rows <= DELAY_ROWS
        print(f"named after {shifted.rows:,} rows")

        while drift(gateway).window.rows > shifted.rows:  # until the window holds nothing else
            shifted.send(shift)
        report = drift(gateway)
        assert {verdict.subject for verdict in report.verdicts[:2]} == set(SHIFTED)
        assert alarmed(report)[:2] == [verdict.subject for verdict in report.verdicts[:2]]
        for verdict in report.verdicts[:2]:
            assert verdict.compared_with == report.reference.digest
            assert verdict.since.seconds > 0
            assert report.reference.digest in verdict.text

        listing = driftgate("drift", "tumours", "--version", "1", "--admin", gateway.admin).splitlines()
        table = listing[next(at for at, line in enumerate(listing) if line.startswith("SUBJECT")) + 1 :]
        assert {next(name for name in NAMES if line.startswith(name)) for line in table[:2]} == set(SHIFTED)

        page = tmp_path / "drift.html"
        driftgate("drift", "tumours", "--version", "1", "--html", str(page), "--admin", gateway.admin)
        text = page.read_text()
        assert max(text.index(name) for name in SHIFTED) < min(
            text.find(name) % len(text) for name in NAMES if name not in SHIFTED
        ), "the page names them before all others"

        until(lambda: set(SHIFTED) <= detected(receiver), "both are events")
        event = next(e for e in events(receiver, "driftgate.drift.detected") if e["driftgate.drift.subject"] in SHIFTED)
        assert event["driftgate.model.name"] == "tumours"
        until(lambda: set(SHIFTED) <= alarming_metrics(gateway), "the alarms are metrics")


def detected(receiver: OtlpReceiver) -> set[str]:
    return {event["driftgate.drift.subject"] for event in events(receiver, "driftgate.drift.detected")}


def alarming_metrics(gateway: Gateway) -> set[str]:
    return {
        sample.labels["driftgate_drift_subject"]
        for family in text_string_to_metric_families(gateway.get("/metrics")[1])
        if family.name == "driftgate_drift_alarm"
        for sample in family.samples
        if sample.value == 1
    }
