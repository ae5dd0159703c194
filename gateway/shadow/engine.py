"""All that the shadow process needs once there is a shadow: rings, versions, runs. Made, and imported, only then."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from pydantic import BaseModel

from gateway.link import Link
from gateway.messages import ReplayOrder, VersionOrder
from gateway.process import Spawn
from gateway.shadow.idle import idle_library_threads
from gateway.shadow.quota import Quota
from gateway.shadow.replays import Replays
from gateway.shadow.reports import Reports
from gateway.shadow.runs import CopyRuns
from gateway.shadow.versions import ShadowVersions
from gateway.version_messages import report, version_target
from runtime.malloc import return_large_blocks
from runtime.shadow.ring_map import map_copy_ring
from runtime.shadow.ring_reader import CopyReader
from runtime.shm.segment import Segment
from runtime.shm.statistics import StatisticsWriter
from runtime.versions.manager import Instance, VersionManager
from runtime.versions.policy import InstanceKey
from runtime.versions.state import VersionState
from runtime.versions.version import LoadedVersion

log = logging.getLogger(__name__)

END_SECONDS = 2.0  # for a run to end between two nodes, and as long for the last report to leave


class Engine:
    """`on_change` is called after each change of a version's state."""

    def __init__(self, orders: Spawn, link: Link, counters: str, on_change: Callable[[], None]) -> None:
        return_large_blocks()
        rings = [map_copy_ring(Segment.attach(fd, writable=True)) for fd in orders.copy_fds]
        readers = [CopyReader(ring, number) for number, ring in enumerate(rings)]
        self._link = link
        self._on_changed = on_change
        self._statistics = StatisticsWriter(Segment.attach(orders.shadow_page_fd, writable=True))
        self._versions = ShadowVersions()
        self._manager = VersionManager(
            self._make, self._on_change, lambda key: self._statistics.mark(key.model, key.version)
        )
        self._reports = Reports(counters, readers, link.deliver)
        late = orders.config.shadow.late_seconds
        self._replays = Replays(self._versions, link.report)
        self._runs = CopyRuns(
            readers,
            self._versions,
            self._reports,
            self._replays,
            lambda: not self._manager.settled(),
            late,
            Quota(),
        )
        self._manager.start()
        self._runs.start()

    def order(self, wanted: Iterable[tuple[str, VersionOrder]]) -> None:
        """(model, version) of all that should be in memory."""
        self._manager.set_desired([version_target(model, version) for model, version in wanted])

    def replay(self, order: ReplayOrder) -> None:
        self._replays.take(order)

    def settled(self) -> bool:
        return self._manager.settled()

    def version_reports(self) -> list[BaseModel]:
        return [report(instance) for instance in self._manager.instances()]

    def look_after(self) -> None:
        self._runs.look_after()

    def stop(self) -> bool:
        """Reports what there is; False if a run cannot be ended."""
        ended = self._runs.stop(END_SECONDS)
        if ended and self._reports.delivered.wait(END_SECONDS):
            self._reports.send()
            self._reports.delivered.wait(END_SECONDS)
        self._manager.stop()
        return ended

    def _make(self, key: InstanceKey, loaded: LoadedVersion) -> None:
        """Its copies are run by `CopyRuns`, so it gets no runner of its own."""
        self._versions.add(key, loaded, self._statistics.slot(key.model, key.version))

    def _on_change(self, instance: Instance) -> None:
        self._versions.note(instance)
        if instance.state is VersionState.AVAILABLE:
            idle_library_threads()
        self._link.report(report(instance))
        self._on_changed()
