"""A worker's end of a ring, real shadow versions at the other, and control, which takes reports or refuses them.

Everything happens when it is told to: there is no thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from support.runtime import target_of
from zoo import write_version

from gateway.messages import ComparisonReport
from gateway.shadow.quota import Quota
from gateway.shadow.replays import Replays
from gateway.shadow.reports import OnSent, Reports
from gateway.shadow.runs import CopyRuns
from gateway.shadow.versions import ShadowVersions
from runtime.shadow.comparison import PairComparison
from runtime.shadow.copied_pair import CopiedPair
from runtime.shadow.pair import PairKey, PairSettings
from runtime.shadow.ring_layout import create_copy_ring
from runtime.shadow.ring_map import CopyCounter, CopyCounts, map_copy_ring
from runtime.shadow.ring_reader import CopyReader
from runtime.shadow.ring_writer import CopyHead, CopyWriter, Forms, PairPlace
from runtime.shm.segment import Segment
from runtime.shm.statistics import StatisticsWriter
from runtime.shm.statistics_layout import create_page
from runtime.versions.manager import Instance, VersionManager
from runtime.versions.policy import InstanceKey
from runtime.versions.version import LoadedVersion

INPUTS, OUTPUTS = (("x", "FP32"),), (("y", "FP32"),)
LATE_SECONDS = 30.0


def pair_of(primary: int = 1, shadow: int = 2, **changed: Any) -> CopiedPair:
    key = PairKey("m", primary, "sha256:0", shadow, "sha256:0")
    tensors = {"inputs": INPUTS, "outputs": OUTPUTS, "batched": True, **changed}
    return CopiedPair(key, PairSettings(), **tensors)


@dataclass
class ShadowDesk:
    """`listening`: whether control takes reports. `heard`: what it took, by pair. `told`: of replays."""

    folder: Path
    segment: Segment
    page: Segment
    listening: bool = True
    heard: dict[PairKey, PairComparison] = field(default_factory=dict)
    holding: list[OnSent] | None = None
    loading: bool = False
    told: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.writer = CopyWriter(self.segment)
        self.manager = VersionManager(self._make, self._on_change)
        self.versions = ShadowVersions()
        self.statistics = StatisticsWriter(self.page)
        self.stat = self.folder / "cpu.stat"
        self.quota = Quota((self.stat,))
        self.start()

    def start(self, late_seconds: float = LATE_SECONDS) -> None:
        """A new shadow process: versions stay, for brevity."""
        self.readers = [CopyReader(map_copy_ring(self.segment), 0)]
        self.reports = Reports("memory", self.readers, self._deliver)
        self.replays = Replays(self.versions, self.told.append)
        self.runs = CopyRuns(
            self.readers, self.versions, self.reports, self.replays, lambda: self.loading, late_seconds, self.quota
        )

    def hold(self, *versions: tuple[int, bytes]) -> None:
        """These versions are loaded, and no others."""
        targets = []
        for version, model in versions:
            write_version(self.folder, "m", version, model)
            targets.append(target_of(self.folder / "m" / str(version), "m", version))
        self.manager.set_desired(targets)
        while self.manager.tick():
            pass
        self.follow()

    def follow(self) -> None:
        self.runs._follow_at = 0.0
        self.runs.step()

    def place(self, pair: CopiedPair) -> PairPlace:
        place = self.writer.place(pair.to_json())
        assert place is not None
        self.follow()
        return place

    def write(self, place: PairPlace, pair: CopiedPair, x: np.ndarray, y: np.ndarray, rows: Sequence[int]) -> None:
        """A run of the primary just now: float32 `x` in, float32 `y` out."""
        forms = Forms([each for _, each in pair.inputs], [each for _, each in pair.outputs], batched=pair.batched)
        form, contents = forms.of(len(rows), [x], (0,), [y])
        self.writer.write(place, form, CopyHead(rows, [""] * len(rows), time.time_ns(), 1000), contents)

    def work(self) -> None:
        while self.runs.step():
            pass

    def report(self) -> None:
        self.reports.send()

    def counts(self, pair: CopiedPair) -> CopyCounts:
        return CopyCounter([map_copy_ring(self.segment)]).counts()[pair.key]

    def outcomes(self, pair: CopiedPair) -> Mapping[str, int]:
        return {name: count for name, count in self.counts(pair).outcomes.items() if count}

    def _deliver(self, message: ComparisonReport, on_sent: OnSent) -> None:
        if self.holding is not None:
            self.holding.append(on_sent)
        if self.listening:
            for report in message.pairs:
                delta = PairComparison.from_bytes(report.delta)
                if delta.key in self.heard:
                    self.heard[delta.key].merge(delta)
                else:
                    self.heard[delta.key] = delta
        if self.holding is None:
            on_sent(self.listening)

    def _make(self, key: InstanceKey, loaded: LoadedVersion) -> None:
        self.versions.add(key, loaded, self.statistics.slot(key.model, key.version))

    def _on_change(self, instance: Instance) -> None:
        self.versions.note(instance)

    def close(self) -> None:
        self.manager.set_desired([])
        while self.manager.tick():
            pass


@contextmanager
def shadow_desk(folder: Path) -> Iterator[ShadowDesk]:
    segment, page = create_copy_ring("copies", 1024 * 1024), create_page("statistics")
    desk = ShadowDesk(folder, segment, page)
    try:
        yield desk
    finally:
        desk.close()
        segment.close()
        page.close()
