"""A worker's pipeline, catalog and version manager, wired as the worker does it, one step at a time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from zoo import versioned, write_version

from gateway.errors import Status
from gateway.messages import Desired, ModelOrder, VersionOrder
from gateway.routing.table import RouteTable
from gateway.telemetry.context import Trace
from gateway.wire.pb.inference import grpc_service_pb2 as pb
from gateway.worker.catalog import Catalog
from gateway.worker.copies import Copies
from gateway.worker.pipeline import Pipeline
from gateway.worker.target import Target
from gateway.worker.transport.interface import Headers, Metadata
from runtime.shm.statistics import StatisticsReader, StatisticsWriter
from runtime.shm.statistics_layout import create_page
from runtime.versions.manager import Instance, VersionManager
from runtime.versions.policy import InstanceKey
from runtime.versions.state import VersionState
from runtime.versions.version import LoadedVersion


class Worker:
    """`seen`: at each change of model m's version 1, its state and whether it could be routed to."""

    def __init__(self, max_in_flight: int = 100, copies: Copies | None = None) -> None:
        page = create_page("statistics")
        self.seen: list[tuple[VersionState, bool]] = []
        self.statistics = StatisticsReader([page])
        self.writer = StatisticsWriter(page)
        self.pipeline = Pipeline(max_in_flight, self.writer.set_in_flight)
        self.catalog = Catalog(0, self._on_table, copies)
        self.manager = VersionManager(self._make_target, self._on_change)

    @property
    def table(self) -> RouteTable[Target]:
        return self.pipeline.table

    def _on_table(self, table: RouteTable[Target]) -> None:
        self.pipeline.table = table

    def _make_target(self, key: InstanceKey, version: LoadedVersion) -> Target:
        target = Target(version, self.writer.slot(key.model, key.version), self.pipeline.done)
        self.catalog.add_target(key, target)
        return target

    def _on_change(self, instance: Instance) -> None:
        self.catalog.note(instance)
        routed = self.table.find("m", "1")
        self.seen.append((instance.state, routed is not None and instance.loaded is routed.version))

    def order(self, *models: ModelOrder) -> None:
        """Takes up an order and does all there is to do for it."""
        self.manager.set_desired(self.catalog.set_desired(Desired(revision=1, models=models)))
        while self.manager.tick():
            pass

    def close(self) -> None:
        """Unloads everything, when the last request has been answered."""
        self.order()
        while self.manager.instances():
            self.manager.tick()

    def found(self, version: str = "") -> int | None:
        target = self.table.find("m", version)
        return target.version.version if target is not None else None

    def why_not(self, version: str = "") -> str:
        return self.table.why_not("m", version).message


def ordered(root: Path, version: int, generation: int = 1, model: bytes = b"", **settings: Any) -> VersionOrder:
    """Version `version` of model m: what is in its folder, `model`, or y = x + version."""
    folder = root / "m" / str(version)
    if not folder.exists():
        write_version(root, "m", version, model or versioned(version))
    return VersionOrder(
        version=version, digest="sha256:0", generation=generation, folder=str(folder), model_filename="model.onnx",
        file_bytes=1, manifest=settings,
    )  # fmt: skip


class Asked:
    """A call that keeps what its client would get: `answers` and `statuses` together never hold more than one."""

    method = "/inference.GRPCInferenceService/ModelInfer"
    metadata: Metadata = ()
    authority = "test:1"
    streamed = False
    trace: Trace | None = None

    def __init__(self, deadline_seconds: float = float("inf")) -> None:
        self.received_ns = time.monotonic_ns()
        self.deadline_seconds = deadline_seconds
        self.cancelled = False
        self.watched = False
        self.over = threading.Event()
        self.headers: Headers | None = None
        self.answers: list[pb.ModelInferResponse] = []
        self.statuses: list[Status] = []

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    peer_key = peer

    def watch(self) -> None:
        self.watched = True

    def answer(self, payload: bytes, headers: Headers | None = None) -> None:
        self.headers = headers
        self.answers.append(pb.ModelInferResponse.FromString(payload))
        self.over.set()

    def refuse(self, status: Status) -> None:
        self.statuses.append(status)
        self.over.set()
