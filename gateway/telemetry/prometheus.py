"""A snapshot in Prometheus' text format, or in OpenMetrics with exemplars, as the scraper's Accept header asks.

Names follow OpenTelemetry's mapping: dots become underscores, the unit and `_total` of counters are appended. So are
those of labels, and where two keys become one label, it has both values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as PrometheusExemplar
from prometheus_client.samples import Timestamp

from gateway.telemetry.instruments import Instrument, Kind
from gateway.telemetry.snapshot import Distribution, Measurement, Snapshot
from runtime.shm.series import Exemplar

UNITS = {"s": "seconds", "By": "bytes", "1": "ratio"}
"""Units in braces are remarks and no part of a name."""

TYPES = {
    Kind.COUNTER: "counter",
    Kind.UP_DOWN_COUNTER: "gauge",
    Kind.GAUGE: "gauge",
    Kind.EXPONENTIAL_HISTOGRAM: "histogram",
}
TARGET = "target_info"
INFINITE = "+Inf"
NOT_IN_LABELS = re.compile(r"[^a-zA-Z0-9_]", re.ASCII)


def exposition(snapshot: Snapshot, resource: Mapping[str, str | bool | int | float], accept: str) -> tuple[bytes, str]:
    """The page and its content type. `resource`: attributes of the gateway, the labels of target_info."""
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # an Accept header that it cannot read: anyone may send one
        encode, content_type = choose_encoder("")
    return encode(_Families(snapshot, resource)), content_type


def family_name(instrument: Instrument) -> str:
    """rpc.server.call.duration in s → rpc_server_call_duration_seconds."""
    name, unit = instrument.name.replace(".", "_"), UNITS.get(instrument.unit, "")
    return name if not unit or name.endswith(f"_{unit}") else f"{name}_{unit}"


def sample_name(instrument: Instrument) -> str:
    """The name to ask for: of a counter with `_total`, of a histogram without suffix."""
    return family_name(instrument) + ("_total" if instrument.kind is Kind.COUNTER else "")


def label_name(key: str) -> str:
    """Resource attributes may have any key: my-key → my_key, 2nd → key_2nd."""
    name = NOT_IN_LABELS.sub("_", key)
    return f"key_{name}" if name[:1].isdigit() else name


class _Families(Collector):
    def __init__(self, snapshot: Snapshot, resource: Mapping[str, str | bool | int | float]) -> None:
        self._snapshot = snapshot
        self._resource = resource

    def collect(self) -> Iterator[Metric]:
        if self._resource:
            target = Metric("target", "What describes this gateway in other signals.", "info")
            target.add_sample(TARGET, _labels(sorted(self._resource.items())), 1)
            yield target
        for measurement in self._snapshot.measurements:
            if measurement.instrument.in_prometheus:
                yield _family(measurement)


def _family(measurement: Measurement) -> Metric:
    instrument = measurement.instrument
    unit = UNITS.get(instrument.unit, "")
    family = Metric(family_name(instrument), instrument.description, TYPES[instrument.kind], unit)
    for point in measurement.points:
        labels = _labels(point.attributes)
        if isinstance(point.value, Distribution):
            _add_histogram(family, labels, point.value, instrument)
        elif isinstance(point.value, int | float):
            family.add_sample(sample_name(instrument), labels, point.value)
    return family


def _add_histogram(family: Metric, labels: dict[str, str], value: Distribution, instrument: Instrument) -> None:
    exemplars = {exemplar.bucket: exemplar for exemplar in value.exemplars}
    count = 0
    for bucket, (bound, count) in enumerate(_cumulative(value, instrument)):
        exemplar = exemplars.get(bucket) if value.classic is not None else None
        family.add_sample(
            f"{family.name}_bucket", labels | {"le": bound}, count, exemplar=_exemplar(exemplar) if exemplar else None
        )
    family.add_sample(f"{family.name}_count", labels, count)
    family.add_sample(f"{family.name}_sum", labels, value.total)


def _cumulative(value: Distribution, instrument: Instrument) -> Iterable[tuple[str, int]]:
    """Bound and how many values are at most that, the last one +Inf."""
    if value.classic is not None and instrument.prometheus_buckets == "counted":
        counts = value.classic.cumsum().tolist()
    else:
        counts = [*(value.at_or_below(int(math.log2(bound))) for bound in instrument.bounds), value.count]
    return zip([*map(str, instrument.bounds), INFINITE], counts, strict=True)


def _exemplar(exemplar: Exemplar) -> PrometheusExemplar:
    ids = {"trace_id": exemplar.trace_id.hex(), "span_id": exemplar.span_id.hex()}
    seconds, ns = divmod(exemplar.unix_ns, 10**9)
    return PrometheusExemplar(ids, exemplar.duration_seconds, Timestamp(seconds, ns))


def _labels(attributes: Iterable[tuple[str, str | bool | float]]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for key, value in attributes:
        name, text = label_name(key), _text(value)
        labels[name] = f"{labels[name]};{text}" if name in labels else text
    return labels


def _text(value: str | bool | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
