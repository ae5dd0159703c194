"""A snapshot as OTLP: ExportMetricsServiceRequest messages, each under the size that receivers accept.

Cumulative points count from the start of what counts them. Delta points count from the snapshot encoded before; the
first ones from the start. What was encoded counts as sent: when its export fails for good, the delta is lost (and the
exporter counts it), as OpenTelemetry's specification has it; sending it again would count twice what did arrive.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    AGGREGATION_TEMPORALITY_DELTA,
    Exemplar,
    ExponentialHistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from gateway.telemetry.conventions import SCHEMA_URL, SCOPE
from gateway.telemetry.instruments import Instrument, Kind
from gateway.telemetry.periodic_export import Payload
from gateway.telemetry.settings import Temporality
from gateway.telemetry.signed import Side, SignedDistribution
from gateway.telemetry.snapshot import Attributes, AttributeValue, Distribution, Point, Snapshot
from gateway.version import VERSION
from runtime.yielding import let_others_run

MAX_PAYLOAD_BYTES = 3_500 * 1024
"""Under 3.5 MiB: receivers accept 4 MiB as gRPC's default, and the frame around it is not ours."""

DataPoint = NumberDataPoint | ExponentialHistogramDataPoint
Value = int | float | Distribution | SignedDistribution


class MetricsEncoder:
    """Not thread-safe: one exporter owns it, and encodes each of its snapshots once."""

    def __init__(
        self,
        resource: Resource,
        temporality: Temporality = "cumulative",
        *,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
    ) -> None:
        self._resource = resource
        self._temporality = temporality
        self._max_payload_bytes = max_payload_bytes
        self._before: dict[tuple[str, Attributes], Value] = {}
        self._before_unix_ns = 0

    def start_from(self, snapshot: Snapshot) -> None:
        """Delta points count from `snapshot`, which is not sent. For an exporter that follows one which was killed.

        What that one has sent is not known. Losing what was counted since, until now, is better than counting twice
        what did arrive; the points' start times show the gap.
        """
        self._before = self._delta_values(snapshot)
        self._before_unix_ns = snapshot.unix_ns

    def encode(self, snapshot: Snapshot) -> list[Payload]:
        """Empty when there is nothing to send."""
        payloads = _Payloads(self._resource, self._max_payload_bytes)
        for measurement in snapshot.measurements:
            instrument = measurement.instrument
            changes = is_delta(self._temporality, instrument)
            before = self._before_unix_ns if changes else 0
            points = self._deltas(instrument, measurement.points) if changes else measurement.points
            encoded = (
                self._data_point(point, max(measurement.start_unix_ns, point.start_unix_ns, before), snapshot.unix_ns)
                for point in points
            )
            payloads.add(instrument, encoded, is_delta=changes)
        self.start_from(snapshot)
        return payloads.finished()

    def _delta_values(self, snapshot: Snapshot) -> dict[tuple[str, Attributes], Value]:
        """What has gone from the snapshot is forgotten: should it come back, it has begun anew."""
        return {
            (measurement.instrument.name, point.attributes): point.value
            for measurement in snapshot.measurements
            if is_delta(self._temporality, measurement.instrument)
            for point in measurement.points
        }

    def _deltas(self, instrument: Instrument, points: Iterable[Point]) -> Iterator[Point]:
        """Points in which something was counted."""
        for point in points:
            before = self._before.get((instrument.name, point.attributes))
            value = point.value
            if isinstance(value, Distribution):
                if isinstance(before, Distribution):
                    value = value.since(before, self._before_unix_ns)
                if value.count:
                    yield replace(point, value=value)
            elif isinstance(value, SignedDistribution):
                if isinstance(before, SignedDistribution):
                    value = value.since(before)
                if value.count:
                    yield replace(point, value=value)
            else:
                if isinstance(before, (int, float)) and before <= value:
                    value -= before
                if value:
                    yield replace(point, value=value)

    def _data_point(self, point: Point, start_unix_ns: int, unix_ns: int) -> DataPoint:
        attributes = [KeyValue(key=key, value=_any_value(value)) for key, value in point.attributes]
        value = point.value
        if isinstance(value, Distribution):
            return self._histogram(value, attributes, start_unix_ns, unix_ns)
        if isinstance(value, SignedDistribution):
            return _signed(value, attributes, start_unix_ns, unix_ns)
        number = NumberDataPoint(attributes=attributes, start_time_unix_nano=start_unix_ns, time_unix_nano=unix_ns)
        if isinstance(value, int):
            number.as_int = value
        else:
            number.as_double = value
        return number

    def _histogram(
        self, value: Distribution, attributes: Sequence[KeyValue], start_unix_ns: int, unix_ns: int
    ) -> ExponentialHistogramDataPoint:
        offset, counts = value.trimmed()
        return ExponentialHistogramDataPoint(
            attributes=attributes,
            start_time_unix_nano=start_unix_ns,
            time_unix_nano=unix_ns,
            count=value.count,
            sum=value.total,
            min=value.minimum,
            max=value.maximum,
            scale=value.scale,
            zero_count=value.zero,
            zero_threshold=value.zero_threshold,
            positive=ExponentialHistogramDataPoint.Buckets(offset=offset, bucket_counts=counts.tolist()),
            exemplars=[
                Exemplar(
                    time_unix_nano=exemplar.unix_ns,
                    as_double=exemplar.duration_seconds,
                    trace_id=exemplar.trace_id,
                    span_id=exemplar.span_id,
                )
                for exemplar in value.exemplars
            ],
        )


