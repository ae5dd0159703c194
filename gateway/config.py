"""The gateway's configuration: one YAML file, environment variables over it, flags over both.

Validated as a whole at start; every problem is named at once, with its path and what is allowed. The reference in
docs/reference/configuration.md is generated from the descriptions here.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gateway.config_section import Section as _Section
from gateway.traffic_settings import RolloutSettings, ShadowSettings
from runtime.profile.levels import Levels

ENVIRONMENT_PREFIX = "DRIFTGATE_"
NOT_SETTINGS = frozenset({"DRIFTGATE_CONFIG", "DRIFTGATE_ADMIN", "DRIFTGATE_TOKEN"})  # read by the command line
ADDRESS = re.compile(r"^(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\s\[\]]+):(?P<port>\d{1,5})$")
MAX_NAME = 128  # characters of a metadata key or baggage member that becomes an attribute
LOOPBACK = re.compile(r"^(127\.\d+\.\d+\.\d+|\[::1\]|localhost)$")


class ConfigError(ValueError):
    """`problems`: one line each, "path: what is wrong"."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("the configuration has " + _count(problems) + "\n" + "\n".join(f"  {p}" for p in problems))
        self.problems = problems


def _count(problems: list[str]) -> str:
    return "1 problem:" if len(problems) == 1 else f"{len(problems)} problems:"


class TlsFiles(_Section):
    """PEM files of one listener. With `client_ca`, clients must show a certificate that it signed (mTLS)."""

    certificate: Path = Field(description="The server's certificate chain, PEM.")
    key: Path = Field(description="Its private key, PEM.")
    client_ca: Path | None = Field(None, description="Certificates that sign clients' certificates, PEM: mTLS.")

    @field_validator("certificate", "key", "client_ca")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                value.read_bytes()
            except OSError as error:
                raise ValueError(f"cannot be read: {error.strerror}") from None
        return value


class Limits(_Section):
    """Bounds of what clients may do to one worker."""

    max_in_flight: int = Field(1024, ge=1, le=1_000_000, description="Requests being answered; more are refused.")
    max_message_bytes: int = Field(
        128 * 1024 * 1024, ge=1024, le=2**31 - 1, description="The largest request message, bytes."
    )
    max_metadata_bytes: int = Field(16 * 1024, ge=1024, le=2**24, description="Metadata of one request, bytes.")
    max_concurrent_streams: int = Field(1024, ge=1, le=1_000_000, description="RPCs at once on one connection.")
    max_connection_age_seconds: float = Field(
        0, ge=0, le=86_400, description="After it a client is asked to connect anew, which spreads load; 0: never."
    )
    max_connection_idle_seconds: float = Field(
        0, ge=0, le=86_400, description="Idle connections end after it; 0: never."
    )


class Drain(_Section):
    """How the gateway ends on SIGTERM."""

    delay_seconds: float = Field(
        0, ge=0, le=600, description="Serves on for so long after health has flipped, so that load balancers notice."
    )
    grace_seconds: float = Field(30, ge=0, le=3600, description="In-flight requests may take so long to finish.")


class RepositorySettings(_Section):
    """How model directories are read."""

    settle_seconds: float = Field(
        1.0, ge=0, le=600, description="A version's newest file must be so old before it is taken as complete."
    )
    poll_seconds: float = Field(
        0, ge=0, le=86_400, description="Look for new versions and load them so often; 0: only when told to."
    )


class Restart(_Section):
    """How crashed processes are restarted: exponential backoff, reset by a quiet minute."""

    initial_seconds: float = Field(0.1, ge=0.01, le=60, description="Wait before the first restart.")
    max_seconds: float = Field(10, ge=0.1, le=600, description="The longest wait.")


