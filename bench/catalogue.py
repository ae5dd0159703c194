"""The servers compared, in the table's order."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bench.servers import HOST
from gateway.process import WORKER_ENVIRONMENT


@dataclass(frozen=True, slots=True)
class Site:
    """What one start of a server may use; `folder` is empty and its own.

    `otlp_port` and `otlp_http_port`: the receiver's, for OTLP over gRPC and over HTTP, 0 for none.
    """

    port: int
    http_port: int
    admin_port: int
    repository: Path
    model_file: Path
    folder: Path
    otlp_port: int = 0
    otlp_http_port: int = 0


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """`echoes`: it answers a request with the request; `has_readyz`: it says over HTTP, at `ready_path`, when it is
    ready. `set_up`: writes what it is started with into its site's folder.

    `exports`: it sends telemetry to the receiver, and says over HTTP how many requests it has recorded, as `records`
    do; `counts_drops`: and how many spans were dropped; `exports_metrics`, `exports_logs`: these are part of it.
    `spans_of_request`: how many spans a request gives, where the receiver is to have all of them. `routes`: it serves
    the repository whose model has a canary.
    """

    key: str
    title: str
    command: Callable[[Site], list[str]]
    echoes: bool = False
    has_readyz: bool = False
    ready_path: str = "/readyz"
    set_up: Callable[[Site], None] | None = None
    exports: bool = False
    records: Literal["driftgate", "triton"] = "driftgate"
    counts_drops: bool = False
    exports_metrics: bool = True
    exports_logs: bool = False
    spans_of_request: int = 1
    routes: bool = False
    environment: dict[str, str] = field(default_factory=dict)


def module_command(name: str, *, with_model: bool = False) -> Callable[[Site], list[str]]:
    def command(site: Site) -> list[str]:
        model = [str(site.model_file)] if with_model else []
        return [sys.executable, "-m", f"bench.servers.{name}", str(site.port), *model]

    return command


def _driftgate(site: Site) -> list[str]:
    # The module, not the installed script: what is measured is this tree.
    command = [sys.executable, "-m", "gateway", "serve", "--workers", "1"]
    command += ["--models", str(site.repository), "--state-dir", str(site.folder / "state")]
    command += ["--grpc", f"{HOST}:{site.port}"]
    command += ["--http", f"{HOST}:{site.http_port}"]
    command += ["--admin", f"{HOST}:{site.admin_port}"]
    return command


def _sdk_gateway(site: Site) -> list[str]:
    return [*module_command("sdk_gateway")(site), str(site.http_port), str(site.model_file)]


QUEUE = {"DRIFTGATE_TRANSPORT": "queue"}
EXPORT_METRICS_OFTEN = {"OTEL_METRIC_EXPORT_INTERVAL": "2000"}
"""Milliseconds. By default it is a minute, and no load would hold an export; so each of two seconds holds one."""

AIO_ECHO = ServerSpec("aio-echo", "grpc.aio echo", module_command("aio_echo"), echoes=True)
SYNC_ECHO = ServerSpec("sync-echo", "grpc.server echo", module_command("sync_echo"), echoes=True)
AIO_ONNX = ServerSpec("aio-onnx", "grpc.aio + onnxruntime", module_command("aio_onnx", with_model=True))
SYNC_ONNX = ServerSpec("sync-onnx", "grpc.server + onnxruntime", module_command("sync_onnx", with_model=True))
QUEUE_ECHO = ServerSpec("queue-echo", "completion-queue echo", module_command("queue_echo"), echoes=True)
POLLED_ECHO = ServerSpec(
    "queue-echo-polled",
    "completion-queue echo, polled",
    module_command("queue_echo"),
    echoes=True,
    environment=WORKER_ENVIRONMENT,
)
"""With the workers' own setting of gRPC: without its event engine, the thread that polls reads the sockets too."""


DRIFTGATE = ServerSpec("driftgate", "driftgate, queue", _driftgate, has_readyz=True, environment=QUEUE)
CANARY = ServerSpec(
    "driftgate-canary", "driftgate, 90/10 canary", _driftgate, has_readyz=True, routes=True, environment=QUEUE
)
UNOBSERVED = ServerSpec(
    "driftgate-off",
    "driftgate, all off",
    _driftgate,
    has_readyz=True,
    environment=QUEUE | {"DRIFTGATE_TELEMETRY__ENABLED": "false", "DRIFTGATE_STATISTICS__ENABLED": "false"},
)
UNMEASURED = ServerSpec(
    "driftgate-unmeasured",
    "driftgate, statistics off",
    _driftgate,
    has_readyz=True,
    environment=QUEUE | {"DRIFTGATE_STATISTICS__ENABLED": "false"},
)
EXPORTING = ServerSpec(
    "driftgate-otlp",
    "driftgate, all exported",
    _driftgate,
    has_readyz=True,
    exports=True,
    counts_drops=True,
    exports_logs=True,
    environment=QUEUE | EXPORT_METRICS_OFTEN,
)
ALL_ON = ServerSpec(
    "driftgate-all",
    "driftgate, all on",
    _driftgate,
    has_readyz=True,
    exports=True,
    counts_drops=True,
    exports_logs=True,
    routes=True,
    environment=QUEUE | EXPORT_METRICS_OFTEN,
)
"""Traces of every request, metrics and logs exported, every value measured and compared with a profile, a canary."""

SDK = ServerSpec(
    "driftgate-sdk",
    "its worker, stock OTel SDK",
    _sdk_gateway,
    has_readyz=True,
    exports=True,
    environment=WORKER_ENVIRONMENT | EXPORT_METRICS_OFTEN,
)

SERVERS = (
    AIO_ECHO,
    SYNC_ECHO,
    AIO_ONNX,
    SYNC_ONNX,
    DRIFTGATE,
    CANARY,
    ServerSpec(
        "driftgate-public",
        "driftgate, public API",
        _driftgate,
        has_readyz=True,
        environment={"DRIFTGATE_TRANSPORT": "public"},
    ),
    QUEUE_ECHO,
    POLLED_ECHO,
    UNOBSERVED,
    UNMEASURED,
    EXPORTING,
    ALL_ON,
    SDK,
)
OBSERVED = (UNOBSERVED, UNMEASURED, DRIFTGATE, EXPORTING, ALL_ON, SDK)
"""Alike but for what they record, export and route: what that costs is the difference to the first."""
