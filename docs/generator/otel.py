"""docs/reference/otel-variables.md: the text from here, the names from what the code asks the environment for.

A variable that is asked for and not told of here, or told of and not asked for, fails the generator.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import NamedTuple

from gateway.supervisor.main import FEWEST_RECORDS
from gateway.telemetry.events import MAX_WAITING
from gateway.telemetry.settings import (
    AGGREGATION,
    EXEMPLAR_FILTERS,
    EXPONENTIAL,
    NAMES,
    PROPAGATORS,
    RESOURCE_NAMES,
    SAMPLERS,
    TEMPORALITIES,
    read_settings,
)
from gateway.telemetry.settings import TelemetrySettings as Settings
from gateway.telemetry.signal_settings import DEFAULT_TIMEOUT_SECONDS, GRPC_PORT, HTTP_PORT
from generator.markdown import NOTHING, code, heading, sentence, table

OURS = Settings()
GENERAL = "OTEL_EXPORTER_OTLP_"
ATTRIBUTES, NAME, DETECTORS = RESOURCE_NAMES

ENVIRONMENTS: tuple[dict[str, str], ...] = (
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector", "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1"},
)
"""They make the code ask for all that it knows: an endpoint without a scheme, a sampler with a ratio."""


class Variable(NamedTuple):
    """`default`: what an unset one means. `specified`: OpenTelemetry's own default, where that is another."""

    name: str
    default: str
    text: str
    specified: str = ""


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:g}"


def _choices(values: Iterable[str]) -> str:
    return ", ".join(map(code, values))


WHAT = (
    Variable(
        "OTEL_SDK_DISABLED",
        "false",
        "`true`: nothing is exported and nothing recorded, as with `telemetry.enabled: false`.",
    ),
    *(
        Variable(
            f"OTEL_{signal.upper()}_EXPORTER",
            "`otlp` where an endpoint is set for the signal, else `none`",
            f"`otlp` or `none`. {more}".strip(),
            "`otlp`",
        )
        for signal, more in (
            ("traces", ""),
            ("metrics", "`prometheus` is passed over: /metrics is there in any case."),
            ("logs", ""),
        )
    ),
    Variable(ATTRIBUTES, NOTHING, "Attributes of everything exported: `key=value,key=value`."),
    Variable(NAME, "driftgate", "`service.name`.", "unknown_service"),
    Variable(DETECTORS, "otel", "Resource detectors of OpenTelemetry's SDK for Python, such as `otel,process,os`."),
)

WHERE = (
    Variable(
        "ENDPOINT",
        NOTHING,
        "`http://HOST:PORT`, `https://HOST:PORT`, or for gRPC also `HOST:PORT` and gRPC's own names such as "
        "`unix:/run/otlp.sock`. For HTTP `/v1/traces`, `/v1/metrics` or `/v1/logs` is added, but not to a signal's "
        f"own endpoint. Without a port: {GRPC_PORT} for gRPC without a scheme, else 80 or 443.",
        f"http://localhost:{GRPC_PORT}, or :{HTTP_PORT} for HTTP",
    ),
    Variable(
        "PROTOCOL",
        f"`grpc`; `http/protobuf` where the endpoint's port is {HTTP_PORT}",
        "`grpc` or `http/protobuf`.",
        "`http/protobuf`",
    ),
    Variable("HEADERS", NOTHING, "`key=value,key=value`, percent-encoded. A signal's own replace the general ones."),
    Variable(
        "TIMEOUT",
        _ms(DEFAULT_TIMEOUT_SECONDS),
        "Milliseconds that an export may take, all tries and waits together; 0: no limit of its own.",
    ),
    Variable("COMPRESSION", "none", "`gzip` or `none`."),
    Variable(
        "INSECURE",
        "false",
        "`true`: plain text for a gRPC endpoint without a scheme. With a scheme it is not asked for.",
    ),
    Variable("CERTIFICATE", "those that gRPC or certifi brings", "PEM file of the authorities to trust."),
    Variable("CLIENT_KEY", NOTHING, "PEM file of this client's key, for mTLS."),
    Variable("CLIENT_CERTIFICATE", NOTHING, "PEM file of this client's certificate chain."),
)
"""After OTEL_EXPORTER_OTLP_, and after OTEL_EXPORTER_OTLP_{TRACES,METRICS,LOGS}_."""

SHORTER = (
    "Milliseconds that an export may take, where they are fewer than OTEL_EXPORTER_OTLP_TIMEOUT says; 0: no limit of "
    "its own."
)

TRACES = (
    Variable("OTEL_TRACES_SAMPLER", OURS.sampler, f"One of {_choices(SAMPLERS)}."),
    Variable("OTEL_TRACES_SAMPLER_ARG", "1", "The ratio, 0 to 1, of those with `traceidratio` in their name."),
    Variable("OTEL_PROPAGATORS", ",".join(PROPAGATORS), "Some of `tracecontext`, `baggage`; or `none`."),
    Variable(
        "OTEL_BSP_SCHEDULE_DELAY", _ms(OURS.spans.schedule_delay_seconds),
        "Milliseconds that a record waits for others before it is exported.", "5000",
    ),
    Variable(
        "OTEL_BSP_MAX_QUEUE_SIZE", "`telemetry.ring_records`",
        f"Records that a worker's ring holds, at least {FEWEST_RECORDS}.", "2048",
    ),
    Variable(
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
        f"{OURS.spans.max_export_batch_size}, or the queue's size if that is less",
        "Records of one export: at most these, and a quarter of the ring; more only where one run has more.",
        "512",
    ),
    Variable("OTEL_BSP_EXPORT_TIMEOUT", _ms(OURS.spans.export_timeout_seconds), SHORTER),
    Variable("OTEL_SPAN_LINK_COUNT_LIMIT", str(OURS.span_links), "Links of a run's span; the others are counted."),
)  # fmt: skip

