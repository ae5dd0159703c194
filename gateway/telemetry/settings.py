"""The telemetry settings of one gateway, read from OTEL_* variables as a whole.

A deviation from OpenTelemetry's SDK, which exports three signals to localhost by default: here a signal is exported
when OTEL_{TRACES,METRICS,LOGS}_EXPORTER names `otlp`, or is unset while an endpoint is set that applies to the signal.
A gateway without settings connects to nothing. `none` switches a signal off; exporters other than OTLP there are none,
and metrics are at /metrics in any case.

Light: this imports no OpenTelemetry and no gRPC, so that every process may read its settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Literal, cast

from gateway.telemetry.signal_settings import (
    OPTIONS,
    SIGNALS,
    Signal,
    SignalSettings,
    has_endpoint,
    read_signal,
    variable_names,
)
from gateway.telemetry.variables import TelemetrySettingsError, Variables, shown

Temporality = Literal["cumulative", "delta", "lowmemory"]
ExemplarFilter = Literal["trace_based", "always_on", "always_off"]

SAMPLERS = (
    "always_on", "always_off", "traceidratio",
    "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio",
)  # fmt: skip
DEFAULT_SAMPLER = "parentbased_always_on"
PROPAGATORS = ("tracecontext", "baggage")
TEMPORALITIES = ("cumulative", "delta", "lowmemory")
EXEMPLAR_FILTERS = ("trace_based", "always_on", "always_off")

DEFAULT_COUNT_LIMIT = 128
"""Links of a span, by the specification."""


LEAST_DELAY_SECONDS = 0.01
"""A wait of 0 stands for it: looking for records more often than that would keep a core busy."""

RESOURCE_NAMES = ("OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME", "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS")
"""For OpenTelemetry's SDK, which detects the resource."""

AGGREGATION = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
EXPONENTIAL = "base2_exponential_bucket_histogram"
NOT_FOLLOWED: Mapping[str, str] = MappingProxyType(
    {
        f"OTEL_{kind}ATTRIBUTE_{limit}_LIMIT": "attributes are few, and their texts have fixed bounds"
        for kind, limit in product(("", "SPAN_", "LOGRECORD_"), ("COUNT", "VALUE_LENGTH"))
    }
    | {AGGREGATION: f"histograms are exported as {EXPONENTIAL}"}
)
"""Why what they ask for is not done."""

