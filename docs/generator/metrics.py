"""docs/reference/metrics.md and telemetry-attributes.md, from metrics.yaml and the attribute keys."""

from __future__ import annotations

from gateway.telemetry.conventions import ATTRIBUTES, EVENT, METRIC, RUN_SPAN, SCHEMA_URL, SPAN
from gateway.telemetry.instruments import Instrument, Kind, instruments, load
from gateway.telemetry.prometheus import label_name, sample_name
from gateway.telemetry.quantiles import relative_error
from generator.markdown import NOTHING, code, heading, number, sentence, table
from runtime.shm.series_layout import CLASSIC_SECONDS, MAX_SERIES, SCALE, TIME_OFFSET

METRICS = "gateway/telemetry/metrics.yaml"
CONVENTIONS = "gateway/telemetry/conventions.py"

KINDS = {
    Kind.COUNTER: "counter",
    Kind.UP_DOWN_COUNTER: "up-down counter",
    Kind.GAUGE: "gauge",
    Kind.EXPONENTIAL_HISTOGRAM: "histogram",
}
EXTRA = {
    "rpc.request.metadata.<key>": "Metadata of the request, of the keys in `telemetry.metadata_attributes`.",
    "driftgate.baggage.<name>": "Members of the request's baggage, of the names in `telemetry.baggage_attributes`.",
}
"""Attributes that the configuration asks for; a record may cut them."""

CARRIERS = {SPAN: "spans of requests", RUN_SPAN: "spans of runs", METRIC: "metrics", EVENT: "log events"}


def page() -> str:
    headers = ("metric", "Prometheus", "kind, unit", "attributes", "meaning")
    return heading("Metrics", METRICS) + _introduction() + table(headers, map(_row, instruments())) + _buckets()


def attributes_page() -> str:
    text = f"""
The keys that traces, metrics and log events carry. Those without `driftgate.` are OpenTelemetry's semantic conventions
({SCHEMA_URL}). What does not apply is left out: a request that never reached a version has no model.

"""
    rows = [
        (code(attribute.key), attribute.kind, ", ".join(CARRIERS[carrier] for carrier in attribute.on), attribute.text)
        for attribute in (*ATTRIBUTES, *load()[1])
    ]
    rows += [(code(key), "string", f"{CARRIERS[SPAN]}, cut", text) for key, text in EXTRA.items()]
    source = f"{CONVENTIONS} and {METRICS}"
    return heading("Telemetry attributes", source) + text + table(("key", "type", "on", "meaning"), rows)


def _introduction() -> str:
    return f"""
`GET /metrics` on the HTTP port (8002) and OTLP export have the same metrics and numbers. /metrics answers in
Prometheus' text format, or in OpenMetrics with exemplars where the scraper accepts it, as Prometheus does when it is
started with `--enable-feature=exemplar-storage`. There attribute keys are label names with underscores in place of
dots, such as `{label_name("driftgate.model.name")}`, and `target_info` carries the resource. What keys mean:
[attributes](telemetry-attributes.md).

Figures are read from the workers' pages when they are asked for, and are sums over all workers. The pages outlive the
workers, so no counter falls when a worker is restarted; all of them start at zero with the supervisor. Load and swap
durations are control's own, and start at zero with control. Metrics without a value yet are left out.

Labels are bounded: a model's name becomes one when a version of it has taken a request, not when a client asks for it,
and a worker keeps up to {number(MAX_SERIES)} combinations. What comes after is counted, exactly, in series whose only
attribute is `otel.metric.overflow`. A version is always the number that answered; labels of the route are variants.

"""


def _row(instrument: Instrument) -> tuple[str, ...]:
    return (
        code(instrument.name),
        code(sample_name(instrument)) if instrument.in_prometheus else NOTHING,
        ", ".join(filter(None, (KINDS[instrument.kind], instrument.unit.strip("{}")))),
        ", ".join(map(code, instrument.attributes)) or NOTHING,
        sentence(instrument.description),
    )


def _buckets() -> str:
    rows = []
    for instrument in instruments():
        if instrument.bounds:
            counted = instrument.prometheus_buckets == "counted"
            bounds = ", ".join(f"{bound:g}" for bound in CLASSIC_SECONDS) if counted else _powers(instrument)
            rows.append((code(sample_name(instrument)), bounds))
    return f"""
## Histograms
Histograms are base-2 exponential ones of scale {SCALE}: a quantile of one, or of any sum of them, is within
{relative_error(SCALE):.2%} of the exact one. OTLP carries them so; durations at or below 2^{TIME_OFFSET >> SCALE} s
(0.95 µs) are in the zero bucket. `driftgate.feature.value` has the scale of the [sketch](../sketches.md#histogram) that
measures the feature, negative values, no sum where there are any, and starts for each feature when its export began;
/metrics lacks it. Prometheus' classic buckets are counts of the same values, none of them estimated:

{table(("histogram", "upper bounds, and +Inf"), rows)}
Exemplars are the newest sampled request of each bucket of `rpc_server_call_duration_seconds`.
OTEL_METRICS_EXEMPLAR_FILTER `always_off` leaves them out; `always_on` is the same as `trace_based`.

With OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE `delta` a point counts from the export before, and the interval
of an export that failed for good is lost (and counted in `otel.sdk.exporter.metric_data_point.exported`). So is what
was counted between the last export of a control process that crashed and the first look of the next one: nobody knows
what the former had sent, and nothing is sent twice. The points' times show the gap; it is `OTEL_METRIC_EXPORT_INTERVAL`
and a restart at most. Cumulative totals lose nothing of either. `lowmemory` is delta for requests, runs, loads and
swaps, and cumulative for the rest.
"""


def _powers(instrument: Instrument) -> str:
    low, high = instrument.prometheus_buckets if isinstance(instrument.prometheus_buckets, tuple) else (0, 0)
    return f"2^{low}, 2^{int(low) + 1}, ... 2^{high} ({instrument.bounds[0]:g} to {instrument.bounds[-1]:g})"
