"""Memory comes back: after reloads of a large model, and after loads that fail.

DRIFTGATE_RELOADS sets how many reloads there are. The figures are printed: see them with -s.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import psutil
import pytest
from support.admin import Admin, Refused, admin_of, until
from support.gateway import Gateway
from support.predict import Client, client_of
from zoo import versioned, versioned_big, write_version

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

RELOADS = int(os.environ.get("DRIFTGATE_RELOADS", "20"))
WARM_RELOADS = 5
BIG_MEGABYTES = 50
GROWTH = 1.10
MEBIBYTE = 2**20
FAILED_LOADS = 10
FAILED_LOADS_MAY_KEEP = 8 * MEBIBYTE


@dataclass(frozen=True, slots=True)
class Served:
    models: Path
    gateway: Gateway
    admin: Admin
    client: Client

    def memory(self) -> int:
        """Resident bytes of the worker."""
        (worker,) = self.gateway.children("worker")
        return int(worker.memory_info().rss)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("memory")
    models = folder / "models"
    write_version(models, "big", 1, versioned_big(1.0, BIG_MEGABYTES))
    write_version(models, "victim", 1, versioned(7.0))
    with (
        Gateway(models, folder / "state") as gateway,
        admin_of(gateway.admin) as admin,
        client_of(gateway.grpc) as client,
    ):
        yield Served(models, gateway, admin, client)


def settled(served: Served, model: str) -> None:
    """Until the version that was replaced is out of memory: its leases and its drain are over."""
    count = sum(version.state != 0 for version in served.admin.model(model).versions)
    until(lambda: len(_reports(served, model)) == count, f"only {model}'s served versions are in memory")


def _reports(served: Served, model: str) -> list[tuple[int, str]]:
    """What the worker holds, as a watch begins with it."""
    call = served.admin.watch(model)
    served.admin.status()
    try:
        return [(event.version, event.digest) for event in _initial(call)]
    finally:
        call.cancel()
