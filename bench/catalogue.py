"""The servers compared, in the table's order."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.servers import HOST


@dataclass(frozen=True, slots=True)
class Site:
    """What one start of a server may use; `folder` is empty and its own."""

    port: int
    http_port: int
    admin_port: int
    repository: Path
    model_file: Path
    folder: Path


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """`echoes`: it answers a request with the request; `has_readyz`: it says over HTTP when it is ready."""

    key: str
    title: str
    command: Callable[[Site], list[str]]
    echoes: bool = False
    has_readyz: bool = False
    environment: dict[str, str] = field(default_factory=dict)


def _module(name: str, *, with_model: bool = False) -> Callable[[Site], list[str]]:
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


AIO_ECHO = ServerSpec("aio-echo", "grpc.aio echo", _module("aio_echo"), echoes=True)
SYNC_ECHO = ServerSpec("sync-echo", "grpc.server echo", _module("sync_echo"), echoes=True)

SERVERS = (
    AIO_ECHO,
    SYNC_ECHO,
    ServerSpec("aio-onnx", "grpc.aio + onnxruntime", _module("aio_onnx", with_model=True)),
    ServerSpec(
        "driftgate",
        "driftgate, queue",
        _driftgate,
        has_readyz=True,
        environment={"DRIFTGATE_TRANSPORT": "queue"},
    ),
    ServerSpec(
        "driftgate-public",
        "driftgate, public API",
        _driftgate,
        has_readyz=True,
        environment={"DRIFTGATE_TRANSPORT": "public"},
    ),
    ServerSpec("queue-echo", "completion-queue echo", _module("queue_echo"), echoes=True),
)