def _signed(
    value: SignedDistribution, attributes: Sequence[KeyValue], start_unix_ns: int, unix_ns: int
) -> ExponentialHistogramDataPoint:
    """A sum that may fall is left out, as OpenTelemetry's data model asks for."""
    return ExponentialHistogramDataPoint(
        attributes=attributes,
        start_time_unix_nano=start_unix_ns,
        time_unix_nano=unix_ns,
        count=value.count,
        sum=value.total,
        min=value.minimum,
        max=value.maximum,
        scale=value.scale,
        zero_count=value.zero,
        positive=_buckets(value.positive),
        negative=_buckets(value.negative),
    )


def _buckets(side: Side) -> ExponentialHistogramDataPoint.Buckets:
    return ExponentialHistogramDataPoint.Buckets(offset=side.offset, bucket_counts=side.counts.tolist())


def is_delta(temporality: Temporality, instrument: Instrument) -> bool:
    """`lowmemory`: delta for what is counted as it happens, cumulative for what is looked at."""
    if instrument.kind not in (Kind.COUNTER, Kind.EXPONENTIAL_HISTOGRAM):
        return False
    return temporality == "delta" or (temporality == "lowmemory" and not instrument.is_observed)


class _Payloads:
    """Fills requests with data points; a metric whose points do not fit goes on in the next."""

    def __init__(self, resource: Resource, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._empty = ExportMetricsServiceRequest(
            resource_metrics=[
                ResourceMetrics(
                    resource=resource,
                    scope_metrics=[
                        ScopeMetrics(scope=InstrumentationScope(name=SCOPE, version=VERSION), schema_url=SCHEMA_URL)
                    ],
                    schema_url=SCHEMA_URL,
                )
            ]
        )
        self._finished: list[Payload] = []
        self._begin()

    def add(self, instrument: Instrument, points: Iterable[DataPoint], *, is_delta: bool) -> None:
        head = _metric(instrument, is_delta=is_delta)
        head_bytes = head.ByteSize() + FRAME_BYTES
        metric: Metric | None = None
        for point in points:
            let_others_run()
            size = point.ByteSize() + FRAME_BYTES
            if self._points and self._bytes + size + (0 if metric is not None else head_bytes) > self._max_bytes:
                self._end()
                metric = None
            if metric is None:
                metric = self._scope.metrics.add()
                metric.CopyFrom(head)
                self._bytes += head_bytes
            _data_points(metric).append(point)
            self._bytes += size
            self._points += 1

    def finished(self) -> list[Payload]:
        if self._points:
            self._end()
        return self._finished

    def _begin(self) -> None:
        self._request = ExportMetricsServiceRequest()
        self._request.CopyFrom(self._empty)
        self._scope = self._request.resource_metrics[0].scope_metrics[0]
        self._bytes = self._request.ByteSize() + 4 * FRAME_BYTES
        self._points = 0

    def _end(self) -> None:
        self._finished.append(Payload(self._request.SerializeToString(), self._points))
        self._begin()


FRAME_BYTES = 6
"""Tag and length before an embedded message; five bytes of length are those of the largest."""


def _metric(instrument: Instrument, *, is_delta: bool) -> Metric:
    metric = Metric(name=instrument.name, description=instrument.description, unit=instrument.unit)
    temporality = AGGREGATION_TEMPORALITY_DELTA if is_delta else AGGREGATION_TEMPORALITY_CUMULATIVE
    if instrument.kind is Kind.EXPONENTIAL_HISTOGRAM:
        metric.exponential_histogram.aggregation_temporality = temporality
    elif instrument.kind is Kind.GAUGE:
        metric.gauge.SetInParent()
    else:
        metric.sum.aggregation_temporality = temporality
        metric.sum.is_monotonic = instrument.kind is Kind.COUNTER
    return metric


def _data_points(metric: Metric) -> list[DataPoint]:
    points: list[DataPoint] = getattr(metric, str(metric.WhichOneof("data"))).data_points
    return points


def _any_value(value: AttributeValue) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value)
