"""Where one signal goes and how: OTEL_EXPORTER_OTLP_* and OTEL_EXPORTER_OTLP_{TRACES,METRICS,LOGS}_*.

By "OpenTelemetry Protocol Exporter" of the specification. Where it leaves a choice:

- Protocol: when no variable names one, `grpc`, as OpenTelemetry's SDK for Python has it (the specification recommends
  http/protobuf), but http/protobuf where the endpoint's port is 4318, which is reserved for it.
- A signal's own headers replace the general ones, they are not added to them.
- An endpoint without a scheme (gRPC only) has TLS unless OTEL_EXPORTER_OTLP_INSECURE is true.
- A gRPC endpoint without a port: 80 for http, 443 for https, 4317 without a scheme.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal
from urllib.parse import unquote, urlsplit

from gateway.telemetry.variables import Variables, shown

Signal = Literal["traces", "metrics", "logs"]
SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")
Protocol = Literal["grpc", "http/protobuf"]
Compression = Literal["none", "gzip"]

GRPC_PORT, HTTP_PORT = 4317, 4318
SCHEME_PORTS: Mapping[str, int] = MappingProxyType({"http": 80, "https": 443})
DEFAULT_TIMEOUT_SECONDS = 10.0
OPTIONS = (
    "ENDPOINT", "PROTOCOL", "HEADERS", "TIMEOUT", "COMPRESSION", "INSECURE", "CERTIFICATE", "CLIENT_KEY",
    "CLIENT_CERTIFICATE",
)  # fmt: skip
"""After OTEL_EXPORTER_OTLP_, and after OTEL_EXPORTER_OTLP_{TRACES,METRICS,LOGS}_."""

WITH_SCHEME = re.compile(r"(?P<scheme>[a-z][a-z0-9+.\-]*)://", re.IGNORECASE)
HOST_AND_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^:/\[\]]+)(?::(?P<port>[0-9]{1,5}))?")
TARGET = re.compile(r"(?:dns|unix|unix-abstract|ipv4|ipv6|vsock|xds|passthrough):", re.IGNORECASE)
"""Schemes of gRPC's own names; what follows is gRPC's to understand."""

GRPC_KEY = re.compile(r"(?!grpc-)[0-9a-z_.\-]+")
HTTP_KEY = re.compile(r"[0-9a-z!#$%&'*+.^_`|~\-]+")
HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
RESERVED_KEYS = frozenset({
    "connection", "content-encoding", "content-length", "content-type", "host", "te", "transfer-encoding", "user-agent",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class SignalSettings:
    """One signal's destination. `endpoint`: a gRPC target such as `collector:4317`, or the whole URL for HTTP.

    `insecure`: plain text, no TLS. `timeout_seconds` bounds one export, all its tries and waits together.
    `certificate`: whom to trust, instead of the system's authorities; `client_key` and `client_certificate` for mTLS.
    All three are PEM files that could be read. `headers`: lower-case names, decoded values.
    """

    endpoint: str
    protocol: Protocol
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # they hold credentials
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    compression: Compression = "none"
    insecure: bool = True
    certificate: Path | None = None
    client_key: Path | None = None
    client_certificate: Path | None = None

    @property
    def shown(self) -> str:
        """The endpoint for log lines: a query may hold a key."""
        return self.endpoint.split("?", 1)[0]


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """An endpoint taken apart. `scheme` "": none. `host`: a gRPC name as it is, where `port` is None without scheme."""

    name: str
    scheme: str
    host: str
    port: int | None
    path: str
    query: str


def variable_names(signal: Signal, option: str) -> tuple[str, str]:
    """The signal's own variable, which goes first, and the general one."""
    return f"OTEL_EXPORTER_OTLP_{signal.upper()}_{option}", f"OTEL_EXPORTER_OTLP_{option}"


def has_endpoint(variables: Variables, signal: Signal) -> bool:
    return variables.text(*variable_names(signal, "ENDPOINT"))[1] != ""


def read_signal(variables: Variables, signal: Signal) -> SignalSettings | None:
    """None where endpoint or protocol are wrong; `variables` holds the problems, also those of all else."""
    destination = _read_destination(variables, signal)
    protocol, address, insecure = destination or ("http/protobuf", "", False)
    timeout = variables.timeout(*variable_names(signal, "TIMEOUT"), default=DEFAULT_TIMEOUT_SECONDS)
    compression = variables.choice(*variable_names(signal, "COMPRESSION"), allowed=("gzip", "none"), default="none")
    certificate, key, chain = (
        _readable(variables, *variable_names(signal, option), used=not insecure)
        for option in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
    )
    if (key is None) != (chain is None):
        missing, present = ("CLIENT_KEY", "CLIENT_CERTIFICATE") if key is None else ("CLIENT_CERTIFICATE", "CLIENT_KEY")
        there = variables.text(*variable_names(signal, present))[0]
        variables.problem(there, f"expected {variable_names(signal, missing)[1]} beside it: mTLS needs both")
    headers = _read_headers(variables, signal, protocol)
    if destination is None:
        return None
    return SignalSettings(
        endpoint=address,
        protocol=protocol,
        headers=headers,
        timeout_seconds=timeout,
        compression="gzip" if compression == "gzip" else "none",
        insecure=insecure,
        certificate=certificate,
        client_key=key,
        client_certificate=chain,
    )


