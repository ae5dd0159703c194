"""OTLP metrics: what a receiver decodes is what was measured, once, whatever the temporality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measured_desk import ANSWERED, PINNED, STARTED_AT_SECONDS, MeasuredDesk, measured_desk
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    AGGREGATION_TEMPORALITY_DELTA,
    Metric,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

from gateway.telemetry.conventions import SCHEMA_URL
from gateway.telemetry.instruments import instruments
from gateway.telemetry.otlp_metrics import MAX_PAYLOAD_BYTES, MetricsEncoder
from gateway.telemetry.periodic_export import Payload
from gateway.telemetry.settings import Temporality
from gateway.telemetry.snapshot import Snapshot
from gateway.version import VERSION
from runtime.shm.series import SeriesKey
from runtime.shm.series_layout import SCALE

RESOURCE = Resource(attributes=[KeyValue(key="service.name", value=AnyValue(string_value="driftgate"))])
START_UNIX_NS = int(STARTED_AT_SECONDS * 1e9)
DURATION = "rpc.server.call.duration"


def decoded(payloads: Sequence[Payload]) -> dict[str, Metric]:
    """Metrics by name, those that go on in another payload put together."""
    metrics: dict[str, Metric] = {}
    for payload in payloads:
        request = ExportMetricsServiceRequest.FromString(payload.data)
        (resource,) = request.resource_metrics
        (scope,) = resource.scope_metrics
        assert resource.resource == RESOURCE
        assert (scope.scope.name, scope.scope.version) == ("driftgate", VERSION)
        assert resource.schema_url == scope.schema_url == SCHEMA_URL
        assert payload.items == sum(len(points(metric)) for metric in scope.metrics)
        for metric in scope.metrics:
            assert len(points(metric))
            if metric.name in metrics:
                points(metrics[metric.name]).extend(points(metric))
            else:
                metrics[metric.name] = metric
    return metrics


def points(metric: Metric) -> Any:
    return getattr(metric, str(metric.WhichOneof("data"))).data_points


def attributes(point: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in point.attributes}


def encoded(at: MeasuredDesk, encoder: MetricsEncoder | None = None) -> tuple[Snapshot, dict[str, Metric]]:
    snapshot = at.measures().snapshot()
    return snapshot, decoded((encoder or MetricsEncoder(RESOURCE)).encode(snapshot))


def busy(at: MeasuredDesk) -> None:
    at.with_exporters()
    at.answer([0.001, 0.002, 0.004])
    at.answer([0.003], PINNED)
    at.refuse([1.0])
    at.figures.loads.record(0.5, "iris")
    at.figures.swaps.record(0.6, "iris")


def test_every_metric_is_there_with_its_unit_its_kind_and_its_points() -> None:
    with measured_desk() as at:
        busy(at)
        snapshot, metrics = encoded(at)
        assert list(metrics) == [instrument.name for instrument in instruments()]
        kinds = {
            "counter": ("sum", True), "up_down_counter": ("sum", False), "exponential_histogram": (None, None),
            "gauge": ("gauge", None),
        }  # fmt: skip
        for instrument in instruments():
            metric = metrics[instrument.name]
            assert (metric.unit, metric.description) == (instrument.unit, instrument.description)
            kind, is_monotonic = kinds[instrument.kind]
            if kind is None:
                assert metric.WhichOneof("data") == "exponential_histogram"
                assert metric.exponential_histogram.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
            elif kind == "gauge":
                assert metric.WhichOneof("data") == "gauge"
            else:
                assert metric.sum.is_monotonic is is_monotonic
                assert metric.sum.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
            ours = snapshot[instrument.name]
            assert [attributes(point) for point in points(metric)] == [dict(each.attributes) for each in ours.points]
            for point in points(metric):
                assert (point.start_time_unix_nano, point.time_unix_nano) == (ours.start_unix_ns, snapshot.unix_ns)


@given(st.lists(st.floats(1e-6, 100), min_size=1, max_size=50))
def test_a_histogram_is_the_one_that_opentelemetrys_sdk_would_make(latencies: list[float]) -> None:
    latencies = [round(seconds * 1e9) / 1e9 for seconds in latencies]
    aggregation = ExponentialBucketHistogramAggregation(max_size=1000, max_scale=SCALE)
    reader = InMemoryMetricReader()
    provider = MeterProvider(
        [reader], views=[View(instrument_name="d", aggregation=aggregation)], shutdown_on_exit=False
    )
    histogram = provider.get_meter("m").create_histogram("d", "s")
    for seconds in latencies:
        histogram.record(seconds)
    data = reader.get_metrics_data()
    assert data is not None
    theirs: Any = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points[0]
    provider.shutdown()
    with measured_desk() as at:
        at.answer(latencies)
        (ours,) = points(encoded(at)[1][DURATION])
    assert (ours.scale, ours.count, ours.zero_count) == (theirs.scale, theirs.count, theirs.zero_count)
    assert (ours.sum, ours.min, ours.max) == pytest.approx((theirs.sum, theirs.min, theirs.max))
    (first, *_), (start, *_) = np.nonzero(theirs.positive.bucket_counts)[0], np.nonzero(ours.positive.bucket_counts)[0]
    trimmed = np.trim_zeros(np.array(theirs.positive.bucket_counts))
    assert (ours.positive.offset, list(ours.positive.bucket_counts)) == (
        theirs.positive.offset + int(first), trimmed.tolist(),
    )  # fmt: skip
    assert start == 0
    assert ours.count == ours.zero_count + sum(ours.positive.bucket_counts)
    assert ours.zero_threshold == 2.0**-20


def test_exemplars_lead_to_their_span() -> None:
    with measured_desk() as at:
        at.answer([0.003])
        at.answer([0.003], PINNED, sampled=False)
        by_variant = {attributes(p)["driftgate.route.variant"]: p for p in points(encoded(at)[1][DURATION])}
        (exemplar,) = by_variant["default"].exemplars
        assert (exemplar.trace_id, exemplar.span_id) == (bytes(15) + b"\1", bytes(7) + b"\1")
        assert exemplar.as_double == pytest.approx(0.003)
        assert not by_variant["pinned"].exemplars


def counted(metric: Metric | None, **wanted: str) -> int:
    if metric is None:
        return 0
    chosen = [p for p in points(metric) if wanted.items() <= attributes(p).items()]
    return sum(p.count if hasattr(p, "count") else p.as_int for p in chosen)


def test_deltas_count_from_the_export_before_and_add_up_to_the_total() -> None:
    encoder = MetricsEncoder(RESOURCE, "delta")
    with measured_desk() as at:
        at.answer([0.001, 0.002])
        before, first = encoded(at, encoder)
        assert counted(first["driftgate.requests"]) == counted(first[DURATION]) == 2
        assert points(first[DURATION])[0].start_time_unix_nano == START_UNIX_NS

        at.answer([0.001])
        at.answer([0.5], PINNED)
        after, second = encoded(at, encoder)
        assert counted(second["driftgate.requests"]) == counted(second[DURATION]) == 2
        assert second[DURATION].exponential_histogram.aggregation_temporality == AGGREGATION_TEMPORALITY_DELTA
        assert second["driftgate.requests"].sum.aggregation_temporality == AGGREGATION_TEMPORALITY_DELTA
        for point in (*points(second[DURATION]), *points(second["driftgate.requests"])):
            assert (point.start_time_unix_nano, point.time_unix_nano) == (before.unix_ns, after.unix_ns)
        pinned = next(p for p in points(second[DURATION]) if attributes(p)["driftgate.route.variant"] == "pinned")
        assert (pinned.count, pinned.sum) == (1, pytest.approx(0.5))
        default = next(p for p in points(second[DURATION]) if attributes(p)["driftgate.route.variant"] == "default")
        assert (default.HasField("min"), default.HasField("max"), default.sum) == (False, False, pytest.approx(0.001))

        third = encoded(at, encoder)[1]
        assert DURATION not in third
        assert "driftgate.requests" not in third


def test_what_goes_up_and_down_is_cumulative_whatever_the_preference() -> None:
    for temporality in ("delta", "lowmemory"):
        with measured_desk() as at:
            encoder = MetricsEncoder(RESOURCE, temporality)
            at.in_flight.set_in_flight(3)
            for _ in range(2):
                metric = encoded(at, encoder)[1]["driftgate.request.in_flight"]
                assert metric.sum.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
                assert points(metric)[0].as_int == 3


def test_low_memory_is_delta_for_what_is_counted_as_it_happens_only() -> None:
    with measured_desk() as at:
        busy(at)
        metrics = encoded(at, MetricsEncoder(RESOURCE, "lowmemory"))[1]
        of = {"driftgate.requests": "sum", DURATION: "exponential_histogram", "driftgate.process.restarts": "sum"}
        found = {name: getattr(metrics[name], kind).aggregation_temporality for name, kind in of.items()}
        assert found == {
            "driftgate.requests": AGGREGATION_TEMPORALITY_DELTA,
            DURATION: AGGREGATION_TEMPORALITY_DELTA,
            "driftgate.process.restarts": AGGREGATION_TEMPORALITY_CUMULATIVE,
        }


def test_a_series_that_vanishes_and_returns_begins_anew() -> None:
    encoder = MetricsEncoder(RESOURCE, "delta")
    with measured_desk() as at, measured_desk() as emptied:
        at.answer([0.001, 0.002])
        assert counted(encoded(at, encoder)[1].get("driftgate.requests")) == 2
        assert counted(encoded(emptied, encoder)[1].get("driftgate.requests")) == 0
        emptied.answer([0.001])
        assert counted(encoded(emptied, encoder)[1].get("driftgate.requests")) == 1


def test_totals_that_fall_have_begun_anew() -> None:
    encoder = MetricsEncoder(RESOURCE, "delta")
    with measured_desk() as at, measured_desk() as anew:
        at.answer([0.001] * 5)
        encoded(at, encoder)
        anew.answer([0.001] * 2)
        metrics = encoded(anew, encoder)[1]
        assert (counted(metrics["driftgate.requests"]), counted(metrics[DURATION])) == (2, 2)


def test_deltas_can_start_from_what_another_exporter_may_have_sent() -> None:
    encoder = MetricsEncoder(RESOURCE, "delta")
    with measured_desk() as at:
        at.answer([0.001] * 5)
        before = at.measures().snapshot()
        encoder.start_from(before)
        at.answer([0.001])
        (point,) = points(encoded(at, encoder)[1][DURATION])
        assert (point.count, point.start_time_unix_nano) == (1, before.unix_ns)


def test_what_was_counted_while_no_exporter_was_there_is_a_gap_in_the_times_of_deltas() -> None:
    """It is in no point, so a receiver can tell that it lacks something."""
    with measured_desk() as at:
        at.answer([0.001] * 2)
        (last,) = points(encoded(at, MetricsEncoder(RESOURCE, "delta"))[1][DURATION])
        at.answer([0.001] * 3)
        follower = MetricsEncoder(RESOURCE, "delta")
        follower.start_from(at.measures().snapshot())
        at.answer([0.001] * 4)
        (first,) = points(encoded(at, follower)[1][DURATION])
        assert (last.count, first.count) == (2, 4)
        assert last.time_unix_nano < first.start_time_unix_nano < first.time_unix_nano


@given(
    st.sampled_from(["cumulative", "delta", "lowmemory"]),
    st.lists(st.lists(st.sampled_from([ANSWERED, PINNED]), max_size=4), max_size=6),
)
def test_a_receiver_that_adds_up_has_the_exact_totals(temporality: Temporality, steps: list[list[SeriesKey]]) -> None:
    encoder = MetricsEncoder(RESOURCE, temporality)
    received: dict[str, int] = {}
    with measured_desk() as at:
        for step in steps:
            for key in step:
                at.answer([0.001], key)
            metric = encoded(at, encoder)[1].get(DURATION)
            for variant in ("default", "pinned"):
                count = counted(metric, **{"driftgate.route.variant": variant})
                received[variant] = count + (received.get(variant, 0) if temporality != "cumulative" else 0)
        for key in (ANSWERED, PINNED):
            assert received.get(key.variant, 0) == sum(step.count(key) for step in steps)


def test_a_large_snapshot_is_split_below_the_limit_and_loses_nothing() -> None:
    with measured_desk() as at:
        for version in range(1, 60):
            at.answer([0.0001 * version, 0.1], SeriesKey("iris", version, "default", 0, ""))
        snapshot = at.measures().snapshot()
        whole = MetricsEncoder(RESOURCE).encode(snapshot)
        assert len(whole) == 1
        limit = 8_000
        parts = MetricsEncoder(RESOURCE, max_payload_bytes=limit).encode(snapshot)
        assert max(len(part.data) for part in parts) <= limit
        assert len(parts) >= len(whole[0].data) // limit
        assert sum(part.items for part in parts) == whole[0].items
        assert decoded(parts) == decoded(whole)
        assert MAX_PAYLOAD_BYTES < 3.5 * 2**20


def test_a_point_larger_than_the_limit_goes_alone() -> None:
    with measured_desk() as at:
        at.answer([0.001])
        parts = MetricsEncoder(RESOURCE, max_payload_bytes=1).encode(at.measures().snapshot())
        assert {part.items for part in parts} == {1}


def test_a_snapshot_without_changes_is_no_request() -> None:
    with measured_desk() as at:
        empty = Snapshot(1, [])
        assert MetricsEncoder(RESOURCE).encode(empty) == []
        at.answer([0.001])
        encoder = MetricsEncoder(RESOURCE, "delta")
        encoder.encode(at.measures().snapshot())
        again = decoded(encoder.encode(at.measures().snapshot()))
        assert not any(metric.sum.is_monotonic for metric in again.values())
