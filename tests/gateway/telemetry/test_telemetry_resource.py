"""The resource: who the gateway says it is, by OpenTelemetry's own detection."""

from __future__ import annotations

import os

import pytest

from gateway.telemetry.resource import Attributes, detect

ATTRIBUTES, NAME, DETECTORS = "OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME", "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what `detect` sets for the SDK is taken back."""
    for name in (ATTRIBUTES, NAME, DETECTORS):
        monkeypatch.setenv(name, "")


def found(**settings: str) -> Attributes:
    return detect("start-7", settings)


def test_the_instance_is_that_of_the_gateways_start_not_of_the_process_that_asks() -> None:
    assert found()["service.instance.id"] == found()["service.instance.id"] == "start-7"


def test_an_instance_that_the_operator_names_goes_first() -> None:
    assert found(**{ATTRIBUTES: "service.instance.id=mine"})["service.instance.id"] == "mine"
    assert found(**{ATTRIBUTES: "service.instance.id="})["service.instance.id"] == "start-7"


def test_a_detectors_instance_does_not() -> None:
    """It may be another one in each process."""
    assert found(**{DETECTORS: "service_instance,process"})["service.instance.id"] == "start-7"


def test_other_attributes_may_be_named_and_are_there_in_any_case() -> None:
    assert found()["service.name"] == "driftgate"
    assert found()["host.name"] == os.uname().nodename
    named = found(**{ATTRIBUTES: "service.name=a,host.name=b,tier=gold", NAME: "c"})
    assert (named["service.name"], named["host.name"], named["tier"]) == ("c", "b", "gold")
