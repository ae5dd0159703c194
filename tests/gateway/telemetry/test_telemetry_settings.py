"""OTEL_* variables and what they mean: tables of them, every problem at once, and nothing that ends in a crash."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.settings import (
    AGGREGATION,
    LEAST_DELAY_SECONDS,
    NOT_FOLLOWED,
    BatchProcessorSettings,
    TelemetrySettings,
    read_settings,
)
from gateway.telemetry.signal_settings import RESERVED_KEYS, SignalSettings
from gateway.telemetry.variables import INDEFINITE_SECONDS, MOST, TelemetrySettingsError

ROOT = Path(__file__).resolve().parents[3]
OTLP = "OTEL_EXPORTER_OTLP_"
ENDPOINT = f"{OTLP}ENDPOINT"
SIGNALS = ("traces", "metrics", "logs")
PEM = b"-----BEGIN CERTIFICATE-----\n"


def signal_of(environment: dict[str, str], name: str = "traces") -> SignalSettings:
    settings: SignalSettings | None = getattr(read_settings(environment), name)
    assert settings is not None
    return settings


def problems_of(environment: dict[str, str]) -> list[str]:
    with pytest.raises(TelemetrySettingsError) as raised:
        read_settings(environment)
    return raised.value.problems


def exported(environment: dict[str, str]) -> list[str]:
    settings = read_settings(environment)
    return [name for name in SIGNALS if getattr(settings, name) is not None]


def test_without_variables_nothing_is_exported_and_the_defaults_hold() -> None:
    settings = read_settings({})
    assert settings == TelemetrySettings()
    assert exported({}) == []
    assert settings.sampler == "parentbased_always_on"
    assert settings.propagators == ("tracecontext", "baggage")
    assert settings.spans == settings.log_records == BatchProcessorSettings(1.0, 30.0, None, 1024)
    assert (settings.metric_interval_seconds, settings.metric_timeout_seconds) == (60.0, 30.0)
    assert (settings.temporality, settings.exemplar_filter, settings.span_links) == ("cumulative", "trace_based", 128)


def test_reading_settings_imports_neither_grpc_nor_opentelemetry() -> None:
    """Every process reads them, and must not pay for what it does not use."""
    script = (
        "import sys; from gateway.telemetry.settings import read_settings; read_settings({});"
        "loaded = {name.partition('.')[0] for name in sys.modules};"
        "print(sorted(loaded & {'grpc', 'opentelemetry', 'requests', 'google'}))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert found.stdout == "[]\n", found.stderr


@pytest.mark.parametrize(
    ("environment", "signals"),
    [
        ({ENDPOINT: "http://c:4317"}, ["traces", "metrics", "logs"]),
        ({f"{OTLP}LOGS_ENDPOINT": "http://c:4317"}, ["logs"]),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ["traces"]),
        ({"OTEL_METRICS_EXPORTER": " OTLP , prometheus"}, ["metrics"]),
        ({ENDPOINT: "http://c:4317", "OTEL_METRICS_EXPORTER": "none"}, ["traces", "logs"]),
        ({ENDPOINT: "http://c:4317", "OTEL_METRICS_EXPORTER": "prometheus"}, ["traces", "logs"]),
        ({ENDPOINT: "http://c:4317", "OTEL_LOGS_EXPORTER": "otlp,none"}, ["traces", "metrics"]),
        ({ENDPOINT: "  ", "OTEL_TRACES_EXPORTER": ""}, []),
        ({ENDPOINT: "http://c:4317", "OTEL_SDK_DISABLED": "True"}, []),
    ],
)
def test_a_signal_is_exported_when_otlp_is_named_or_an_endpoint_applies(
    environment: dict[str, str], signals: list[str]
) -> None:
    assert exported(environment) == signals
    assert read_settings(environment).warnings == ()


@pytest.mark.parametrize(
    ("environment", "protocol", "endpoint", "insecure"),
    [
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "grpc", "localhost:4317", True),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", f"{OTLP}PROTOCOL": "HTTP/protobuf"},
            *("http/protobuf", "http://localhost:4318/v1/traces", True),
        ),
        ({ENDPOINT: "http://c:4317"}, "grpc", "c:4317", True),
        ({ENDPOINT: "HTTPS://c:4317/"}, "grpc", "c:4317", False),
        ({ENDPOINT: "https://c"}, "grpc", "c:443", False),
        ({ENDPOINT: "http://c"}, "grpc", "c:80", True),
        ({ENDPOINT: "http://[::1]:4317"}, "grpc", "[::1]:4317", True),
        ({ENDPOINT: "c:4317", f"{OTLP}INSECURE": "true"}, "grpc", "c:4317", True),
        ({ENDPOINT: "c", f"{OTLP}INSECURE": "false"}, "grpc", "c:4317", False),
        ({ENDPOINT: "https://c:1", f"{OTLP}INSECURE": "true"}, "grpc", "c:1", False),
        ({ENDPOINT: "c:1", f"{OTLP}INSECURE": "true", f"{OTLP}TRACES_INSECURE": "false"}, "grpc", "c:1", False),
        ({ENDPOINT: "dns:///c:4317", f"{OTLP}INSECURE": "true"}, "grpc", "dns:///c:4317", True),
        ({ENDPOINT: "unix:/run/otlp", f"{OTLP}INSECURE": "true"}, "grpc", "unix:/run/otlp", True),
        ({ENDPOINT: "http://c:4318"}, "http/protobuf", "http://c:4318/v1/traces", True),
        ({ENDPOINT: "https://c:4318/up/"}, "http/protobuf", "https://c:4318/up/v1/traces", False),
        ({ENDPOINT: "http://c:4318/?key=1"}, "http/protobuf", "http://c:4318/v1/traces?key=1", True),
        ({ENDPOINT: "http://c:4318", f"{OTLP}PROTOCOL": "grpc"}, "grpc", "c:4318", True),
        (
            {ENDPOINT: "https://c", f"{OTLP}TRACES_PROTOCOL": "http/protobuf"},
            *("http/protobuf", "https://c:443/v1/traces", False),
        ),
        (
            {ENDPOINT: "http://other:4317", f"{OTLP}TRACES_ENDPOINT": "http://c:4318/own"},
            *("http/protobuf", "http://c:4318/own", True),
        ),
        ({f"{OTLP}TRACES_ENDPOINT": "http://c:4318"}, "http/protobuf", "http://c:4318/", True),
    ],
)
def test_endpoint_and_protocol(environment: dict[str, str], protocol: str, endpoint: str, insecure: bool) -> None:
    """A general HTTP endpoint gets the signal's path, a signal's own is used as it is; http and https decide on TLS."""
    found = signal_of(environment)
    assert (found.protocol, found.endpoint, found.insecure) == (protocol, endpoint, insecure)
    assert read_settings(environment).warnings == ()


def test_each_signal_has_its_path() -> None:
    settings = read_settings({ENDPOINT: "http://c:4318"})
    endpoints = [getattr(settings, name).endpoint for name in SIGNALS]
    assert endpoints == [f"http://c:4318/v1/{name}" for name in SIGNALS]


@pytest.mark.parametrize(
    ("environment", "warning"),
    [
        ({ENDPOINT: "c:4317"}, "c:4317 has no scheme and is reached through TLS"),
        ({ENDPOINT: "http://c:4317/v1/traces"}, "the path '/v1/traces' is not used by gRPC"),
        (
            {ENDPOINT: "http://c:1", f"{OTLP}COMPRESSION": "zstd"},
            "expected one of gzip, none, got 'zstd'; none is used",
        ),
        ({ENDPOINT: "http://c:1", f"{OTLP}CERTIFICATE": "/x"}, "is not used where the endpoint is plain text"),
        ({"OTEL_LOGS_EXPORTER": "console"}, "expected otlp or none, got 'console'"),
        ({"OTEL_TRACES_EXPORTER": "prometheus"}, "expected otlp or none, got 'prometheus'"),
        ({"OTEL_SDK_DISABLED": "1"}, "expected true or false, got '1'; taken as false"),
        ({"OTEL_TRACES_SAMPLER": "jaeger_remote"}, "got 'jaeger_remote'; parentbased_always_on is used"),
        (
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "10%"},
            "from 0 to 1, got '10%'; 1 is used",
        ),
        (
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "nan"},
            "from 0 to 1, got 'nan'; 1 is used",
        ),
        ({"OTEL_PROPAGATORS": "b3,baggage"}, "expected tracecontext, baggage or none, got 'b3'; it is left out"),
        ({f"{OTLP}METRICS_TEMPORALITY_PREFERENCE": "x"}, "got 'x'; cumulative is used"),
        ({"OTEL_METRICS_EXEMPLAR_FILTER": "x"}, "got 'x'; trace_based is used"),
    ],
)
def test_words_that_are_not_known_warn_and_the_default_holds(environment: dict[str, str], warning: str) -> None:
    (line,) = read_settings(environment).warnings
    assert warning in line
    assert line.startswith("OTEL_")


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        (
            {ENDPOINT: "http://c:4318", f"{OTLP}PROTOCOL": "http/json"},
            f"{OTLP}PROTOCOL: expected grpc or http/protobuf",
        ),
        ({ENDPOINT: "c:4318"}, "expected a URL, as http://collector:4318, for http/protobuf, got 'c:4318'"),
        ({ENDPOINT: "ftp://c:1"}, "expected a URL, as http://collector:4317, or HOST:PORT, got 'ftp://c:1'"),
        ({ENDPOINT: "http://"}, "got 'http://'"),
        ({ENDPOINT: "http://c:70000"}, "got 'http://c:70000'"),
        ({ENDPOINT: "http://c:0"}, "got 'http://c:0'"),
        ({ENDPOINT: "http://[::1"}, "got 'http://[::1'"),
        ({ENDPOINT: "http://a b:1"}, "got 'http://a b:1'"),
        ({ENDPOINT: "c:d"}, "got 'c:d'"),
        ({ENDPOINT: "http://me:word@c:1"}, "expected no user in the URL, got 'http://...@c:1'"),
        ({ENDPOINT: "http://me:word@c:70000"}, "got 'http://...@c:70000'"),
        ({ENDPOINT: "http://c:70000/x?key=word"}, "got 'http://c:70000/x?...'"),
        ({ENDPOINT: "http://me:wo/word@c:1"}, "got 'http://...@c:1'"),
        ({ENDPOINT: "http://me:word@word@c:70000"}, "got 'http://...@c:70000'"),
        ({ENDPOINT: "http://me:word?word@c:70000"}, "got 'http://...'"),
        ({ENDPOINT: "me:word@c:1"}, "got '...@c:1'"),
        ({ENDPOINT: "c:1?key=word"}, "got 'c:1?...'"),
    ],
)
def test_a_wrong_destination_is_a_problem_that_names_the_variable(environment: dict[str, str], problem: str) -> None:
    """Once, though it may apply to three signals; and a password or a key in a URL is never shown."""
    (found,) = problems_of(environment)
    assert problem in found
    assert "word" not in found


@pytest.mark.parametrize(
    ("environment", "warning"),
    [
        ({ENDPOINT: "http://c:1", f"{OTLP}TIMEOUT": "10s"}, "TIMEOUT: expected milliseconds, a whole number from 0"),
        ({"OTEL_BSP_SCHEDULE_DELAY": "-1"}, "OTEL_BSP_SCHEDULE_DELAY: expected milliseconds"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "0"}, "OTEL_BSP_MAX_QUEUE_SIZE: expected a whole number from 1 to 2147483647"),
        ({"OTEL_BLRP_MAX_QUEUE_SIZE": "x"}, "OTEL_BLRP_MAX_QUEUE_SIZE: expected a whole number from 1 to 2147483647"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "1e3"}, "OTEL_METRIC_EXPORT_INTERVAL: expected milliseconds"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "0"}, "OTEL_METRIC_EXPORT_INTERVAL: expected milliseconds"),
        ({"OTEL_SPAN_LINK_COUNT_LIMIT": "2147483648"}, "OTEL_SPAN_LINK_COUNT_LIMIT: expected a whole number from 0"),
        ({"OTEL_SPAN_LINK_COUNT_LIMIT": "\u0663"}, "OTEL_SPAN_LINK_COUNT_LIMIT: expected a whole number from 0"),
    ],
)
def test_a_wrong_number_warns_and_counts_as_unset(environment: dict[str, str], warning: str) -> None:
    """As the specification demands of new implementations: telemetry that is set up wrongly does not end a service."""
    found = read_settings(environment)
    (line,) = found.warnings
    assert warning in line
    assert line.endswith("; the default holds")
    default = read_settings({name: value for name, value in environment.items() if name == ENDPOINT})
    assert replace(found, warnings=()) == default


def test_a_batch_larger_than_its_queue_warns_and_is_the_queue() -> None:
    found = read_settings({"OTEL_BLRP_MAX_QUEUE_SIZE": "10", "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "11"})
    (line,) = found.warnings
    assert line.endswith("expected at most 10, as OTEL_BLRP_MAX_QUEUE_SIZE says, got 11; 10 is used")
    assert found.log_records.max_export_batch_size == 10


def test_a_timeout_of_0_is_none_and_a_delay_of_0_is_the_least() -> None:
    zero = {f"{OTLP}TIMEOUT": "0", "OTEL_BSP_EXPORT_TIMEOUT": "0", "OTEL_METRIC_EXPORT_TIMEOUT": "0"}
    found = read_settings({ENDPOINT: "http://c:1", "OTEL_BSP_SCHEDULE_DELAY": "0", **zero})
    assert found.warnings == ()
    assert found.traces is not None
    timeouts = {found.traces.timeout_seconds, found.spans.export_timeout_seconds, found.metric_timeout_seconds}
    assert timeouts == {INDEFINITE_SECONDS}
    assert found.spans.schedule_delay_seconds == LEAST_DELAY_SECONDS


def test_the_longest_timeout_is_one_that_a_socket_takes() -> None:
    seconds = signal_of({ENDPOINT: "http://c:1", f"{OTLP}TIMEOUT": str(MOST)}).timeout_seconds
    with socket.socket() as each:
        each.settimeout(seconds)


def test_all_problems_are_named_at_once() -> None:
    environment = {ENDPOINT: "ftp://c", f"{OTLP}LOGS_ENDPOINT": "http://c:1", f"{OTLP}LOGS_PROTOCOL": "x"}
    with pytest.raises(TelemetrySettingsError, match="the telemetry settings have 2 problems:") as raised:
        read_settings(environment)
    assert {line.partition(":")[0] for line in raised.value.problems} == set(environment) - {f"{OTLP}LOGS_ENDPOINT"}


@pytest.mark.parametrize(
    ("environment", "headers"),
    [
        ({f"{OTLP}HEADERS": "Api-Key=secret"}, {"api-key": "secret"}),
        ({f"{OTLP}HEADERS": " a = b%20c , d=e=f==,, "}, {"a": "b c", "d": "e=f=="}),
        ({f"{OTLP}HEADERS": "authorization=Basic%20eDp5, a=b c"}, {"authorization": "Basic eDp5", "a": "b c"}),
        ({f"{OTLP}HEADERS": "a=1", f"{OTLP}TRACES_HEADERS": "b=2"}, {"b": "2"}),
        ({f"{OTLP}HEADERS": "a=1,A=2,b="}, {"a": "2", "b": ""}),
    ],
)
def test_headers_are_decoded_and_a_signals_own_replace_the_general_ones(
    environment: dict[str, str], headers: dict[str, str]
) -> None:
    assert dict(signal_of({ENDPOINT: "http://c:4317"} | environment).headers) == headers


@pytest.mark.parametrize(
    "text", ["secret", "secret key=1", "Authorization: secret=", "=secret", "a=secret%0d%0ab: c", "a=%ff", "te=secret"]
)
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_wrong_header_is_a_problem_that_shows_nothing_of_it(text: str, protocol: str) -> None:
    environment = {f"{OTLP}TRACES_ENDPOINT": "http://c:1", f"{OTLP}PROTOCOL": protocol, f"{OTLP}HEADERS": f"x=y,{text}"}
    (problem,) = problems_of(environment)
    assert problem.startswith(f"{OTLP}HEADERS: member 2: expected ")
    assert "secret" not in problem


def test_headers_do_not_show_in_the_settings_repr() -> None:
    settings = read_settings({ENDPOINT: "http://c:4318?key=hidden", f"{OTLP}HEADERS": "api-key=secret"})
    assert "secret" not in repr(settings)
    assert settings.traces is not None
    assert settings.traces.shown == "http://c:4318/v1/traces"


KEYS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1, max_size=20).filter(
    lambda key: not key.startswith("grpc-") and not key.endswith("-bin") and key not in RESERVED_KEYS
)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40).map(str.strip)


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_headers_that_are_percent_encoded_come_back(headers: dict[str, str]) -> None:
    text = ",".join(f"{quote(key)}={quote(value)}" for key, value in headers.items())
    assert dict(signal_of({ENDPOINT: "http://c:1", f"{OTLP}HEADERS": text}).headers) == headers


def test_timeouts_are_milliseconds_and_a_signals_own_goes_first() -> None:
    environment = {
        ENDPOINT: "http://c:1",
        f"{OTLP}TIMEOUT": "2500",
        f"{OTLP}LOGS_TIMEOUT": "1",
        f"{OTLP}COMPRESSION": "GZIP",
    }
    assert signal_of(environment).timeout_seconds == 2.5
    assert signal_of(environment, "logs").timeout_seconds == 0.001
    assert signal_of(environment).compression == "gzip"
    assert signal_of(environment | {f"{OTLP}TRACES_COMPRESSION": "none"}).compression == "none"
    assert signal_of({ENDPOINT: "http://c:1"}).timeout_seconds == 10


def test_certificates_are_files_that_can_be_read(tmp_path: Path) -> None:
    for name in ("ca", "key", "chain"):
        (tmp_path / name).write_bytes(PEM)
    environment = {
        ENDPOINT: "https://c:4317",
        f"{OTLP}CERTIFICATE": str(tmp_path / "ca"),
        f"{OTLP}CLIENT_KEY": str(tmp_path / "key"),
        f"{OTLP}TRACES_CLIENT_CERTIFICATE": str(tmp_path / "chain"),
        f"{OTLP}CLIENT_CERTIFICATE": str(tmp_path / "ca"),
    }
    found = signal_of(environment)
    assert (found.certificate, found.client_key) == (tmp_path / "ca", tmp_path / "key")
    assert found.client_certificate == tmp_path / "chain"
    assert signal_of(environment, "logs").client_certificate == tmp_path / "ca"


def test_certificates_that_are_missing_or_none_are_problems(tmp_path: Path) -> None:
    (tmp_path / "der").write_bytes(b"\x30\x82")
    environment = {
        f"{OTLP}TRACES_ENDPOINT": "https://c:4317",
        f"{OTLP}CERTIFICATE": str(tmp_path / "none"),
        f"{OTLP}CLIENT_KEY": str(tmp_path / "der"),
        f"{OTLP}CLIENT_CERTIFICATE": "\0",
    }
    missing, no_pem, null = problems_of(environment)
    assert missing.startswith(f"{OTLP}CERTIFICATE: expected a PEM file that can be read, got ")
    assert missing.endswith(": No such file or directory")
    assert no_pem.startswith(f"{OTLP}CLIENT_KEY: expected a PEM file, which holds -----BEGIN, got ")
    assert null.startswith(f"{OTLP}CLIENT_CERTIFICATE: expected a PEM file that can be read")


@pytest.mark.parametrize(("given", "missing"), [("KEY", "CERTIFICATE"), ("CERTIFICATE", "KEY")])
def test_mtls_needs_key_and_certificate(tmp_path: Path, given: str, missing: str) -> None:
    (tmp_path / "file").write_bytes(PEM)
    (problem,) = problems_of({ENDPOINT: "https://c:4317", f"{OTLP}CLIENT_{given}": str(tmp_path / "file")})
    assert problem == f"{OTLP}CLIENT_{given}: expected {OTLP}CLIENT_{missing} beside it: mTLS needs both"


@pytest.mark.parametrize(
    ("environment", "field", "value"),
    [
        ({"OTEL_TRACES_SAMPLER": "Always_Off"}, "sampler", "always_off"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio"}, "sampler_ratio", 1.0),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}, "sampler_ratio", 0.25),
        (
            {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1e-3"},
            "sampler_ratio",
            0.001,
        ),
        ({"OTEL_TRACES_SAMPLER": "always_on", "OTEL_TRACES_SAMPLER_ARG": "anything"}, "sampler_ratio", 1.0),
        ({"OTEL_PROPAGATORS": "baggage,tracecontext,baggage"}, "propagators", ("baggage", "tracecontext")),
        ({"OTEL_PROPAGATORS": "none"}, "propagators", ()),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_PROPAGATORS": "baggage"}, "propagators", ("baggage",)),
        ({"OTEL_BSP_SCHEDULE_DELAY": "250"}, "spans", BatchProcessorSettings(schedule_delay_seconds=0.25)),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "768"}, "spans", BatchProcessorSettings(1.0, 30.0, 768, 768)),
        ({"OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "512"}, "log_records", BatchProcessorSettings(max_export_batch_size=512)),
        ({"OTEL_BLRP_EXPORT_TIMEOUT": "5"}, "log_records", BatchProcessorSettings(export_timeout_seconds=0.005)),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "1500"}, "metric_interval_seconds", 1.5),
        ({"OTEL_METRIC_EXPORT_TIMEOUT": "1500"}, "metric_timeout_seconds", 1.5),
        ({f"{OTLP}METRICS_TEMPORALITY_PREFERENCE": "Delta"}, "temporality", "delta"),
        ({f"{OTLP}METRICS_TEMPORALITY_PREFERENCE": "lowmemory"}, "temporality", "lowmemory"),
        ({"OTEL_METRICS_EXEMPLAR_FILTER": "ALWAYS_OFF"}, "exemplar_filter", "always_off"),
        ({"OTEL_SPAN_LINK_COUNT_LIMIT": "0"}, "span_links", 0),
    ],
)
def test_every_other_variable_has_its_meaning(environment: dict[str, str], field: str, value: Any) -> None:
    settings = read_settings(environment)
    assert getattr(settings, field) == value
    assert settings.warnings == ()


def test_configured_names_that_nothing_reads_are_told_of() -> None:
    """An environment may hold those of other programs; in driftgate's own settings they are mistyped."""
    unknown = "OTEL_EXPORTER_OTLP_ENDPIONT"
    assert read_settings({unknown: "x"}).warnings == ()
    (warning,) = read_settings({unknown: "x", "OTEL_SERVICE_NAME": "y"}, [unknown, "OTEL_SERVICE_NAME"]).warnings
    assert warning == f"{unknown}: there is no such variable here, so it has no effect"


