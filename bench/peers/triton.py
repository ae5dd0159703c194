"""Triton on the CPU: its server with the Python backend, which runs ONNX Runtime on what dynamic batching gives it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from bench.catalogue import ServerSpec, Site
from bench.model import MODEL_NAME
from bench.peers.install import Home, NotInstalled, installed
from bench.servers import HOST

RELEASE = "24.10"
"""Of the server in the wheel, whose log calls it 2.51.0."""

PYTHONS = ((3, 11), (3, 12))
"""Which the wheel has a stub for, driftgate runs on, and NumPy 1 has wheels for."""

TRACED_URL = "opentelemetry,url=http://{host}:{port}/v1/traces"

CONFIG = """backend: "python"
max_batch_size: {max_batch}
input [{{ name: "X" data_type: TYPE_FP32 dims: [30] }}]
output [
  {{ name: "label" data_type: TYPE_INT64 dims: [1] }},
  {{ name: "probabilities" data_type: TYPE_FP32 dims: [2] }}
]
instance_group [{{ kind: KIND_CPU count: {instances} }}]
parameters {{ key: "model_file" value: {{ string_value: "{model_file}" }} }}
{batching}
"""
"""Triton has a batch's axis in front of each shape, so a label a row is [rows, 1]."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`preferred`: sizes of batches for which Triton waits; `delay_us`: for how long. `batching`: of requests at all.

    `pool`: --grpc-infer-allocation-pool-size, as many as requests are in flight, None for Triton's default of 8.
    `queue`: how many spans wait for their export, None for the default of 2,048.
    """

    batching: bool = True
    instances: int = 1
    delay_us: int = 0
    preferred: tuple[int, ...] = ()
    max_batch: int = 64
    pool: int | None = 64
    queue: int | None = None


def home() -> Home:
    """Raises NotInstalled."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise NotInstalled(f"nvidia-pytriton has no wheel for {sys.platform} on {platform.machine()}")
    if sys.version_info[:2] not in PYTHONS:
        raise NotInstalled(
            "Triton's Python backend is had for Python 3.11 and 3.12; this is " + platform.python_version()
        )
    return installed("triton", _finish)


def _finish(home: Home) -> None:
    """Put the stub of this Python beside the backend, which looks for it nowhere else."""
    server = home.packages / "pytriton" / "tritonserver"
    stub = server / "python_backend_stubs" / f"3.{sys.version_info.minor}" / "triton_python_backend_stub"
    target = server / "backends" / "python" / stub.name
    shutil.copyfile(stub, target)
    target.chmod(0o755)
    for program in (server / "bin" / "tritonserver", target):
        environment = os.environ | {"LD_LIBRARY_PATH": _libraries(home)}
        found = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False, env=environment)
        if missing := [line.split()[0] for line in found.stdout.splitlines() if "not found" in line]:
            raise NotInstalled(f"{program.name} wants libraries that are not here: {', '.join(missing)}")


def config(settings: Settings, model_file: Path) -> str:
    batching = ""
    if settings.batching:
        sizes = f"preferred_batch_size: {list(settings.preferred)} " if settings.preferred else ""
        batching = f"dynamic_batching {{ {sizes}max_queue_delay_microseconds: {settings.delay_us} }}"
    return CONFIG.format(
        max_batch=settings.max_batch, instances=settings.instances, model_file=model_file, batching=batching
    )


def spec(home: Home, key: str, title: str, settings: Settings, *, traced: bool = False) -> ServerSpec:
    server = home.packages / "pytriton" / "tritonserver"

    def set_up(site: Site) -> None:
        version = site.folder / "repository" / MODEL_NAME / "1"
        version.mkdir(parents=True)
        shutil.copyfile(Path(__file__).with_name("triton_model.py"), version / "model.py")
        (version.parent / "config.pbtxt").write_text(config(settings, site.model_file))

    def command(site: Site) -> list[str]:
        words = [str(server / "bin" / "tritonserver"), "--backend-directory", str(server / "backends")]
        words += ["--model-repository", str(site.folder / "repository")]
        words += ["--grpc-address", HOST, "--grpc-port", str(site.port)]
        words += ["--http-address", HOST, "--http-port", str(site.http_port), "--http-thread-count", "1"]
        words += ["--allow-metrics", "false"]
        if settings.pool is not None:
            words += ["--grpc-infer-allocation-pool-size", str(settings.pool)]
        return words + (_tracing(site, settings) if traced else [])

    return ServerSpec(
        key,
        title,
        command,
        has_readyz=True,
        ready_path="/v2/health/ready",
        set_up=set_up,
        exports=traced,
        records="triton",
        exports_metrics=False,
        spans_of_request=3,  # the call, the model's part, and its computing
        environment={
            # The stub's Python is an embedded one: it finds its packages by the `python3` that it meets first.
            "PATH": f"{home.programs}{os.pathsep}{os.environ.get('PATH', '')}",
            "LD_LIBRARY_PATH": _libraries(home),
        },
    )


def _libraries(home: Home) -> str:
    """The wheel's own, then this Python's: the stub wants its libpython, which may not be where the system looks."""
    own = [str(home.packages / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR") or ""]
    return os.pathsep.join(path for path in (*own, os.environ.get("LD_LIBRARY_PATH", "")) if path)


def _tracing(site: Site, settings: Settings) -> list[str]:
    words = ["mode=opentelemetry", "rate=1", "level=TIMESTAMPS"]
    words.append(TRACED_URL.format(host=HOST, port=site.otlp_http_port))
    if settings.queue is not None:
        words.append(f"opentelemetry,bsp_max_queue_size={settings.queue}")
    return [part for word in words for part in ("--trace-config", word)]
