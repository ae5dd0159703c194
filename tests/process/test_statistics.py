"""One set of requests, asked for in every way there is: /metrics, GetStatistics, Triton's ModelStatistics and
`driftgate top` tell the same numbers, over all workers and the restart of one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from support.admin import Refused, admin_of, until
from support.gateway import Gateway
from support.load import infer_request
from support.predict import Client, client_of
from zoo import built, versioned, write_version

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from gateway.wire.pb.driftgate.admin.v1.admin_pb2_grpc import AdminStub
from gateway.wire.pb.inference import grpc_service_pb2 as inference_pb

pytestmark = pytest.mark.process

WORKERS = 2
ROWS = (1, 2, 5)
ROUNDS = 8
ANSWERED, REFUSED = ROUNDS * len(ROWS), 3
PROMTOOL = shutil.which("promtool")
OPENMETRICS = "application/openmetrics-text;version=1.0.0"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    root = tmp_path_factory.mktemp("statistics")
    models = root / "models"
    write_version(models, "served", 1, versioned(10.0))
    write_version(models, "served", 2, versioned(20.0))
    write_version(models, "gather", 1, built("gather"))
    (models / "served" / "model.yaml").write_text("versions: all\n")
    with Gateway(models, root / "state", workers=WORKERS) as running:
        yield running


def statistics(gateway: Gateway, model: str = "") -> pb.GetStatisticsResponse:
    with grpc.insecure_channel(gateway.admin, options=(("grpc.enable_http_proxy", 0),)) as channel:
        stub: Any = AdminStub(channel)  # type: ignore[no-untyped-call]  # generated
        response: pb.GetStatisticsResponse = stub.GetStatistics(pb.GetStatisticsRequest(model=model), timeout=30)
        return response


def requests(gateway: Gateway) -> int:
    return sum(series.requests for series in statistics(gateway).series)


def send(gateway: Gateway) -> int:
    """From connections of their own, so that the workers share them; answers how many. Waits until all are counted."""
    before = requests(gateway)
    for number in range(ROUNDS):
        with client_of(gateway.grpc) as client:
            for rows in ROWS:
                x = np.zeros((rows, 4), np.float32)
                client.ask("ModelInfer", infer_request("served", x, "1" if number % 2 else "2"))
    with client_of(gateway.grpc) as client:
        for _ in range(REFUSED):
            refuse(client, failing_request())
        refuse(client, infer_request("unheard", np.zeros((1, 4), np.float32)))
    sent = ANSWERED + REFUSED + 1
    until(lambda: requests(gateway) == before + sent, "all requests were counted")
    return sent


def failing_request() -> inference_pb.ModelInferRequest:
    """Of the right type, with an id that the model does not know."""
    request = inference_pb.ModelInferRequest(model_name="gather")
    request.inputs.add(name="ids", datatype="INT64", shape=[1])
    request.raw_input_contents.append(np.array([99], np.int64).tobytes())
    return request


def refuse(client: Client, request: inference_pb.ModelInferRequest) -> None:
    with pytest.raises(Refused):
        client.ask("ModelInfer", request)


@pytest.fixture(scope="module")
def sent(gateway: Gateway) -> int:
    return send(gateway)


def totals(gateway: Gateway) -> dict[tuple[str, int], dict[str, float]]:
    """By model and version, of GetStatistics."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    for series in statistics(gateway).series:
        sums = found.setdefault(
            (series.model, series.version), dict.fromkeys(("ok", "bad", "rows", "runs", "queue"), 0)
        )
        sums["ok" if series.code == "OK" else "bad"] += series.requests
        sums["rows"] += series.rows if series.code == "OK" else 0
        sums["runs"] += series.runs
        sums["queue"] += series.queue.sum
        assert series.requests == series.duration.zero_count + sum(series.duration.counts)
    return found