class Telemetry(_Section):
    """What is recorded of requests, and where it goes. OTEL_* variables, here or in the environment, set the export."""

    enabled: bool = Field(
        True, description="Record requests; off leaves the counts of ModelStatistics and nothing else."
    )
    ring_records: int = Field(
        32_768,
        ge=1024,
        le=4_194_304,
        description="Request records, 384 bytes each, that a worker keeps until they are exported; more are dropped.",
    )
    respond_with_context: bool = Field(
        True, description="Replies carry traceparent, so that a caller can name the trace of its request."
    )
    access_log: Literal["off", "errors", "sampled", "all"] = Field(
        "off", description="One line per request on standard output: of failures, of a sample and failures, or of all."
    )
    access_log_ratio: float = Field(0.01, ge=0, le=1, description="The share of requests that `sampled` shows.")
    metadata_attributes: tuple[str, ...] = Field(
        (), max_length=16, description="Request metadata keys that spans carry as rpc.request.metadata.<key>."
    )
    baggage_attributes: tuple[str, ...] = Field(
        (), max_length=16, description="Baggage members that spans carry as driftgate.baggage.<name>."
    )
    otel: dict[str, str] = Field(
        {}, description="OTEL_* variables, as OTEL_EXPORTER_OTLP_ENDPOINT; those of the environment go first."
    )

    @field_validator("metadata_attributes", "baggage_attributes", mode="before")
    @classmethod
    def _separated(cls, value: Any) -> Any:
        """In the environment the members of a list are separated by commas."""
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @field_validator("metadata_attributes", "baggage_attributes")
    @classmethod
    def _each_once(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        names = [name.lower() for name in value] if info.field_name == "metadata_attributes" else list(value)
        if len(set(names)) < len(names) or not all(0 < len(name) <= MAX_NAME for name in names):
            raise ValueError(f"expected names of 1 to {MAX_NAME} characters, each once")
        return value

    @field_validator("otel", mode="before")
    @classmethod
    def _otel_names(cls, value: Any) -> Any:
        if isinstance(value, dict):
            wrong = [str(name) for name in value if not str(name).startswith("OTEL_")]
            if wrong:
                raise ValueError(f"expected names that begin with OTEL_, got {', '.join(wrong)}")
            return {str(name): _as_text(item) for name, item in value.items()}
        return value

    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """`otel` with the environment's OTEL_* variables over it. An empty one is none, as OpenTelemetry has it."""
        return self.otel | {
            name: value for name, value in environment.items() if name.startswith("OTEL_") and value.strip()
        }


class Statistics(_Section):
    """What is measured of inputs and outputs, and over which times."""

    enabled: bool = Field(True, description="Measure inputs and outputs; a model's `statistics.enabled` can say no.")
    pane_seconds: int = Field(
        10,
        ge=1,
        le=3600,
        description="What is seen in so long is kept apart, and lost at most when a worker is killed.",
    )
    windows_seconds: tuple[int, ...] = Field(
        (60, 600, 3600, 86_400),
        min_length=1,
        max_length=6,
        description="Sliding windows, shortest first: each a multiple of the one before, the first of `pane_seconds`.",
    )
    drift_window_seconds: int = Field(
        600,
        ge=1,
        le=31_536_000,
        description="The window that is compared with a reference, where a model's settings name none.",
    )
    max_bytes_per_worker: int = Field(
        1024 * 1024 * 1024,
        ge=4 * 1024 * 1024,
        le=2**40,
        description="Bound on the memory of a worker's panes; versions that find no room are not measured.",
    )

    @field_validator("windows_seconds", mode="before")
    @classmethod
    def _separated(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _multiples(self) -> Statistics:
        Levels(self.pane_seconds, self.windows_seconds)  # a ValueError that names the field
        if self.drift_window_seconds not in self.windows_seconds:
            known = ", ".join(map(str, self.windows_seconds))
            raise ValueError(f"drift_window_seconds: expected one of {known}, got {self.drift_window_seconds}")
        return self


def _as_text(value: Any) -> str:
    """YAML's true and 5000 as an environment would hold them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


class Config(_Section):
    """All settings of `driftgate serve`."""

    models: tuple[str, ...] = Field(description="Roots of model repositories: folders or any fsspec URL.")
    grpc: str = Field("0.0.0.0:8001", description="Where clients reach the models (gRPC).")
    http: str = Field("0.0.0.0:8002", description="Health and metrics over HTTP.")
    admin: str = Field("127.0.0.1:8003", description="The admin API (gRPC); other than loopback needs token or mTLS.")
    workers: int = Field(0, ge=0, le=256, description="Worker processes; 0: one per core this process may use.")
    transport: Literal["auto", "queue", "public"] = Field(
        "auto", description="auto: the completion queue where grpcio has it, else the public API."
    )
    state_dir: Path | None = Field(
        None, description="Desired state, audit and the artifact cache; by default a folder per set of model roots."
    )
    repository_control: Literal["loopback", "token", "off"] = Field(
        "loopback",
        description="Who may call RepositoryModelLoad/Unload on the data port: loopback peers (and token holders), "
        "token holders only, or nobody.",
    )
    admin_token_file: Path | None = Field(None, description="File whose first line is the admin API's bearer token.")
    tls: TlsFiles | None = Field(None, description="TLS of the data port.")
    admin_tls: TlsFiles | None = Field(None, description="TLS of the admin port.")
    limits: Limits = Field(Limits(), description="Bounds per worker.")
    drain: Drain = Field(Drain(), description="How SIGTERM ends the gateway.")
    repository: RepositorySettings = Field(RepositorySettings(), description="Reading model directories.")
    restart: Restart = Field(Restart(), description="Restarting crashed processes.")
    telemetry: Telemetry = Field(Telemetry(), description="Records of requests, and their export.")
    statistics: Statistics = Field(Statistics(), description="What is measured of inputs and outputs.")
    shadow: ShadowSettings = Field(ShadowSettings(), description="Copies of requests, and how they are answered.")
    rollouts: RolloutSettings = Field(RolloutSettings(), description="How rollouts are looked at.")
    threads: int = Field(
        1, ge=1, le=64, description="Receiving threads per worker; others stand in while one is held up in a long run."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least severe log shown.")
    log_format: Literal["auto", "text", "json"] = Field("auto", description="auto: text at a terminal, else JSON.")

    @field_validator("models")
    @classmethod
    def _some_root(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not all(value):
            raise ValueError("expected at least one folder or URL")
        return value

    @field_validator("grpc", "http", "admin")
    @classmethod
    def _address(cls, value: str) -> str:
        match = ADDRESS.match(value)
        if match is None or int(match["port"]) > 65535:
            raise ValueError("expected HOST:PORT with a port 0..65535, as 127.0.0.1:8001 or [::1]:8001")
        return value

    @field_validator("admin_token_file")
    @classmethod
    def _token(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                token = first_line(value)
            except OSError as error:
                raise ValueError(f"cannot be read: {error.strerror}") from None
            if len(token) < 16:
                raise ValueError("the token must have 16 characters or more")
        return value

    @model_validator(mode="after")
    def _settings_agree(self, info: ValidationInfo) -> Config:
        """Rules over several settings, but none over one that is `broken` itself."""
        broken = info.context["broken"] if info.context else frozenset()
        problems = []
        guarded = self.admin_token_file is not None or (self.admin_tls is not None and self.admin_tls.client_ca)
        if not is_loopback(self.admin) and not guarded and not broken & {"admin", "admin_token_file", "admin_tls"}:
            problems.append(
                f"admin: {self.admin} is not loopback, so the admin API needs admin_token_file or "
                "admin_tls with client_ca (mTLS)"
            )
        needs_token = self.repository_control == "token" and self.admin_token_file is None
        if needs_token and not broken & {"repository_control", "admin_token_file"}:
            problems.append("repository_control: 'token' needs admin_token_file")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def admin_token(self) -> str:
        """The bearer token; "" where none is set."""
        return first_line(self.admin_token_file) if self.admin_token_file is not None else ""

    def state_folder(self) -> Path:
        """Where state lives: as configured, or under XDG_STATE_HOME in a folder named by the model roots."""
        if self.state_dir is not None:
            return self.state_dir
        home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        roots = "\n".join(str(Path(root).resolve()) if "://" not in root else root for root in self.models)
        return home / "driftgate" / hashlib.sha256(roots.encode()).hexdigest()[:16]

    def worker_count(self) -> int:
        return self.workers or len(os.sched_getaffinity(0))


def first_line(file: Path) -> str:
    return next(iter(file.read_text().splitlines()), "").strip()


def is_loopback(address: str) -> bool:
    match = ADDRESS.match(address)
    return match is not None and LOOPBACK.match(match["host"]) is not None


def load_config(
    file: Path | None = None, flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] = os.environ
) -> Config:
    """Flags over environment over file over defaults. Raises ConfigError."""
    problems: list[str] = []
    settings = _read_file(file, problems) if file is not None else {}
    _merge(settings, _from_environment(environment, problems))
    _merge(settings, {key: value for key, value in (flags or {}).items() if value is not None})
    if isinstance(settings.get("models"), str):
        settings["models"] = (settings["models"],)
    try:
        config = Config.model_validate(settings)
    except ValidationError as error:
        problems += _explained(error)
        problems += _disagreements(settings, {str(item["loc"][0]) for item in error.errors() if item["loc"]})
    if problems:
        raise ConfigError(problems)
    return config


def _disagreements(settings: Mapping[str, Any], broken: set[str]) -> list[str]:
    """Broken rules over the settings that are right in themselves: pydantic stops before it looks at them."""
    if not broken:
        return []
    rest = {"models": (".",)} | {key: value for key, value in settings.items() if str(key) not in broken}
    try:
        Config.model_validate(rest, context={"broken": broken})
    except ValidationError as error:
        return _explained(error)
    return []


def _read_file(file: Path, problems: list[str]) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_bytes())  # bytes: what is not UTF-8 is a YAMLError
    except OSError as error:
        problems.append(f"{file}: cannot be read: {error.strerror}")
        return {}
    except yaml.YAMLError as error:
        problems.append(f"{file}: is not YAML: {_without_the_text(error)}")
        return {}
    if document is None:
        return {}
    if not isinstance(document, dict):
        problems.append(f"{file}: expected a mapping of settings, got a {type(document).__name__}")
        return {}
    return document


def _without_the_text(error: yaml.YAMLError) -> str:
    """What is wrong and where, without the lines of the file: they may hold a secret."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return str(error).splitlines()[0]
    line, column = error.problem_mark.line + 1, error.problem_mark.column + 1
    return ", ".join(filter(None, (error.context, error.problem, f"line {line}, column {column}")))


def _from_environment(environment: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    """DRIFTGATE_LIMITS__MAX_IN_FLIGHT=10 → {"limits": {"max_in_flight": "10"}}; models are separated by commas."""
    settings: dict[str, Any] = {}
    for name, value in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in NOT_SETTINGS:
            continue
        path = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        fields: Mapping[str, Any] = Config.model_fields
        if path[0] not in fields:
            problems.append(f"{name}: there is no setting of this name; known: {', '.join(fields)}")
            continue
        _merge(settings, _nest(path, value.split(",") if path == ["models"] else value))
    return settings


def _nest(path: list[str], value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    nested: dict[str, Any] = value
    return nested


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = value


def _explained(error: ValidationError) -> list[str]:
    return [line for item in error.errors(include_url=False) for line in _explain(item).splitlines()]


def _explain(item: Any) -> str:
    path = ".".join(str(part) for part in item["loc"])
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "missing":
        return f"{path}: is required (--{path.replace('_', '-')}, {ENVIRONMENT_PREFIX}{path.upper()} or the file)"
    if item["type"] == "extra_forbidden":
        return f"{path}: there is no such setting"
    if not path:
        return str(message)
    text = f"{path}: {message[:1].lower()}{message[1:]}"
    if path == "telemetry" or path.startswith("telemetry.otel"):  # headers with credentials may stand there
        return text
    return f"{text}, got {repr(item['input'])[:200]}"