def test_what_asks_for_what_is_done_anyway_is_no_warning() -> None:
    assert read_settings({AGGREGATION: "Base2_Exponential_Bucket_Histogram"}).warnings == ()


def test_limits_that_are_not_followed_are_said_to_be() -> None:
    for name in NOT_FOLLOWED:
        (warning,) = read_settings({name: "8"}).warnings
        assert warning.startswith(f"{name}: is not followed")


NAMES = st.sampled_from(
    [f"{OTLP}{own}{option}" for own in ("", "TRACES_", "METRICS_", "LOGS_") for option in (
        "ENDPOINT", "PROTOCOL", "HEADERS", "TIMEOUT", "COMPRESSION", "INSECURE", "CERTIFICATE", "CLIENT_KEY",
        "CLIENT_CERTIFICATE",
    )]
    + [
        "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER",
        "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_PROPAGATORS", "OTEL_BSP_SCHEDULE_DELAY",
        "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "OTEL_METRIC_EXPORT_INTERVAL",
        f"{OTLP}METRICS_TEMPORALITY_PREFERENCE", "OTEL_METRICS_EXEMPLAR_FILTER", "OTEL_ATTRIBUTE_COUNT_LIMIT",
    ]
)  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=30),
    st.integers().map(str),
    st.sampled_from(["otlp", "none", "true", "grpc", "http/protobuf", "gzip", "traceidratio", "delta", "https://c"]),
    st.builds("{}://{}:{}/{}".format, st.sampled_from(["http", "https", "dns"]), *[st.text(max_size=9)] * 3),
)


@given(st.dictionaries(NAMES, TEXTS, max_size=12))
def test_no_environment_does_anything_but_give_settings_or_problems(environment: dict[str, str]) -> None:
    lines: Sequence[str]
    try:
        lines = read_settings(environment).warnings
    except TelemetrySettingsError as error:
        lines = error.problems
    assert all(line.startswith("OTEL_") for line in lines)