NAMES = frozenset({
    *RESOURCE_NAMES,
    *NOT_FOLLOWED,
    *(name for signal, option in product(SIGNALS, OPTIONS) for name in variable_names(signal, option)),
    *(f"OTEL_{signal.upper()}_EXPORTER" for signal in SIGNALS),
    *(f"{prefix}_{option}" for prefix, option in product(
        ("OTEL_BSP", "OTEL_BLRP"), ("SCHEDULE_DELAY", "EXPORT_TIMEOUT", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE")
    )),
    "OTEL_SDK_DISABLED", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_PROPAGATORS",
    "OTEL_SPAN_LINK_COUNT_LIMIT", "OTEL_METRIC_EXPORT_INTERVAL", "OTEL_METRIC_EXPORT_TIMEOUT",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "OTEL_METRICS_EXEMPLAR_FILTER",
})  # fmt: skip
"""All variables that are read here. The generator of the docs compares them with what is asked for."""


@dataclass(frozen=True, slots=True)
class BatchProcessorSettings:
    """How single records become exports. The defaults are for thousands of records a second, not the specification's.

    `schedule_delay_seconds`: the longest wait for more. `export_timeout_seconds`: for a flush. `max_queue_size`: how
    many may wait, None where no variable says. `max_export_batch_size`: records of one export, never above the queue.
    """

    schedule_delay_seconds: float = 1.0
    export_timeout_seconds: float = 30.0
    max_queue_size: int | None = None
    max_export_batch_size: int = 1024


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """What is exported, where to, and how. `traces`, `metrics`, `logs`: None where the signal is not exported.

    `disabled`: OTEL_SDK_DISABLED, no signal is exported. `sampler` is one of SAMPLERS; `sampler_ratio`, 0 to 1, counts
    for those with traceidratio in their name. `warnings`: what was set and is not followed, a line each, to be logged.
    """

    disabled: bool = False
    traces: SignalSettings | None = None
    metrics: SignalSettings | None = None
    logs: SignalSettings | None = None
    sampler: str = DEFAULT_SAMPLER
    sampler_ratio: float = 1.0
    propagators: tuple[str, ...] = PROPAGATORS
    spans: BatchProcessorSettings = BatchProcessorSettings()
    log_records: BatchProcessorSettings = BatchProcessorSettings()
    metric_interval_seconds: float = 60.0
    metric_timeout_seconds: float = 30.0
    temporality: Temporality = "cumulative"
    exemplar_filter: ExemplarFilter = "trace_based"
    span_links: int = DEFAULT_COUNT_LIMIT
    warnings: tuple[str, ...] = ()


def read_settings(environment: Mapping[str, str], configured: Iterable[str] = ()) -> TelemetrySettings:
    """TelemetrySettingsError names every variable that is wrong.

    `configured`: names that the configuration gives, and so were meant for this program, as those that the environment
    gives need not be. Those that nothing here reads are warned of.
    """
    variables = Variables(environment)
    for name in configured:
        if name not in NAMES:
            variables.warn(name, "there is no such variable here, so it has no effect")
    for name, why in NOT_FOLLOWED.items():
        if variables.text(name)[1].lower() not in ("", EXPONENTIAL):
            variables.warn(name, f"is not followed: {why}")
    disabled = variables.flag("OTEL_SDK_DISABLED")
    traces, metrics, logs = (
        None if disabled or not _is_exported(variables, signal) else read_signal(variables, signal)
        for signal in SIGNALS
    )
    settings = TelemetrySettings(
        disabled=disabled,
        traces=traces,
        metrics=metrics,
        logs=logs,
        sampler=variables.choice("OTEL_TRACES_SAMPLER", allowed=SAMPLERS, default=DEFAULT_SAMPLER),
        sampler_ratio=_read_ratio(variables),
        propagators=_read_propagators(variables),
        spans=_read_batch_processor(variables, "OTEL_BSP"),
        log_records=_read_batch_processor(variables, "OTEL_BLRP"),
        metric_interval_seconds=variables.seconds("OTEL_METRIC_EXPORT_INTERVAL", default=60.0, least=1),
        metric_timeout_seconds=variables.timeout("OTEL_METRIC_EXPORT_TIMEOUT", default=30.0),
        temporality=cast(
            "Temporality",
            variables.choice(
                "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", allowed=TEMPORALITIES, default="cumulative"
            ),
        ),
        exemplar_filter=cast(
            "ExemplarFilter",
            variables.choice("OTEL_METRICS_EXEMPLAR_FILTER", allowed=EXEMPLAR_FILTERS, default="trace_based"),
        ),
        span_links=_count(variables, "OTEL_SPAN_LINK_COUNT_LIMIT"),
        warnings=variables.warnings,
    )
    if variables.problems:
        raise TelemetrySettingsError(variables.problems)
    return settings


def _is_exported(variables: Variables, signal: Signal) -> bool:
    name = f"OTEL_{signal.upper()}_EXPORTER"
    exporters = variables.listing(name)
    if not exporters:
        return has_endpoint(variables, signal)
    known = {"otlp", "none"} | ({"prometheus"} if signal == "metrics" else set())
    for other in exporters:
        if other not in known:
            variables.warn(name, f"expected otlp or none, got {shown(other)}; there is no such exporter here")
    return "otlp" in exporters and "none" not in exporters


def _read_ratio(variables: Variables) -> float:
    """A wrong one counts as unset, as the specification demands."""
    name, value = variables.text("OTEL_TRACES_SAMPLER_ARG")
    if not value or not variables.text("OTEL_TRACES_SAMPLER")[1].lower().endswith("traceidratio"):
        return 1.0
    try:
        ratio = float(value)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:  # NaN is not either
        variables.warn(name, f"expected a number from 0 to 1, got {shown(value)}; 1 is used")
        return 1.0
    return ratio


def _read_propagators(variables: Variables) -> tuple[str, ...]:
    name = "OTEL_PROPAGATORS"
    given = variables.listing(name)
    for other in given:
        if other not in (*PROPAGATORS, "none"):
            variables.warn(name, f"expected tracecontext, baggage or none, got {shown(other)}; it is left out")
    if "none" in given:
        return ()
    return tuple(item for item in given if item in PROPAGATORS) if given else PROPAGATORS


def _read_batch_processor(variables: Variables, prefix: str) -> BatchProcessorSettings:
    """Without a size of its own, a batch is no larger than the queue."""
    ours = BatchProcessorSettings()
    queue = variables.number(f"{prefix}_MAX_QUEUE_SIZE", default=None, least=1)
    name = f"{prefix}_MAX_EXPORT_BATCH_SIZE"
    batch = variables.number(name, default=None, least=1)
    if queue is not None and batch is not None and batch > queue:
        variables.warn(name, f"expected at most {queue}, as {prefix}_MAX_QUEUE_SIZE says, got {batch}; {queue} is used")
        batch = queue
    delay = variables.seconds(f"{prefix}_SCHEDULE_DELAY", default=ours.schedule_delay_seconds)
    return BatchProcessorSettings(
        schedule_delay_seconds=max(delay, LEAST_DELAY_SECONDS),
        export_timeout_seconds=variables.timeout(f"{prefix}_EXPORT_TIMEOUT", default=ours.export_timeout_seconds),
        max_queue_size=queue,
        max_export_batch_size=batch or min(ours.max_export_batch_size, queue or ours.max_export_batch_size),
    )


def _count(variables: Variables, *names: str) -> int:
    number = variables.number(*names, default=None)
    return DEFAULT_COUNT_LIMIT if number is None else number
