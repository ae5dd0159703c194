"""The table of docs/how-to/limits.md on telemetry: every bound with its value, read from the code that applies it."""

from __future__ import annotations

from gateway import throttle
from gateway.config import Telemetry
from gateway.control import telemetry as control
from gateway.telemetry import (
    access_log,
    context,
    durations,
    recorder,
    refusals,
    settings,
    signal_settings,
    span_export,
    spans,
)
from gateway.telemetry import events as log_events
from gateway.telemetry.otlp import sender
from generator.bounds import FIXED, HEADERS, Row
from generator.markdown import code, number, size, table
from runtime.shm import record_layout, ring_layout, series_layout


def telemetry() -> str:
    """What observing can fill."""
    section, ours = Telemetry.model_fields, settings.TelemetrySettings()
    dropped = "they are dropped, and `{}` counts them"
    rows: tuple[Row, ...] = (
        (
            "request records that wait in a worker's ring",
            number(section["ring_records"].default),
            f"{code('telemetry.ring_records')}, {code('OTEL_BSP_MAX_QUEUE_SIZE')}",
            dropped.format("driftgate_record_dropped_total"),
        ),
        (
            "how full a ring may get while all exports are held up",
            f"{span_export.FULL_SHARE:.0%}",
            FIXED,
            f"down to {span_export.ROOM_SHARE:.0%} the oldest records make room, counted as `queue_full`",
        ),
        ("exports of spans at once", number(span_export.EXPORTS_AT_ONCE), FIXED, "records wait in their ring"),
        (
            "records of one export",
            number(ours.spans.max_export_batch_size),
            code("OTEL_BSP_MAX_EXPORT_BATCH_SIZE"),
            "the rest forms the next one",
        ),
        (
            "one export request",
            f"{spans.MAX_BYTES / 1e6:g} MB",
            FIXED,
            "what is more forms another one; receivers take 4 MiB by default",
        ),
        (
            "an export, all its tries together",
            f"{signal_settings.DEFAULT_TIMEOUT_SECONDS:g} s",
            code("OTEL_EXPORTER_OTLP_TIMEOUT"),
            "its items are dropped, and counted as `failed`",
        ),
        ("a receiver's answer", size(sender.MAX_RESPONSE_BYTES), FIXED, "it is not understood; a line in the log"),
        (
            "what is exported at the end",
            f"{span_export.FLUSH_SECONDS:g} s, and {control.LEAST_FLUSH_SECONDS:g} s more for metrics and log events",
            FIXED,
            "what is left is dropped",
        ),
        (
            "links of a run's span",
            number(ours.span_links),
            f"{code('OTEL_SPAN_LINK_COUNT_LIMIT')}, up to {number(spans.MAX_LINKS)}",
            "further ones are counted",
        ),
        (
            "a request's id in its record",
            size(record_layout.REQUEST_ID_BYTES),
            FIXED,
            "the rest is cut off",
        ),
        (
            "tracestate and further attributes in a record",
            size(record_layout.TEXT_BYTES),
            FIXED,
            "whole members of tracestate, the newest; then attributes, cut",
        ),
        (
            "tracestate that is passed on",
            f"{number(context.MAX_MEMBERS)} members, {number(context.MAX_STATE)} characters",
            FIXED,
            "it is left out",
        ),
        ("baggage that goes back", f"{number(context.MAX_ECHO)} characters", FIXED, "it is left out"),
        (
            "metadata keys and baggage members that become attributes",
            f"{_longest(section['metadata_attributes'])} each",
            f"{code('telemetry.metadata_attributes')}, {code('telemetry.baggage_attributes')}",
            "the configuration is refused",
        ),
        (
            "names in a worker's ring",
            number(ring_layout.NAMES),
            FIXED,
            f"further ones are left out; of `:authority` {number(recorder.MAX_AUTHORITIES)} are told apart",
        ),
        (
            "combinations of model, version, variant, code and reason that a worker counts apart, since the start",
            number(series_layout.MAX_SERIES),
            FIXED,
            "others are counted as `otel.metric.overflow`, and said to be by `driftgate_statistics_lost_series_total`",
        ),
        ("models with load and swap durations", number(durations.MAX_MODELS), FIXED, "the same"),
        (
            "log events that wait for export",
            number(log_events.MAX_WAITING),
            code("OTEL_BLRP_MAX_QUEUE_SIZE"),
            dropped.format('otel_sdk_processor_log_processed_total{error_type="queue_full"}'),
        ),
        (
            "a text of a log event",
            f"{number(log_events.MAX_TEXT)} characters",
            FIXED,
            "the rest is cut off",
        ),
        (
            "log events on refused requests",
            f"one in {refusals.QUIET_SECONDS:g} s for each model, code and reason",
            FIXED,
            "it stands for all of them",
        ),
        (
            "log events on refused changes",
            f"{throttle.BURST} in {throttle.WINDOW_SECONDS:g} s for each actor",
            FIXED,
            "one more stands for the rest",
        ),
        (
            "lines and references of requests that fail inside",
            f"{throttle.BURST} in {throttle.WINDOW_SECONDS:g} s for each model and fault",
            FIXED,
            "further ones get the reference of the last",
        ),
        (
            "lines of the access log that wait for their reader",
            number(access_log.MAX_WAITING),
            FIXED,
            dropped.format("driftgate_access_log_dropped_total"),
        ),
    )
    return table(HEADERS, rows)


def _longest(field: object) -> str:
    return next(number(item.max_length) for item in getattr(field, "metadata", ()) if hasattr(item, "max_length"))