METRICS = (
    Variable("OTEL_METRIC_EXPORT_INTERVAL", _ms(OURS.metric_interval_seconds), "Milliseconds between two exports."),
    Variable("OTEL_METRIC_EXPORT_TIMEOUT", _ms(OURS.metric_timeout_seconds), SHORTER),
    Variable(
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", OURS.temporality, f"One of {_choices(TEMPORALITIES)}."
    ),
    Variable(
        "OTEL_METRICS_EXEMPLAR_FILTER",
        OURS.exemplar_filter,
        f"One of {_choices(EXEMPLAR_FILTERS)}; `always_on` is as `trace_based`.",
    ),
)

LOGS = (
    Variable(
        "OTEL_BLRP_SCHEDULE_DELAY", _ms(OURS.log_records.schedule_delay_seconds), "Milliseconds between two exports."
    ),
    Variable("OTEL_BLRP_MAX_QUEUE_SIZE", str(MAX_WAITING), "Log events that may wait for export."),
    Variable(
        "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE",
        f"{OURS.log_records.max_export_batch_size}, or the queue's size if that is less",
        "Log events of one export, at most.",
        "512",
    ),
    Variable("OTEL_BLRP_EXPORT_TIMEOUT", _ms(OURS.log_records.export_timeout_seconds), SHORTER),
)

SPANS_BOUND = "A span has fewer attributes than the default allows, and a record bounds their texts."
EVENTS_BOUND = "The bounds of log events are fixed: [limits](../how-to/limits.md#telemetry)."
WITHOUT_EFFECT = (
    *(
        Variable(f"OTEL_{kind}ATTRIBUTE_{limit}_LIMIT", NOTHING, text)
        for kind, text in (("", "As those below."), ("SPAN_", SPANS_BOUND), ("LOGRECORD_", EVENTS_BOUND))
        for limit in ("COUNT", "VALUE_LENGTH")
    ),
    Variable(AGGREGATION, NOTHING, f"Histograms are exported as `{EXPONENTIAL}`."),
)

INTRODUCTION = """
The variables that set up what driftgate exports. They count in the environment of `driftgate serve`, and as keys of
`telemetry.otel` in [its settings](configuration.md#telemetry), where the environment's go first. What to do with them:
[observability](../how-to/observability.md).

By OpenTelemetry's rules an empty value means unset; a wrong number, or an unknown word of an enumeration, is logged as
a warning, and the default holds. An endpoint, a protocol, a header or a file that is wrong ends the start with exit
status 2, and all of them are named: so nothing goes where it should not, or without its credentials. `driftgate config
check` shows both, and warns of names in `telemetry.otel` that are not on this page. Times are milliseconds. *Specified*
is OpenTelemetry's own default, where driftgate's is another.
"""


PREFIXES = f"""Each stands after `{GENERAL}`, for all signals, or after `{GENERAL}TRACES_`,
`{GENERAL}METRICS_` or `{GENERAL}LOGS_`, for one; the signal's own goes first.

"""

END = """
The variables for proxies count too: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` for OTLP over HTTP, `grpc_proxy`,
`https_proxy` and `no_grpc_proxy` for gRPC. OTEL variables that are not on this page are not read.
"""


def page() -> str:
    _check()
    headers = ("variable", "default", "specified", "meaning")
    parts = [heading("OTEL variables", "docs/generator/otel.py and gateway/telemetry/settings.py"), INTRODUCTION]
    for title, text, variables in (
        ("What is exported, and as whose", "", WHAT),
        (
            "Where to, and how",
            PREFIXES,
            WHERE,
        ),
        ("Spans", "", TRACES),
        ("Metrics", "", METRICS),
        ("Log events", "", LOGS),
    ):
        rows = [(code(v.name), v.default, v.specified or NOTHING, sentence(v.text)) for v in variables]
        parts.append(f"\n## {title}\n{text}{table(headers, rows)}")
    idle = [(code(v.name), sentence(v.text)) for v in WITHOUT_EFFECT]
    parts.append(f"\n## Checked, and without effect\n{table(('variable', 'why'), idle)}")
    parts.append(END)
    return "".join(parts)


class _Recording(dict[str, str]):
    """An environment that notes what it is asked for."""

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: str, default: str = "") -> str:  # type: ignore[override]
        self.asked.add(key)
        return super().get(key, default)


def asked() -> set[str]:
    """The names that the code asks an environment for."""
    names = set(RESOURCE_NAMES)
    for values in ENVIRONMENTS:
        environment = _Recording(values)
        read_settings(environment)
        names |= environment.asked
    return names


def told() -> set[str]:
    """The names on this page."""
    parts = ("", "TRACES_", "METRICS_", "LOGS_")
    where = {f"{GENERAL}{part}{variable.name}" for part, variable in product(parts, WHERE)}
    return where | {variable.name for group in (WHAT, TRACES, METRICS, LOGS, WITHOUT_EFFECT) for variable in group}


def _check() -> None:
    if asked() != told():
        missing, gone = sorted(asked() - told()), sorted(told() - asked())
        raise SystemExit(f"docs/generator/otel.py: not told of: {missing}; told of and not asked for: {gone}")
    if asked() != NAMES:
        raise SystemExit(f"gateway/telemetry/settings.py: NAMES are not those asked for: {sorted(asked() ^ NAMES)}")
