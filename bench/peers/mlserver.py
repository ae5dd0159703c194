"""MLServer with a runtime of our own for ONNX Runtime: one process, V2 over gRPC."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from bench.catalogue import ServerSpec, Site
from bench.model import MODEL_NAME
from bench.peers.install import Home, installed
from bench.servers import HOST


@dataclass(frozen=True, slots=True)
class Settings:
    """MLServer's adaptive batching: 1 is off."""

    max_batch: int = 1
    max_batch_seconds: float = 0.0


def home() -> Home:
    """Raises NotInstalled."""
    return installed("mlserver")


def spec(home: Home, key: str, title: str, settings: Settings) -> ServerSpec:
    def set_up(site: Site) -> None:
        server = {
            "debug": False,  # else every request is logged
            "host": HOST,
            "http_port": site.http_port,
            "grpc_port": site.port,
            "metrics_endpoint": None,
            "parallel_workers": 0,  # inference in the server's own process: another would share the one core with it
        }
        model = {
            "name": MODEL_NAME,
            "implementation": "bench_runtime.OnnxRuntime",
            "max_batch_size": settings.max_batch,
            "max_batch_time": settings.max_batch_seconds,
            "parameters": {"uri": str(site.model_file), "version": "1"},
        }
        (site.folder / "settings.json").write_text(json.dumps(server))
        (site.folder / "model-settings.json").write_text(json.dumps(model))
        shutil.copyfile(Path(__file__).with_name("mlserver_runtime.py"), site.folder / "bench_runtime.py")

    def command(site: Site) -> list[str]:
        return [str(home.programs / "mlserver"), "start", str(site.folder)]

    return ServerSpec(key, title, command, has_readyz=True, ready_path="/v2/health/ready", set_up=set_up)
