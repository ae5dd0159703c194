"""What a result is of: the machine, the code, and the versions of what ran."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil  # type: ignore[import-untyped]

PACKAGES = ("grpcio", "protobuf", "onnxruntime", "numpy", "numba", "opentelemetry-sdk")
ROOT = Path(__file__).resolve().parent.parent
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def machine() -> dict[str, str | int | None]:
    """`governor`: how the kernel sets the processor's frequency; None where it does not say, as in most guests."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": int(psutil.virtual_memory().total),
        "kernel": platform.release(),
        "governor": GOVERNOR.read_text().strip() if GOVERNOR.exists() else None,
    }


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def code() -> tuple[str, bool]:
    """The commit of this tree, and whether the files are those of it; ("", False) where git does not know."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit, not _git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return "", False


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