def _read_destination(variables: Variables, signal: Signal) -> tuple[Protocol, str, bool] | None:
    """Protocol, endpoint as in SignalSettings, and whether it is plain text; None: `variables` has the problem."""
    given = _read_protocol(variables, signal)
    name, text = variables.text(*variable_names(signal, "ENDPOINT"))
    port = HTTP_PORT if given == "http/protobuf" else GRPC_PORT
    endpoint = _take_apart(variables, name, text or f"http://localhost:{port}")
    if given is None or endpoint is None:
        return None
    protocol: Protocol = given or ("http/protobuf" if endpoint.port == HTTP_PORT else "grpc")
    if protocol == "grpc":
        return protocol, *_grpc_target(variables, endpoint, signal)
    if endpoint.scheme:
        own = bool(text) and name == variable_names(signal, "ENDPOINT")[0]
        return protocol, _url(endpoint, "" if own else f"/v1/{signal}"), endpoint.scheme == "http"
    variables.problem(name, f"expected a URL, as http://collector:4318, for http/protobuf, got {shown(text)}")
    return None


def _read_protocol(variables: Variables, signal: Signal) -> Protocol | Literal[""] | None:
    """None: a problem. The empty string: nothing is said."""
    name, value = variables.text(*variable_names(signal, "PROTOCOL"))
    match value.lower():
        case "" | "grpc" | "http/protobuf" as protocol:
            return protocol
    variables.problem(name, f"expected grpc or http/protobuf, got {shown(value)}")
    return None


def _take_apart(variables: Variables, name: str, text: str) -> _Endpoint | None:
    problem = f"expected a URL, as http://collector:4317, or HOST:PORT, got {shown(text)}"
    scheme = WITH_SCHEME.match(text)
    if re.search(r"\s", text) is None and TARGET.match(text):
        return _Endpoint(name, "", text, None, "", "")
    if scheme is None:
        match = HOST_AND_PORT.fullmatch(text)
        if match is None or re.search(r"[\s@?#]", text) or not 0 < int(match["port"] or GRPC_PORT) < 65536:
            variables.problem(name, problem)
            return None
        host = text if match["port"] is None else text[: match.start("port") - 1]
        return _Endpoint(name, "", host, int(match["port"] or GRPC_PORT), "", "")
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError:  # a port that is none, or brackets around what is no address
        host, port, url = "", None, urlsplit("")
    if scheme["scheme"].lower() not in SCHEME_PORTS or not host or port == 0 or not text.isprintable() or " " in text:
        variables.problem(name, problem)
        return None
    if url.username is not None or url.password is not None:
        variables.problem(name, f"expected no user in the URL, got {shown(text)}; credentials go into headers")
        return None
    host = f"[{host}]" if ":" in host else host
    return _Endpoint(name, url.scheme, host, port or SCHEME_PORTS[url.scheme], url.path, url.query)


def _grpc_target(variables: Variables, endpoint: _Endpoint, signal: Signal) -> tuple[str, bool]:
    """The target, and whether it is plain text."""
    target = endpoint.host if endpoint.port is None else f"{endpoint.host}:{endpoint.port}"
    if endpoint.scheme:
        if endpoint.path.strip("/"):
            hint = "for HTTP set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
            variables.warn(endpoint.name, f"the path {shown(endpoint.path)} is not used by gRPC; {hint}")
        return target, endpoint.scheme == "http"
    names = variable_names(signal, "INSECURE")
    if not variables.text(*names)[1]:
        hint = f"for plain text begin it with http:// or set {names[1]}=true"
        variables.warn(endpoint.name, f"{target} has no scheme and is reached through TLS; {hint}")
    return target, variables.flag(*names)


def _url(endpoint: _Endpoint, more: str) -> str:
    """`more` is the signal's path below a general endpoint; a signal's own endpoint is used as it is."""
    path = endpoint.path.rstrip("/") + more if more else endpoint.path or "/"
    query = f"?{endpoint.query}" if endpoint.query else ""
    return f"{endpoint.scheme}://{endpoint.host}:{endpoint.port}{path}{query}"


def _read_headers(variables: Variables, signal: Signal, protocol: Protocol) -> tuple[tuple[str, str], ...]:
    """`key=value,key=value`, percent-encoded as in W3C Baggage. No message shows a member: it may be a credential."""
    name, text = variables.text(*variable_names(signal, "HEADERS"))
    headers: dict[str, str] = {}
    for number, member in enumerate(text.split(","), 1):
        if not member.strip():
            continue
        key, equals, value = member.partition("=")
        try:
            key, value = (unquote(part.strip(), errors="strict") for part in (key, value))
        except UnicodeDecodeError:
            variables.problem(name, f"member {number}: expected percent-encoded UTF-8")
            continue
        key, value = key.strip().lower(), value.strip()
        if not equals:
            variables.problem(name, f"member {number}: expected key=value, got no =")
        elif not _may_be_key(key, protocol):
            variables.problem(
                name, f"member {number}: expected a header's name before =, one that {protocol} leaves free"
            )
        elif not HEADER_VALUE.fullmatch(value):
            variables.problem(name, f"member {number}: expected a value that is printable ASCII once decoded")
        else:
            headers[key] = value
    return tuple(headers.items())


def _may_be_key(key: str, protocol: Protocol) -> bool:
    if protocol == "grpc":
        return GRPC_KEY.fullmatch(key) is not None and not key.endswith("-bin") and key not in RESERVED_KEYS
    return HTTP_KEY.fullmatch(key) is not None and key not in RESERVED_KEYS


def _readable(variables: Variables, *names: str, used: bool) -> Path | None:
    name, value = variables.text(*names)
    if not value:
        return None
    if not used:
        variables.warn(name, "is not used where the endpoint is plain text; for TLS its scheme is https")
        return None
    path = Path(value)
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        variables.problem(name, f"expected a PEM file that can be read, got {shown(value)}: {reason}")
        return None
    if b"-----BEGIN " not in content:
        variables.problem(name, f"expected a PEM file, which holds -----BEGIN, got {shown(value)}")
        return None
    return path
