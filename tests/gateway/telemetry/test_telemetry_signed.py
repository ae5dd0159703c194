"""Values of features as exponential histograms: what a receiver decodes is the sketch, bucket for bucket."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measured_desk import DRIFT, VALUES, MeasuredDesk, measured_desk
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    AGGREGATION_TEMPORALITY_DELTA,
    ExponentialHistogramDataPoint,
    Metric,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

from gateway.telemetry.otlp_metrics import MetricsEncoder
from gateway.telemetry.signed import Side, SignedDistribution
from runtime.sketch.exponential import ExponentialHistogram
from runtime.sketch.layout import BUCKETS

NAME = "driftgate.feature.value"


def metric_of(encoder: MetricsEncoder, at: MeasuredDesk) -> Metric | None:
    for payload in encoder.encode(at.measures().snapshot()):
        for metric in ExportMetricsServiceRequest.FromString(payload.data).resource_metrics[0].scope_metrics[0].metrics:
            if metric.name == NAME:
                return metric
    return None


def point_of(metric: Metric | None) -> ExponentialHistogramDataPoint:
    assert metric is not None
    (point,) = metric.exponential_histogram.data_points
    return point


def measured(at: MeasuredDesk, values: SignedDistribution, since_ns: int = 0) -> None:
    from dataclasses import replace

    drift = replace(DRIFT, values={"petal length": (since_ns, values)})
    at.figures = replace(at.figures, drift=lambda: [drift])


def test_a_receiver_decodes_the_sketch_itself() -> None:
    values = np.concatenate([np.random.default_rng(1).normal(0, 3, 5000), np.zeros(17), [np.nan, np.inf, -np.inf]])
    sketch = ExponentialHistogram.of(values)
    with measured_desk() as at:
        measured(at, SignedDistribution.of(sketch))
        point = point_of(metric_of(MetricsEncoder(Resource()), at))
    assert (point.scale, point.zero_count, point.zero_threshold) == (sketch.scale, 17, 0.0)
    for sign, buckets in enumerate((point.positive, point.negative)):
        offset, counts = sketch.run(sign)
        assert (buckets.offset, list(buckets.bucket_counts)) == (offset, counts.tolist())
    assert point.count == sketch.finite == 5017
    assert (point.min, point.max) == (sketch.minimum, sketch.maximum)
    assert not point.HasField("sum"), "a sum of negative values may fall"
    attributes = {each.key: each.value for each in point.attributes}
    assert attributes["driftgate.feature.name"].string_value == "petal length"


@given(st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=60))
def test_it_is_the_histogram_that_opentelemetrys_sdk_would_make(values: list[float]) -> None:
    aggregation = ExponentialBucketHistogramAggregation(max_size=512, max_scale=5)
    reader = InMemoryMetricReader()
    provider = MeterProvider(
        [reader], views=[View(instrument_name="d", aggregation=aggregation)], shutdown_on_exit=False
    )
    histogram = provider.get_meter("m").create_histogram("d")
    with np.errstate(all="ignore"):
        for value in np.abs(values):  # an SDK's histogram takes no negative values
            histogram.record(float(value))
    data = reader.get_metrics_data()
    assert data is not None
    theirs = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points[0]
    provider.shutdown()
    ours = SignedDistribution.of(ExponentialHistogram.of(np.abs(np.array(values))))
    assert (ours.count, ours.zero) == (theirs.count, theirs.zero_count)
    coarsening = ours.scale - theirs.scale
    if coarsening >= 0 and ours.positive.counts.size:
        side = ours.positive.at(coarsening)
        assert side.offset == theirs.positive.offset
        counts = list(theirs.positive.bucket_counts)
        assert side.counts.tolist() == counts[: side.counts.size]
        assert not any(counts[side.counts.size :])


SAMPLES = st.lists(st.floats(-1e300, 1e300, allow_nan=False, allow_subnormal=False), max_size=30)


@given(SAMPLES, SAMPLES)
def test_panes_add_up_to_the_sketch_of_all(left: list[float], right: list[float]) -> None:
    sketches = [ExponentialHistogram.of(np.array(values, float)) for values in (left, right, left + right)]
    one, other, both = (SignedDistribution.of(sketch) for sketch in sketches)
    total = one.plus(other)
    assert (total.count, total.zero) == (both.count, both.zero)
    assert (total.minimum, total.maximum) == (both.minimum, both.maximum)
    assert max(total.positive.counts.size, total.negative.counts.size) <= BUCKETS
    scale = min(total.scale, both.scale)
    for ours, theirs in ((total.positive, both.positive), (total.negative, both.negative)):
        a, b = ours.at(total.scale - scale), theirs.at(both.scale - scale)
        assert a.counts.tolist() == b.counts.tolist()
        assert a.offset == b.offset or not a.counts.size
    left_over = total.since(one)
    assert left_over.count == other.count


def test_a_delta_is_what_came_since_the_export_before() -> None:
    first, more = np.array([1.0, 2.0, -5.0]), np.array([1e9, 0.0])  # so wide that the scale falls in between
    one = SignedDistribution.of(ExponentialHistogram.of(first))
    both = one.plus(SignedDistribution.of(ExponentialHistogram.of(more)))
    assert both.scale < one.scale
    with measured_desk() as at:
        encoder = MetricsEncoder(Resource(), "delta")
        measured(at, one)
        metric = metric_of(encoder, at)
        assert metric is not None
        assert metric.exponential_histogram.aggregation_temporality == AGGREGATION_TEMPORALITY_DELTA
        assert point_of(metric).count == 3
        measured(at, both)
        point = point_of(metric_of(encoder, at))
        assert (point.count, point.zero_count, sum(point.negative.bucket_counts)) == (2, 1, 0)
        assert metric_of(encoder, at) is None, "nothing came"
        measured(at, one)
        assert point_of(metric_of(encoder, at)).count == 3, "it has begun anew"


def test_a_feature_whose_export_began_later_counts_from_then() -> None:
    later = 4_000_000_000 * 10**9
    with measured_desk() as at:
        measured(at, VALUES, later)
        encoder = MetricsEncoder(Resource())
        metric = metric_of(encoder, at)
        assert metric is not None
        assert metric.exponential_histogram.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
        assert point_of(metric).start_time_unix_nano == later


def test_the_sum_of_values_that_are_never_negative_is_told() -> None:
    values = np.array([0.0, 1.0, 2.5])
    assert SignedDistribution.of(ExponentialHistogram.of(values), float(values.mean())).total == pytest.approx(3.5)
    assert SignedDistribution.of(ExponentialHistogram.of(-values), float(-values.mean())).total is None
    assert SignedDistribution.of(ExponentialHistogram.of(values)).total is None


def test_counts_beyond_a_sketchs_buckets_add_up() -> None:
    full = SignedDistribution(5, 0, Side(0, np.array([2**32 - 1])), Side(0, np.zeros(0, np.int64)))
    assert full.plus(full).count == 2**33 - 2
