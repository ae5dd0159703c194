"""A load that fails changes nothing: the old version answers, the caller learns why, and so does the audit."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest
import tritonclient.grpc as triton
from bad_models import BAD, BadModel, Fault, write_bad
from support.admin import Admin, Refused, admin_of
from support.gateway import Gateway
from support.predict import Client, client_of
from tritonclient.utils import InferenceServerException
from zoo import versioned, write_external, write_version

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

pytestmark = pytest.mark.process

MODEL = "victim"
REFUSED = (Fault.LOAD, Fault.SIGNATURE)
INCOMPLETE = {
    "empty": "model.onnx is empty",
    "text_file": "not a whole ONNX model",
    "corrupt": "not a whole ONNX model",
    "truncated": "truncated",
    "no_graph": "holds no graph",
    "unfinished": "model.onnx.part is a partial upload",
    "folder_for_a_file": "model.onnx is missing",
    "dangling_link": "broken link",
    "external_missing": "'weights.bin', which is missing",
    "external_short": "copy is not finished",
    "external_escapes": "inside the version's folder",
    "external_link": "leads out of the version's folder",
}
"""Refused before ONNX Runtime sees them, for their files are not whole."""
SERVER_PATHS = re.compile(r"/tmp/|/home/|/onnxruntime_src/|site-packages|\.cc:\d|Traceback")


@dataclass(frozen=True, slots=True)
class Served:
    models: Path
    gateway: Gateway
    admin: Admin
    client: Client


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("failed")
    models = folder / "models"
    write_version(models, MODEL, 1, versioned(10.0))
    with (
        Gateway(models, folder / "state") as gateway,
        admin_of(gateway.admin) as admin,
        client_of(gateway.grpc) as client,
    ):
        yield Served(models, gateway, admin, client)


@pytest.fixture(autouse=True)
def clean(served: Served) -> Iterator[None]:
    """Ends with version 1 alone in the repository, and served."""
    yield
    for path in (served.models / MODEL).iterdir():
        if path.name != "1":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert served.client.predict(MODEL) == (1, 10.0)
    assert served.admin.available(MODEL) == {1}


@pytest.mark.parametrize("bad", [bad for bad in BAD if bad.fault in REFUSED], ids=lambda bad: bad.name)
def test_a_bad_artifact_is_refused_with_its_reason(served: Served, bad: BadModel) -> None:
    write_bad(served.models, bad.name, 2, model=MODEL)
    with pytest.raises(Refused) as refusal:
        served.admin.load(MODEL, 2, reason="to see it fail")
    message = refusal.value.message
    assert "version 2 of model 'victim'" in message
    assert SERVER_PATHS.search(message) is None
    record = served.admin.audit(MODEL)[0]
    assert (record.action, record.version, record.outcome) == ("load", 2, "failed")
    assert (record.detail, record.reason, record.actor) == (message, "to see it fail", "loopback:tester")
    if bad.name in INCOMPLETE:
        assert refusal.value.code is grpc.StatusCode.UNAVAILABLE
        assert INCOMPLETE[bad.name] in message
    else:
        assert refusal.value.code is grpc.StatusCode.FAILED_PRECONDITION
        assert bad.says in message or bad.fault is Fault.SIGNATURE
        assert record.digest.startswith("sha256:")


def test_a_stock_client_is_told_why_its_load_failed(served: Served) -> None:
    write_bad(served.models, "unknown_operator", 2, model=MODEL)
    with triton.InferenceServerClient(served.gateway.grpc) as stock:
        with pytest.raises(InferenceServerException, match="No Op registered for Frob") as refusal:
            stock.load_model(MODEL)
        assert refusal.value.status() == "StatusCode.FAILED_PRECONDITION"
        assert stock.is_model_ready(MODEL)
    record = served.admin.audit(MODEL)[0]
    assert (record.action, record.version, record.outcome) == ("load", 2, "failed")


def test_a_stock_client_loads_past_a_version_that_is_still_being_copied(served: Served) -> None:
    """The policy chooses among whole versions, so an upload under way stops nobody."""
    write_bad(served.models, "unfinished", 2, model=MODEL)
    with triton.InferenceServerClient(served.gateway.grpc) as stock:
        stock.load_model(MODEL)
        rows = {row.version: row for row in stock.get_model_repository_index().models if row.name == MODEL}
    assert rows["1"].state == "READY"
    assert rows["2"].state == "UNAVAILABLE"
    assert "partial upload" in rows["2"].reason


def test_a_half_copied_version_is_served_once_its_copy_is_whole(served: Served) -> None:
    folder = write_external(served.models / MODEL / "2", 20.0)
    weights = folder / "weights.bin"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Refused, match="copy is not finished"):
        served.admin.load(MODEL, 2)
    assert served.client.predict(MODEL) == (1, 10.0)
    weights.write_bytes(whole)
    served.admin.load(MODEL, 2)
    assert served.client.predict(MODEL) == (2, 20.0)
    served.admin.load(MODEL, 1)


@pytest.mark.parametrize("name", ["always_fails", "huge"])
def test_a_model_whose_every_run_fails_is_served_with_a_warning_and_fails_its_requests(
    served: Served, name: str
) -> None:
    """No synthesized input can prove that real ones fail, too."""
    write_bad(served.models, name, 2, model=MODEL)
    (version,) = served.admin.load(MODEL, 2).model.versions[-1:]
    assert "refused every synthesized input" in " ".join(version.warnings)
    assert SERVER_PATHS.search(" ".join(version.warnings)) is None
    with pytest.raises(Refused, match=r"model failed|INVALID") as refusal:
        served.client.predict(MODEL)
    assert refusal.value.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT)
    served.admin.load(MODEL, 1)


def test_a_model_that_never_ends_is_stopped_in_its_warm_up(served: Served) -> None:
    (served.models / MODEL / "model.yaml").write_text("warmup: {limit_seconds: 0.5}\n")
    write_bad(served.models, "endless", 2, model=MODEL)
    with pytest.raises(Refused, match=r"stopped after 0\.5 s \(warmup\.limit_seconds\)") as refusal:
        served.admin.load(MODEL, 2)
    assert refusal.value.code is grpc.StatusCode.FAILED_PRECONDITION


def test_the_old_version_answers_while_the_new_one_warms_up_without_end(served: Served) -> None:
    (served.models / MODEL / "model.yaml").write_text("warmup: {limit_seconds: 2}\n")
    write_bad(served.models, "endless", 2, model=MODEL)
    refused: list[Refused] = []
    with served.admin.watch() as watch:
        loading = threading.Thread(target=lambda: refused.append(failure_of_loading(served.admin)))
        loading.start()
        watch.until(lambda event: event.version == 2 and event.state == pb.VERSION_STATE_WARMING_UP)
        answers = 0
        while loading.is_alive():
            assert served.client.predict(MODEL) == (1, 10.0)
            answers += 1
    loading.join()
    assert answers > 10
    assert refused[0].code is grpc.StatusCode.FAILED_PRECONDITION


def test_a_model_that_breaks_its_worker_twice_is_refused(served: Served) -> None:
    """A kill stands in for the crash of a native operator."""
    write_bad(served.models, "endless", 2, model=MODEL)
    refused: list[Refused] = []
    with served.admin.watch() as watch:
        loading = threading.Thread(target=lambda: refused.append(failure_of_loading(served.admin)))
        loading.start()
        for _ in range(2):
            watch.until(lambda event: event.version == 2 and event.state == pb.VERSION_STATE_WARMING_UP)
            psutil.Process(served.admin.status().workers[0].pid).kill()
        loading.join()
    assert refused[0].code is grpc.StatusCode.FAILED_PRECONDITION
    assert "breaks its process" in refused[0].message
    served.gateway.wait_ready()


def failure_of_loading(admin: Admin) -> Refused:
    with pytest.raises(Refused) as refusal:
        admin.load(MODEL, 2)
    return refusal.value


def test_every_problem_of_a_model_yaml_is_named_at_once(served: Served) -> None:
    write_version(served.models, MODEL, 2, versioned(20.0))
    (served.models / MODEL / "model.yaml").write_text(
        "batching: {max_batch_size: -1, delay: 3}\ninstances: 0\nversion: all\nwarmup: {runs: many}\n"
    )
    with pytest.raises(Refused) as refusal:
        served.admin.load(MODEL, 2)
    assert refusal.value.code is grpc.StatusCode.FAILED_PRECONDITION
    lines = refusal.value.message.splitlines()
    assert lines[0] == "victim/model.yaml has 5 problems:"
    assert sorted(line.partition(":")[0] for line in lines[1:]) == [
        "batching.delay", "batching.max_batch_size", "instances", "version", "warmup.runs",
    ]  # fmt: skip
    assert "instances: expected an integer 1..64, got 0;" in lines
    assert "known keys are max_batch_size, max_queue_delay_seconds, max_queue_requests" in refusal.value.message
    assert list(served.admin.model(MODEL).problems) == ["\n".join(lines)]
