"""Real backends show the gateway's spans, metrics and log events as the client saw what they tell of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from receivers_backends import BACKENDS, GRPC, HTTP
from receivers_checks import agree, children_of_the_client, joined_by_runs, requests_of
from receivers_client import Asked, TracedClient
from receivers_seen import events_of, points_of, whole
from receivers_tools import COLLECTOR, JAEGER, MLFLOW, MOCK_OTLP, needs
from support.admin import admin_of, until
from support.gateway import Gateway
from zoo import versioned, write_version

pytestmark = [pytest.mark.process, pytest.mark.receivers]

ONE_BY_ONE = 6
AT_ONCE = 128
BOUNDS = 1e-9  # a sum of doubles


def through(backend: str, protocol: str, tool: Path, arguments: str = "") -> Any:
    return pytest.param((backend, protocol), id=f"{backend}-{protocol.partition('/')[0]}", marks=needs(tool, arguments))


THREE_SIGNALS = [
    through(backend, protocol, tool)
    for backend, tool in (("mockotlpserver", MOCK_OTLP), ("collector", COLLECTOR))
    for protocol in (GRPC, HTTP)
]
ALL = [
    *THREE_SIGNALS,
    through("jaeger", GRPC, JAEGER, "jaeger"),
    through("mlflow", HTTP, MLFLOW),
]


@dataclass
class Told:
    """What the client asked, and the backend that was told of it."""

    asked: list[Asked]
    backend: Any


@pytest.fixture(scope="module")
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """A gateway's whole life: requests of every kind, version 2 loaded, requests again, and its end."""
    name, protocol = request.param
    folder = tmp_path_factory.mktemp(name)
    write_version(folder / "models", "m", 1, versioned(1.0))
    (folder / "backend").mkdir()
    with BACKENDS[name](folder / "backend") as backend:
        settings = {"environment": backend.settings(protocol), "workers": 2}
        with (
            Gateway(folder / "models", folder / "state", **settings) as gateway,
            TracedClient(gateway.grpc, f"http://{backend.http}/v1/traces", backend.headers) as client,
        ):
            asked = [client.ask("m", f"one-{number}", rows=1 + number) for number in range(ONE_BY_ONE)]
            asked += [client.ask("m", "unseen", sampled=False), client.ask("nobody", "refused")]
            asked += client.ask_at_once("m", AT_ONCE)
            write_version(folder / "models", "m", 2, versioned(2.0))
            with admin_of(gateway.admin) as admin:
                admin.load("m", 2)
            asked.append(client.ask("m", "second"))
        sampled = sum(one.sampled for one in asked)
        until(lambda: len(requests_of(backend.spans())) >= sampled, f"{name} to show {sampled} requests")
        yield Told(asked, backend)


@pytest.mark.parametrize("told", ALL, indirect=True)
def test_each_sampled_request_is_one_span_that_says_what_its_client_saw(told: Told) -> None:
    assert [one.sampled for one in told.asked].count(False) == 1
    assert {one.version for one in told.asked} == {0, 1, 2}
    agree(told.asked, told.backend.spans())


@pytest.mark.parametrize("told", ALL, indirect=True)
def test_the_gateways_span_is_the_child_of_the_clients(told: Told) -> None:
    children_of_the_client(told.asked, told.backend.spans())


@pytest.mark.parametrize("told", ALL, indirect=True)
def test_each_answered_request_is_joined_to_the_span_of_its_run(told: Told) -> None:
    sizes = joined_by_runs(told.backend.spans())
    assert max(sizes) > 1, "requests that are ready together share a run"


@pytest.mark.parametrize("told", THREE_SIGNALS, indirect=True)
def test_the_exponential_histogram_holds_every_request_sampled_or_not(told: Told) -> None:
    def points() -> list[dict[str, Any]]:
        return points_of(told.backend.documents(), "rpc.server.call.duration")

    until(lambda: sum(whole(point["count"]) for point in points()) >= len(told.asked), "the last metrics")
    counts = {}
    for point in points():
        positive = sum(whole(count) for count in point["positive"]["bucketCounts"])
        assert positive + whole(point.get("zeroCount", 0)) == whole(point["count"])
        assert whole(point["count"]) * point["min"] <= point["sum"] + BOUNDS
        assert point["sum"] <= whole(point["count"]) * point["max"] + BOUNDS
        said = point["attributes"]
        counts[said["rpc.response.status_code"], said.get("driftgate.model.version", 0)] = whole(point["count"])
    assert counts == {
        ("OK", 1): sum(one.version == 1 for one in told.asked),
        ("OK", 2): 1,
        ("NOT_FOUND", 0): 1,
    }


@pytest.mark.parametrize("told", THREE_SIGNALS, indirect=True)
def test_a_load_is_told_as_events_with_who_and_what(told: Told) -> None:
    names = {"driftgate.version.swapped"} if told.backend.keeps_event_names else {""}

    def swaps() -> list[dict[str, Any]]:
        events = events_of(told.backend.documents())
        return [event for event in events if event["name"] in names and " is served by " in event["text"]]

    until(lambda: len(swaps()) >= 2, "both swaps")
    first, second = swaps()
    assert (first["severity"], second["severity"]) == (9, 9)
    assert first["text"] == "'m' is served by 1 (before: none), by default 1 (before: none)"
    assert "driftgate.route.previous.versions" not in first["attributes"]
    said = second["attributes"]
    assert [whole(version) for version in said["driftgate.route.previous.versions"]] == [1]
    assert [whole(version) for version in said["driftgate.route.versions"]] == [2]
    assert (whole(said["driftgate.route.previous.default"]), whole(said["driftgate.route.default"])) == (1, 2)
    assert (said["driftgate.change.action"], said["driftgate.change.actor"]) == ("load", "loopback:tester")


@pytest.mark.parametrize("told", THREE_SIGNALS, indirect=True)
def test_refusals_are_told_as_one_event(told: Told) -> None:
    def refusals() -> list[dict[str, Any]]:
        return [event for event in events_of(told.backend.documents()) if event["text"].startswith("1 requests to ")]

    until(lambda: len(refusals()) >= 1, "the refusal")
    (event,) = refusals()
    assert event["severity"] == 13
    assert event["attributes"]["rpc.response.status_code"] == "NOT_FOUND"
    assert whole(event["attributes"]["driftgate.event.count"]) == 1
