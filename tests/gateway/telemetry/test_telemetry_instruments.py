"""metrics.yaml: what it declares is whole and consistent, and a fault in it is named."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
from opentelemetry.semconv._incubating.metrics import otel_metrics, process_metrics, rpc_metrics

from gateway.telemetry import instruments as module
from gateway.telemetry.instruments import FILE, Kind, MetricsInvalid, instruments, parse

TEXT = (resources.files("gateway.telemetry") / FILE).read_text()

METRIC = """
attributes: [{key: driftgate.own, kind: string, text: Own.}]
metrics:
  - name: driftgate.requests
    instrument: counter
    unit: "{request}"
    description: Requests.
    attributes: [driftgate.own, driftgate.model.name]
    source: series.requests
"""


def test_the_packaged_file_is_valid_and_its_names_are_unique() -> None:
    names = [instrument.name for instrument in instruments()]
    assert len(names) == len(set(names)) > 30
    assert instruments() is instruments()


def test_names_and_units_of_opentelemetrys_metrics_are_its_conventions() -> None:
    conventions = {}
    for source in (otel_metrics, process_metrics, rpc_metrics):
        for part in Path(source.__file__ or "").read_text().split("Final = ")[1:]:
            unit = re.search(r"^Unit: (\S+)$", part, re.MULTILINE)
            conventions[part.split('"')[1]] = unit and unit.group(1)
    ours = {each.name: each.unit for each in instruments() if not each.name.startswith("driftgate.")}
    assert ours
    assert ours == {name: conventions[name] for name in ours}


def test_a_metric_may_carry_shared_and_own_attributes() -> None:
    (metric,), (own,) = parse(METRIC)
    assert metric.kind is Kind.COUNTER
    assert metric.attributes == ("driftgate.own", "driftgate.model.name")
    assert (own.key, own.on) == ("driftgate.own", ("metric",))
    assert metric.bounds == ()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("driftgate.requests", "Requests"), "metrics.0.name"),
        (("counter", "tachometer"), "metrics.0.instrument"),
        (('"{request}"', "ms"), "metrics.0.unit"),
        (("Requests.", "Requests"), "metrics.0.description"),
        (("source: series.requests", "sauce: series.requests"), "metrics.0.sauce"),
        (("driftgate.model.name", "driftgate.model.digest"), "no metric may carry an attribute driftgate.model.digest"),
        (("driftgate.model.name", "unheard.of"), "no metric may carry an attribute unheard.of"),
        (("key: driftgate.own", "key: error.type"), "attribute error.type is declared more than once"),
        (("counter", "exponential_histogram"), "prometheus_buckets belong"),
        (("source:", "prometheus_buckets: counted\n    source:"), "prometheus_buckets belong"),
        (
            ("counter", "exponential_histogram\n    prometheus_buckets: [3, -3]"),
            "expected prometheus_buckets [low, high]",
        ),
        (("metrics:", "metrics: ["), "metrics.yaml"),
    ],
)
def test_a_fault_is_named(change: tuple[str, str], named: str) -> None:
    with pytest.raises(MetricsInvalid, match=re.escape(named)):
        parse(METRIC.replace(*change))


def test_a_name_is_declared_once_and_is_no_namespace() -> None:
    _, _, again = METRIC.partition("metrics:\n")
    with pytest.raises(MetricsInvalid, match=r"driftgate\.requests is declared more than once"):
        parse(METRIC + again)
    with pytest.raises(MetricsInvalid, match=r"driftgate\.requests is a metric and a namespace of others"):
        parse(METRIC + again.replace("driftgate.requests", "driftgate.requests.lost"))


def test_what_is_counted_as_it_happens_is_told_from_what_is_looked_at() -> None:
    observed = {instrument.source for instrument in instruments() if not instrument.is_observed}
    assert observed
    assert all(source.startswith(module.SYNCHRONOUS) for source in observed)
    assert "durations.load" in observed
    assert "restarts" not in observed


def test_buckets_of_powers_of_two_are_bounds_of_the_exponential_histogram() -> None:
    by_name = {instrument.name: instrument for instrument in instruments()}
    assert by_name["driftgate.batch.rows"].bounds == tuple(float(2**n) for n in range(13))
    assert by_name["rpc.server.call.duration"].bounds[0] == 0.0001