def test_getstatistics_counts_every_request_by_what_became_of_it(gateway: Gateway, sent: int) -> None:
    found = totals(gateway)
    assert sum(sums["ok"] for sums in found.values()) == ANSWERED
    assert found["served", 1]["ok"] == found["served", 2]["ok"] == ANSWERED / 2
    assert found["served", 1]["rows"] == sum(ROWS) * ROUNDS / 2
    assert found["gather", 1]["bad"] == REFUSED
    assert found["", 0]["bad"] == 1
    assert sum(sums["ok"] + sums["bad"] for sums in found.values()) == sent
    assert {series.model for series in statistics(gateway, "served").series} == {"served"}


def test_tritons_statistics_are_the_same(gateway: Gateway, sent: int) -> None:
    assert sent
    found = totals(gateway)
    with triton.InferenceServerClient(gateway.grpc) as client:
        rows = client.get_inference_statistics().model_stats
    assert {(row.name, int(row.version)) for row in rows} == set(found) - {("", 0)}
    for row in rows:
        ours = found[row.name, int(row.version)]
        assert (row.inference_stats.success.count, row.inference_stats.fail.count) == (ours["ok"], ours["bad"])
        assert (row.inference_count, row.execution_count) == (ours["rows"], ours["runs"])
        assert row.inference_stats.queue.ns == pytest.approx(ours["queue"] * 1e9, rel=1e-6)


def test_metrics_are_the_same(gateway: Gateway, sent: int) -> None:
    assert gateway.metric("driftgate_requests_total") == sent
    assert gateway.metric("rpc_server_call_duration_seconds_count") == sent
    assert gateway.metric("driftgate_request_refused_total") == REFUSED + 1
    for (model, version), ours in totals(gateway).items():
        if model:
            labels = {"driftgate_model_name": model, "driftgate_model_version": str(version)}
            assert gateway.metric("driftgate_requests_total", **labels) == ours["ok"] + ours["bad"]
            assert gateway.metric("driftgate_runs_total", **labels) == ours["runs"]
            queued = gateway.metric("driftgate_queue_duration_seconds_sum", **labels)
            assert queued == pytest.approx(ours["queue"])


def test_top_is_the_same(gateway: Gateway, sent: int) -> None:
    assert sent
    command = [sys.executable, "-m", "gateway", "top", "--once", "--json", "--admin", gateway.admin]
    document = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    shown = {(v["model"], v["version"]): (v["requests"], v["errors"]) for v in document["versions"]}
    assert shown == {key: (ours["ok"] + ours["bad"], ours["bad"]) for key, ours in totals(gateway).items()}
    served = next(v for v in document["versions"] if v["model"] == "served")
    assert 0 < served["p50_seconds"] <= served["p95_seconds"] <= served["p99_seconds"]
    assert served["rows_per_run"] == pytest.approx(sum(ROWS) / len(ROWS))


def test_metrics_pass_the_checks_of_both_formats(gateway: Gateway, sent: int) -> None:
    """promtool is asked where it is installed."""
    assert sent
    _, text = gateway.get("/metrics")
    if PROMTOOL is not None:
        found = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
        assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    request = urllib.request.Request(gateway.http + "/metrics", headers={"Accept": OPENMETRICS})
    with urllib.request.urlopen(request, timeout=20) as response:
        names = {family.name for family in text_string_to_metric_families(response.read().decode())}
    assert {"rpc_server_call_duration_seconds", "driftgate_queue_duration_seconds", "target"} <= names


def test_unknown_names_from_clients_never_become_labels(gateway: Gateway, sent: int) -> None:
    assert sent
    assert "unheard" not in gateway.get("/metrics")[1]
    assert "unheard" not in str(statistics(gateway))


def test_no_total_falls_when_a_worker_is_killed(gateway: Gateway, sent: int) -> None:
    before = totals(gateway)
    gateway.children("worker")[0].kill()
    with admin_of(gateway.admin) as admin:
        until(lambda: sum(worker.restarts for worker in admin.status().workers) == 1, "the worker was restarted")
        until(lambda: all(worker.state == "serving" for worker in admin.status().workers), "both workers serve")
    assert totals(gateway) == before
    assert gateway.metric("driftgate_requests_total") == sent
    again = send(gateway)
    assert gateway.metric("driftgate_requests_total") == sent + again
    assert gateway.metric("driftgate_process_restarts_total") == 1
