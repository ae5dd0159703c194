"""PEP 517 backend: setuptools, with the gRPC stubs generated from protos/ before every build.

The stubs land in gateway/wire/pb/ (ignored by git). Messages of package `inference` are put into a descriptor pool of
their own, because tritonclient registers the same names in protobuf's default pool and both must fit in one process.
"""

from __future__ import annotations

import re
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

from setuptools import build_meta as _setuptools
from setuptools.build_meta import *  # noqa: F403  (a backend offers every hook of the one it wraps)

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PACKAGE = "gateway.wire.pb"
TARGET = ROOT / "gateway" / "wire" / "pb"


def generate() -> None:
    """Writes message modules, type stubs and service modules for every .proto below protos/."""
    from grpc_tools import protoc

    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    well_known = resources.files("grpc_tools") / "_proto"
    arguments = [f"-I{PROTOS}", f"-I{well_known}"]
    arguments += [f"--{kind}_out={TARGET}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", *arguments, *sources]) != 0:
        raise RuntimeError(f"protoc failed on {', '.join(sources)}")
    for folder in [TARGET, *(path for path in TARGET.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").write_text('"""Generated from protos/ at build; do not edit."""\n')
    own_packages = "|".join(sorted({Path(source).parts[0] for source in sources}))
    for module in [*TARGET.rglob("*_pb2*.py"), *TARGET.rglob("*_pb2.pyi")]:
        text = module.read_text()
        text = re.sub(rf"^from ({own_packages})([. ])", rf"from {PACKAGE}.\1\2", text, flags=re.MULTILINE)
        if "inference" in module.relative_to(TARGET).parts and module.suffix == ".py":
            text = text.replace("_descriptor_pool.Default()", "_private_pool.POOL")
            text = text.replace(
                "from google.protobuf import descriptor_pool as _descriptor_pool",
                "from gateway.wire import pool as _private_pool",
            )
        module.write_text(text)


def build_wheel(*args: Any, **kwargs: Any) -> str:
    generate()
    return str(_setuptools.build_wheel(*args, **kwargs))


def build_editable(*args: Any, **kwargs: Any) -> str:
    generate()
    return str(_setuptools.build_editable(*args, **kwargs))


if __name__ == "__main__":
    generate()
