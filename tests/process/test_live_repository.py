"""The repository changes, or is gone, while the gateway serves from it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from bad_models import write_bad
from support.admin import Admin, Refused, admin_of, until
from support.gateway import Gateway
from support.predict import Client, client_of
from zoo import versioned, write_version

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

pytestmark = pytest.mark.process

POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Served:
    models: Path
    gateway: Gateway
    admin: Admin
    client: Client

    def answers(self, model: str, version: int, k: float) -> bool:
        try:
            return self.client.predict(model) == (version, k)
        except Refused:
            return False


@pytest.fixture(scope="module")
def polled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway that looks for changes by itself."""
    folder = tmp_path_factory.mktemp("polled")
    write_version(folder / "models", "first", 1, versioned(10.0))
    config = {"repository": {"poll_seconds": POLL_SECONDS, "settle_seconds": 0}}
    with (
        Gateway(folder / "models", folder / "state", config=config) as gateway,
        admin_of(gateway.admin) as admin,
        client_of(gateway.grpc) as client,
    ):
        yield Served(folder / "models", gateway, admin, client)


def test_a_new_version_and_a_new_model_are_served_when_they_appear(polled: Served) -> None:
    write_version(polled.models, "first", 2, versioned(20.0))
    until(lambda: polled.answers("first", 2, 20.0), "the new version is served")
    write_version(polled.models, "second", 1, versioned(1.0))
    until(lambda: polled.answers("second", 1, 1.0), "the new model is served")
    record = polled.admin.audit("second")[0]
    assert (record.action, record.actor, record.outcome) == ("load", "poll", "done")


def test_other_settings_and_other_bytes_of_a_version_are_taken_up(polled: Served) -> None:
    write_version(polled.models, "changing", 1, versioned(1.0))
    until(lambda: polled.answers("changing", 1, 1.0), "it is served")
    (polled.models / "changing" / "model.yaml").write_text("batching: {max_batch_size: 5}\n")
    until(lambda: _max_rows(polled, "changing") == 5, "its settings are taken up")
    write_version(polled.models, "changing", 1, versioned(2.0))
    until(lambda: polled.answers("changing", 1, 2.0), "its new bytes are served")


def _max_rows(served: Served, model: str) -> int:
    return served.admin.model(model).versions[-1].max_batch_size


def test_a_bad_version_that_appears_is_tried_once_and_changes_nothing(polled: Served) -> None:
    write_version(polled.models, "steady", 1, versioned(1.0))
    until(lambda: polled.answers("steady", 1, 1.0), "it is served")
    write_bad(polled.models, "unknown_operator", 2, model="steady")
    write_version(polled.models, "marker", 1, versioned(3.0))
    until(lambda: polled.answers("marker", 1, 3.0), "a later look at the repository has been made")
    write_version(polled.models, "marker", 2, versioned(4.0))
    until(lambda: polled.answers("marker", 2, 4.0), "and another")
    assert polled.client.predict("steady") == (1, 1.0)
    assert [record.outcome for record in polled.admin.audit("steady")] == ["failed", "done"]
    (bad,) = (version for version in polled.admin.model("steady").versions if version.version == 2)
    assert bad.state == pb.VERSION_STATE_FAILED
    assert "No Op registered for Frob" in bad.reason


def test_what_an_operator_unloaded_or_chose_is_left_alone(polled: Served) -> None:
    for name in ("unloaded", "chosen"):
        write_version(polled.models, name, 1, versioned(1.0))
    until(lambda: polled.answers("unloaded", 1, 1.0) and polled.answers("chosen", 1, 1.0), "both are served")
    polled.admin.unload("unloaded")
    polled.admin.load("chosen", 1)
    for name in ("unloaded", "chosen", "witness"):
        write_version(polled.models, name, 2, versioned(2.0))
    until(lambda: polled.answers("witness", 2, 2.0), "a later look at the repository has been made")
    with pytest.raises(Refused, match="unload"):
        polled.client.predict("unloaded")
    assert polled.client.predict("chosen") == (1, 1.0)


def test_a_label_pins_its_version_against_newer_ones_and_against_its_removal(polled: Served) -> None:
    write_version(polled.models, "labelled", 1, versioned(1.0))
    until(lambda: polled.answers("labelled", 1, 1.0), "it is served")
    polled.admin.label("labelled", "stable", 1)
    write_version(polled.models, "labelled", 2, versioned(2.0))
    until(lambda: polled.answers("labelled", 2, 2.0), "the newer version is served")
    assert polled.client.predict("labelled", "stable") == (1, 1.0)
    shutil.rmtree(polled.models / "labelled" / "1")
    write_version(polled.models, "labelled", 3, versioned(3.0))
    until(lambda: polled.answers("labelled", 3, 3.0), "a still newer one is served")
    assert polled.client.predict("labelled", "stable") == (1, 1.0)
    assert polled.admin.available("labelled") == {1, 3}


def test_a_repository_that_vanishes_is_served_on_and_named(polled: Served) -> None:
    hidden = polled.models.with_name("hidden")
    served = {name: polled.client.predict(name) for name, model in polled.admin.models().items() if model.served}
    assert len(served) > 3
    polled.models.rename(hidden)
    try:
        until(
            lambda: "cannot be read" in polled.gateway.log or "does not exist" in polled.gateway.log, "the log says so"
        )
        assert "what is loaded is served on" in polled.gateway.log
        assert polled.admin.status().ready
        assert polled.admin.status().repository_problem != ""
        assert {name: polled.client.predict(name) for name in served} == served
        with pytest.raises(Refused, match=r"cannot be looked up|does not exist") as refusal:
            polled.admin.load("first")
        assert refusal.value.code is grpc.StatusCode.UNAVAILABLE
        polled.admin.label("first", "still", served["first"][0])  # what needs no files goes on
        assert polled.client.predict("first", "still") == served["first"]
    finally:
        hidden.rename(polled.models)
    until(lambda: "no longer so" in polled.gateway.log, "the log says that it is back")
    assert polled.admin.status().repository_problem == ""
    assert {name: polled.client.predict(name) for name in served} == served
