"""The data plane of one worker in this process, over a real transport: the test gives its orders, as control would."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from shm_records import Desk, desk
from zoo import versioned, write_version

from gateway.config import Limits
from gateway.messages import Desired, ModelOrder, VersionOrder
from gateway.routing.table import RouteTable
from gateway.telemetry.recorder import Recorder, Subject
from gateway.worker.catalog import Catalog, health_statuses
from gateway.worker.pipeline import Pipeline
from gateway.worker.streams import InferStreams
from gateway.worker.target import Target
from gateway.worker.transport.choose import make_transport
from gateway.worker.transport.interface import Methods, TransportSettings
from runtime.batching.request import Request
from runtime.shm.publish import KEEP_ALL
from runtime.shm.ring import RingReader
from runtime.shm.statistics import StatisticsWriter
from runtime.shm.statistics_layout import create_page
from runtime.versions.manager import VersionManager
from runtime.versions.policy import InstanceKey
from runtime.versions.version import LoadedVersion

INFER, STREAM = (f"/inference.GRPCInferenceService/{name}" for name in ("ModelInfer", "ModelStreamInfer"))
GRACE_SECONDS = 5.0
LABELS = {"stable": 1, "canary": 2, "broken": 3, "lost": 9}
"""Of model m: 1 and 2 are served, 3 never loads, there is no 9."""


class Told(Recorder):
    """A recorder that can be waited for: a request is recorded a moment after its reply."""

    def __init__(self, at: Desk) -> None:
        super().__init__(at.ring, at.series, None, KEEP_ALL)
        self._more = threading.Condition()
        self._count = 0

    def answered(self, subject: Subject, requests: Sequence[Request], *rest: Any) -> None:
        super().answered(subject, requests, *rest)
        self._add(len(requests))

    def refused(self, *about: Any) -> None:
        super().refused(*about)
        self._add(1)

    def _add(self, count: int) -> None:
        with self._more:
            self._count += count
            self._more.notify_all()

    def wait_for(self, count: int) -> None:
        """Until so many requests have been recorded in all."""
        with self._more:
            assert self._more.wait_for(lambda: self._count >= count, GRACE_SECONDS), self._count
            assert self._count == count


class RoutedWorker:
    """Serves model m. `address`: of its port."""

    def __init__(self, transport: str, root: Path, at: Desk) -> None:
        limits = Limits()
        self._root = root
        self._desk = at
        self._ring = RingReader(at.ring)
        self._writer = StatisticsWriter(create_page("routed"))
        self._recorder = Told(at)
        self.pipeline = Pipeline(limits.max_in_flight, self._writer.set_in_flight, self._recorder)
        self._catalog = Catalog(0, self._on_table)
        self._manager = VersionManager(self._make_target, self._catalog.note)
        self._transport = make_transport(
            transport,
            TransportSettings(
                address="127.0.0.1:0",
                max_message_bytes=limits.max_message_bytes,
                max_metadata_bytes=limits.max_metadata_bytes,
                max_concurrent_streams=limits.max_concurrent_streams,
                max_connection_age_seconds=0,
                max_connection_idle_seconds=0,
            ),
        )
        streams = {STREAM: InferStreams().open}
        port = self._transport.start(Methods(INFER, self.pipeline.infer, {}, streams, self.pipeline.empty))
        self.address = f"127.0.0.1:{port}"

    @property
    def table(self) -> RouteTable[Target]:
        return self.pipeline.table

    def _on_table(self, table: RouteTable[Target]) -> None:
        self.pipeline.table = table

    def _make_target(self, key: InstanceKey, version: LoadedVersion) -> Target:
        slot = self._writer.slot(key.model, key.version)
        target = Target(version, slot, self.pipeline.done, self._recorder)
        self._catalog.add_target(key, target)
        return target

    def order(self, route: str = "", default: str = "", models: Mapping[int, bytes] | None = None) -> None:
        """Takes up a route in YAML. `models`: the versions' files, if they are not y = x + version."""
        document = yaml.safe_load(route) if route else None
        versions = tuple(ordered(self._root, number, (models or {}).get(number, b"")) for number in (1, 2))
        order = ModelOrder(
            model="m",
            serve=versions,
            labels=LABELS,
            default_target=default,
            unavailable={3: "failed: the file is empty"},
            route=json.dumps(document) if document is not None else "",
        )
        self._desired(order)

    def _desired(self, *orders: ModelOrder) -> None:
        self._manager.set_desired(self._catalog.set_desired(Desired(revision=1, models=orders)))
        while self._manager.tick():
            pass

    def health(self) -> dict[str, bool]:
        return health_statuses(self.table, ready=True)

    def recorded(self, count: int) -> list[tuple[str, int]]:
        """(variant, reason) of all requests, once there are `count`."""
        self._recorder.wait_for(count)
        self._ring.look()
        names = self._ring.names.names
        return [
            (names[record["variant"]].split("\x1f")[1], int(record["reason"]))
            for part in self._ring.take(100_000)
            for record in part
        ]

    def counted(self, count: int) -> dict[tuple[int, str, int], int]:
        """(version, variant, code) → requests, of all, once there are `count`."""
        self._recorder.wait_for(count)
        counts: dict[tuple[int, str, int], int] = {}
        for series in self._desk.totals().totals():
            key = (series.key.version, series.key.variant, series.key.code)
            counts[key] = counts.get(key, 0) + series.counters["requests"]
        return {key: count for key, count in counts.items() if count}

    def close(self) -> None:
        self._transport.stop(GRACE_SECONDS)
        self._transport.close()
        self._desired()
        while self._manager.instances():
            self._manager.tick()


def ordered(root: Path, version: int, model: bytes = b"") -> VersionOrder:
    """Version `version` of model m: `model`, or y = x + version."""
    folder = root / "m" / str(version)
    if not folder.exists():
        write_version(root, "m", version, model or versioned(version))
    return VersionOrder(
        version=version, digest=f"sha256:{version}", generation=1, folder=str(folder), model_filename="model.onnx",
        file_bytes=1, manifest={},
    )  # fmt: skip


@contextmanager
def routed_worker(transport: str, root: Path) -> Iterator[RoutedWorker]:
    with desk(4096) as at:
        worker = RoutedWorker(transport, root, at)
        try:
            yield worker
        finally:
            worker.close()
