"""Changes by operators: what each does, what it refuses, and that the audit has all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from support.admin import Admin, Refused, admin_of
from support.gateway import Gateway
from support.load import infer_request
from support.predict import Client, client_of
from zoo import slow, versioned, write_version

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

pytestmark = pytest.mark.process

CONSTANTS = {1: 10.0, 2: 20.0, 3: 30.0}
NOT_FOUND, UNAVAILABLE = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE
FAILED_PRECONDITION, INVALID = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT


@dataclass(frozen=True, slots=True)
class Served:
    models: Path
    gateway: Gateway
    admin: Admin
    client: Client

    def model(self, name: str, **settings: str) -> str:
        """A model of its own for one test, in the repository in three versions, not loaded."""
        for version, k in CONSTANTS.items():
            write_version(self.models, name, version, versioned(k))
        text = "".join(f"{key}: {value}\n" for key, value in settings.items())
        (self.models / name / "model.yaml").write_text(text)
        return name

    def code(self, name: str, version: str = "") -> grpc.StatusCode:
        with pytest.raises(Refused) as refusal:
            self.client.predict(name, version)
        return refusal.value.code


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("changes")
    write_version(folder / "models", "other", 1, versioned(1.0))
    with (
        Gateway(folder / "models", folder / "state", workers=2) as gateway,
        admin_of(gateway.admin, actor="olga") as admin,
        client_of(gateway.grpc) as client,
    ):
        yield Served(folder / "models", gateway, admin, client)


def refused(change: object, code: grpc.StatusCode, says: str) -> str:
    """The message with which `change` (called) is refused."""
    assert callable(change)
    with pytest.raises(Refused, match=says) as refusal:
        change()
    assert refusal.value.code is code
    return refusal.value.message


def test_a_new_model_is_unknown_to_clients_until_it_is_loaded(served: Served) -> None:
    name = served.model("fresh")
    assert served.code(name) is NOT_FOUND
    assert served.admin.load(name).changed
    assert served.client.predict(name) == (3, 30.0), "latest(1)"
    assert served.admin.available(name) == {3}
    assert served.code(name, "1") is UNAVAILABLE
    assert served.code(name, "9") is NOT_FOUND
    assert served.code(name, "nobody") is NOT_FOUND


def test_labels_and_default_of_a_model_yaml_hold_from_the_first_load(served: Served) -> None:
    name = served.model("named", versions="all", labels="{stable: 1, canary: 3}", default="stable")
    served.admin.load(name)
    assert served.client.predict(name) == (1, 10.0)
    assert served.client.predict(name, "canary") == (3, 30.0)
    assert served.client.predict(name, "2") == (2, 20.0)


def test_a_label_keeps_its_version_served_when_others_are_loaded(served: Served) -> None:
    name = served.model("pinned")
    served.admin.load(name, 1)
    served.admin.label(name, "stable", 1)
    served.admin.load(name, 3)
    assert served.admin.available(name) == {1, 3}
    assert served.client.predict(name, "stable") == (1, 10.0)
    assert served.client.predict(name) == (3, 30.0)
    served.admin.delete_label(name, "stable")
    assert served.admin.available(name) == {1, 3}, "deleting a label unloads nothing by itself"
    served.admin.load(name, 3)
    assert served.admin.available(name) == {3}


def test_a_version_that_a_name_points_at_is_not_unloaded(served: Served) -> None:
    name = served.model("held")
    served.admin.load(name, 1, 2)
    served.admin.label(name, "stable", 1)
    served.admin.default(name, "2")
    refused(lambda: served.admin.unload(name, 1), FAILED_PRECONDITION, "named by stable")
    refused(lambda: served.admin.unload(name, 2), FAILED_PRECONDITION, "named by the default")
    served.admin.default(name, "stable")
    refused(lambda: served.admin.delete_label(name, "stable"), FAILED_PRECONDITION, "default")
    assert served.admin.unload(name, 2).changed
    assert served.code(name, "2") is UNAVAILABLE
    assert served.client.predict(name) == (1, 10.0)


def test_names_point_only_at_what_is_served(served: Served) -> None:
    name = served.model("strict")
    served.admin.load(name, 1)
    refused(lambda: served.admin.label(name, "canary", 2), NOT_FOUND, "version 2 .* is not served; served: 1")
    refused(lambda: served.admin.label(name, "canary", 9), NOT_FOUND, "version 9")
    refused(lambda: served.admin.label(name, "7", 1), INVALID, "label that starts with a letter")
    refused(lambda: served.admin.default(name, "2"), NOT_FOUND, "version 2")
    refused(lambda: served.admin.default(name, "canary"), NOT_FOUND, "no label 'canary'")
    refused(lambda: served.admin.load(name, 9), NOT_FOUND, "no complete version 9 .* it has 1, 2, 3")
    refused(lambda: served.admin.load("nobody"), NOT_FOUND, "no model 'nobody'")
    refused(lambda: served.admin.unload("nobody"), NOT_FOUND, "no model 'nobody'")
    assert served.client.predict(name) == (1, 10.0)
    assert dict(served.admin.model(name).labels) == {}


def test_an_unloaded_model_is_unavailable_until_it_is_loaded_again(served: Served) -> None:
    name = served.model("resting")
    served.admin.load(name, 1, 2)
    served.admin.label(name, "stable", 1)
    assert served.admin.unload(name, reason="maintenance").changed
    assert not served.admin.unload(name).changed
    for version in ("", "1", "2", "stable"):
        assert served.code(name, version) is UNAVAILABLE, version
    with pytest.raises(Refused, match="unload"):
        served.client.predict(name)
    assert not served.admin.model(name).served
    assert served.admin.load(name, 1, 2).changed
    assert served.client.predict(name, "stable") == (1, 10.0), "labels come back with it"


def test_a_stock_client_unloads_and_loads(served: Served) -> None:
    name = served.model("stock")
    with triton.InferenceServerClient(served.gateway.grpc) as stock:
        stock.load_model(name)
        assert stock.is_model_ready(name)
        stock.unload_model(name)
        assert not stock.is_model_ready(name)
        assert served.code(name) is UNAVAILABLE
        stock.load_model(name)
        assert served.client.predict(name) == (3, 30.0)
    peers = [(record.action, record.outcome, record.peer.split(":")[1]) for record in served.admin.audit(name)]
    assert peers == [("load", "done", "127.0.0.1"), ("unload", "done", "127.0.0.1"), ("load", "done", "127.0.0.1")]


def test_a_request_in_flight_is_answered_by_the_version_that_took_it(served: Served) -> None:
    """A swap neither waits for it nor cuts it off; that version leaves memory after its answer."""
    write_version(served.models, "long", 1, slow(400_000))
    (served.models / "long" / "model.yaml").write_text("warmup: {enabled: false}\n")
    served.admin.load("long", 1)
    write_version(served.models, "long", 2, slow(1))
    x = np.ones((1, 64), np.float32)
    with served.admin.watch() as watch:
        call = served.client.begin("ModelInfer", infer_request("long", x))
        deadline = time.monotonic() + 10
        while not any(worker.requests_in_flight for worker in served.admin.status().workers):
            assert time.monotonic() < deadline
        served.admin.load("long", 2)
        assert not call.done(), "the swap did not wait for the request"
        assert served.client.ask("ModelInfer", infer_request("long", x)).model_version == "2"
        assert call.result().model_version == "1"
        states = watch.until(lambda event: event.version == 1 and event.state == pb.VERSION_STATE_UNLOADED)
    holder = states[-1].worker
    drained = [event.state for event in states if event.version == 1 and event.worker == holder]
    assert drained[-2:] == [pb.VERSION_STATE_DRAINING, pb.VERSION_STATE_UNLOADED]


def test_a_version_wanted_again_while_it_drains_is_loaded_again(served: Served) -> None:
    write_version(served.models, "again", 1, slow(400_000))
    write_version(served.models, "again", 2, slow(1))
    (served.models / "again" / "model.yaml").write_text("warmup: {enabled: false}\n")
    served.admin.load("again", 1, 2)
    x = np.ones((1, 64), np.float32)
    call = served.client.begin("ModelInfer", infer_request("again", x, "1"))
    served.admin.unload("again", 1)
    served.admin.load("again", 1, 2)
    assert served.admin.available("again") == {1, 2}
    assert call.result().model_version == "1"


def test_changes_of_one_model_at_once_are_made_one_after_another(served: Served) -> None:
    name = served.model("contested")
    served.admin.load(name, 1, 2, 3)
    outcomes: list[bool] = []

    def change(version: int) -> None:
        with admin_of(served.gateway.admin) as admin:
            outcomes.extend(admin.label(name, "live", version).changed for _ in range(3))

    threads = [threading.Thread(target=change, args=(version,)) for version in CONSTANTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 9
    (live,) = served.admin.model(name).labels.values()
    assert served.client.predict(name, "live") == (live, CONSTANTS[live])


def test_a_change_goes_on_when_its_caller_goes_away(served: Served) -> None:
    """Store and workers agree afterwards, and the next change finds them so."""
    name = served.model("abandoned")
    served.admin.load(name, 1)
    for version in (2, 3, 1, 2):
        served.admin.begin_load(name, version).cancel()
    served.admin.load(name, 3, reason="the last")
    assert served.client.predict(name) == (3, 30.0)
    assert served.admin.available(name) == {3}
    assert served.admin.audit(name)[0].reason == "the last"


def test_the_audit_has_who_what_when_from_where_and_which_bytes(served: Served) -> None:
    name = served.model("audited")
    before = time.time()
    served.admin.load(name, 1, 2, reason="release 7")
    served.admin.load(name, 1, 2)
    served.admin.label(name, "stable", 1)
    served.admin.default(name, "stable", reason="as agreed")
    with pytest.raises(Refused):
        served.admin.unload(name, 1)
    served.admin.unload(name, 2)
    write_version(served.models, name, 4, b"no model at all")
    with pytest.raises(Refused):
        served.admin.load(name, 4)
    digests = {version.version: version.digest for version in served.admin.model(name).versions}
    records = served.admin.audit(name)[::-1]
    assert [(r.action, r.version, r.outcome, r.reason) for r in records] == [
        ("load", 2, "done", "release 7"),
        ("load", 2, "unchanged", ""),
        ("set label stable", 1, "done", ""),
        ("set default stable", 0, "done", "as agreed"),
        ("unload", 1, "refused", ""),
        ("unload", 2, "done", ""),
        ("load", 4, "failed", ""),
    ]
    assert {record.actor for record in records} == {"loopback:olga"}
    assert all(record.peer.startswith("ipv4:127.0.0.1:") for record in records)
    assert all(before - 1 <= record.time.ToSeconds() <= time.time() + 1 for record in records)
    assert [record.id for record in records] == sorted({record.id for record in records})
    assert records[2].digest == records[4].digest == digests[1]
    assert "sha256:" in records[5].digest, "also of what is no longer served"
    assert "named by" in records[4].detail
    assert "not a whole ONNX model" in records[6].detail
    for version in (1, 2):
        assert f"{version} (sha256:" in records[0].detail
