"""promtool has nothing to say of /metrics; Prometheus shows what clients and spans tell of the same requests."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import pytest
from receivers_prometheus import Labels, Prometheus, checked
from receivers_tools import PROMETHEUS, PROMTOOL, needs
from support.admin import admin_of, until
from support.calls import Caller, Told
from support.gateway import Gateway
from support.receiver import OtlpReceiver
from support.spans import Span, requests_and_runs
from support.traffic import LABELS, VERSIONS, mixed, set_labels, write_models

from gateway.telemetry.quantiles import quantile, relative_error
from runtime.shm.series_layout import CLASSIC_SECONDS

pytestmark = [pytest.mark.process, pytest.mark.receivers]

REQUESTS = 3000
MODEL = "a"  # of which every request is sampled
MODEL_KEY, MODEL_LABEL = "driftgate.model.name", "driftgate_model_name"
CODE_LABEL = "rpc_response_status_code"
DURATION = "rpc.server.call.duration"
BUCKETS = "rpc_server_call_duration_seconds_bucket"
QUANTILES = (0.5, 0.9, 0.99)
STATED_ERROR = 0.0217
FROM_PROMETHEUS = {"__name__", "instance", "job"}


@dataclass
class Counted:
    """What clients were told, what the gateway exported of it, and /metrics after the last of them."""

    told: list[Told]
    receiver: OtlpReceiver
    gateway: Gateway

    @property
    def spans(self) -> list[Span]:
        return requests_and_runs(self.receiver.spans)[0]

    def seconds(self, labels: Labels) -> list[float]:
        """Durations, in ascending order, of the spans that have these attributes."""
        return sorted(
            (span.end_ns - span.start_ns) / 1e9
            for span in self.spans
            if all(str(span.attributes.get(key)) == value for key, value in labels.items())
        )


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    """Requests answered and refused, of several models, versions and labels, streams among them."""
    folder = tmp_path_factory.mktemp("prometheus")
    models = write_models(folder / "models")
    with OtlpReceiver() as receiver:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.grpc}",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }
        with Gateway(models, folder / "state", workers=2, environment=environment) as gateway:
            with admin_of(gateway.admin) as admin:
                set_labels(admin)
            with Caller(gateway.grpc, mixed(REQUESTS)) as caller:
                told = caller.finish()
            found = Counted(told, receiver, gateway)
            sampled = sum(not one.ask.refuses_sampling for one in told)
            receiver.wait_for(lambda: len(found.spans) >= sampled)
            yield found


@pytest.fixture(scope="module")
def prometheus(counted: Counted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    target = str(counted.gateway.endpoints["http"])
    with Prometheus(tmp_path_factory.mktemp("server"), target) as server:
        until(
            lambda: sum(count for _, count in server.query("driftgate_requests_total")) >= REQUESTS, "the last scrape"
        )
        yield server


def labels_of(told: Told) -> Labels:
    """Of driftgate_requests_total, from what the client sent and was told."""
    code = {CODE_LABEL: code_of(told)}
    if not (version := version_of(told)):
        return code
    asked = told.ask.version
    variant = asked if asked in LABELS else "pinned" if asked else "default"
    model = {MODEL_LABEL: told.ask.model, "driftgate_model_version": str(version)}
    return code | model | {"driftgate_route_variant": variant}


def code_of(told: Told) -> str:
    """A message of a stream is told no code; of those here only the unknown model is refused."""
    return "NOT_FOUND" if told.code == "error" else told.code


def version_of(told: Told) -> int:
    """Which answered or refused; 0: it came to none."""
    if told.code == "OK":
        return told.version
    return {"wrong input": max(VERSIONS[MODEL]), "expired": 1, "slow": 1}.get(told.ask.kind, 0)


def test_the_traffic_is_of_every_kind(counted: Counted) -> None:
    assert {code_of(told) for told in counted.told} == {
        "OK", "NOT_FOUND", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED",
    }  # fmt: skip
    variants = {labels_of(told).get("driftgate_route_variant", "") for told in counted.told}
    assert variants == {"", "default", "pinned", *LABELS}
    assert any(told.streamed for told in counted.told)


@needs(PROMTOOL)
def test_promtool_finds_nothing_to_say(counted: Counted) -> None:
    """Of the text format: promtool does not read OpenMetrics, which the scrapes below are in."""
    assert checked(counted.gateway.get("/metrics")[1]) == (0, "")


@needs(PROMETHEUS)
def test_the_target_is_up_without_an_error(prometheus: Prometheus) -> None:
    (target,) = prometheus.targets()
    assert (target["health"], target["lastError"]) == ("up", "")


@needs(PROMETHEUS)
def test_the_requests_counted_are_those_that_clients_sent(counted: Counted, prometheus: Prometheus) -> None:
    sent = Counter(tuple(sorted(labels_of(told).items())) for told in counted.told)
    found = {
        tuple(sorted((key, value) for key, value in labels.items() if key not in FROM_PROMETHEUS)): count
        for labels, count in prometheus.query("driftgate_requests_total")
    }
    assert found == sent


@needs(PROMETHEUS)
def test_exemplars_are_of_requests_whose_traces_the_clients_were_told(counted: Counted, prometheus: Prometheus) -> None:
    told = {one.ask.parent[0] if one.streamed and one.ask.parent else one.trace_id for one in counted.told}
    spans = {span.span_id: span for span in counted.spans}
    exemplars = prometheus.exemplars(BUCKETS)
    for series, exemplar in exemplars:
        assert exemplar["labels"]["trace_id"] in told
        span = spans[exemplar["labels"]["span_id"]]
        assert (span.trace_id, span.code) == (exemplar["labels"]["trace_id"], series[CODE_LABEL])
        seconds = (span.end_ns - span.start_ns) / 1e9
        assert float(exemplar["value"]) == pytest.approx(seconds)
        assert bucket(seconds) == bucket(float(series["le"]))
    codes = {series[CODE_LABEL] for series, _ in exemplars}
    assert codes == {code_of(one) for one in counted.told}


@needs(PROMETHEUS)
def test_a_quantile_of_the_classic_buckets_lies_in_the_bucket_of_the_exact_one(
    counted: Counted, prometheus: Prometheus
) -> None:
    exact = counted.seconds({MODEL_KEY: MODEL, "rpc.response.status_code": "OK"})
    chosen = f'{BUCKETS}{{{MODEL_LABEL}="{MODEL}", {CODE_LABEL}="OK"}}'
    for q in QUANTILES:
        ((_, estimate),) = prometheus.query(f"histogram_quantile({q}, sum by (le) ({chosen}))")
        assert bucket(estimate) == bucket(exact[ceil(q * len(exact)) - 1])


def test_a_quantile_of_the_exponential_histogram_is_within_the_stated_error_of_the_exact_one(counted: Counted) -> None:
    """For each version and each way to it; the exact one is of the requests' spans."""

    def points() -> list[Any]:
        """Of the last export."""
        exports = [metric.exponential_histogram for metric in counted.receiver.metrics if metric.name == DURATION]
        found = exports[-1].data_points if exports else ()
        return [point for point in found if labels_at(point).get(MODEL_KEY) == MODEL]

    of_model = sum(told.ask.model == MODEL and MODEL_LABEL in labels_of(told) for told in counted.told)
    counted.receiver.wait_for(lambda: sum(point.count for point in points()) >= of_model)
    assert len(points()) >= len(LABELS) + 2
    for point in points():
        exact = counted.seconds(labels_at(point))
        assert len(exact) == point.count
        assert relative_error(point.scale) <= STATED_ERROR
        buckets = np.array(point.positive.bucket_counts, np.uint64)
        for q in QUANTILES:
            estimate = quantile(buckets, point.zero_count, point.scale, point.positive.offset, q)
            assert estimate == pytest.approx(exact[int(q * (len(exact) - 1))], rel=STATED_ERROR)


def bucket(seconds: float) -> int:
    """Which of the classic ones."""
    return bisect_left(CLASSIC_SECONDS, seconds)


def labels_at(point: Any) -> Labels:
    """Values as text: AnyValue has them by their types."""
    return {item.key: str(getattr(item.value, item.value.WhichOneof("value"))) for item in point.attributes}
