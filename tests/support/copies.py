"""Copies of a running gateway, as its shared memory counts them, and comparisons, as its admin API tells them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from gateway.wire.pb.driftgate.admin.v1.admin_pb2_grpc import AdminStub
from runtime.shadow.ring_map import CopyCounter, CopyCounts, map_copy_ring
from runtime.shm.segment import Segment
from support.admin import OPTIONS, until
from support.gateway import Gateway

SETTLE_SECONDS = 60.0


class CopiesOf:
    """Of one model of a gateway: all its pairs together."""

    def __init__(self, gateway: Gateway, segments: list[Segment], model: str) -> None:
        self._gateway = gateway
        self._counter = CopyCounter([map_copy_ring(segment) for segment in segments])
        self._model = model

    def counts(self) -> CopyCounts:
        total = CopyCounts()
        for key, counts in self._counter.counts().items():
            if key.model == self._model:
                total.add(counts)
        return total

    @property
    def compared(self) -> int:
        return self.counts().outcomes.get("compared", 0)

    def until_compared(self, more: int) -> None:
        target = self.compared + more
        until(lambda: self.compared >= target, f"{more} more copies are compared", SETTLE_SECONDS)

    def settled(self, chosen: int = 0) -> CopyCounts:
        """Once no copy waits, and `chosen` requests have been copied: a copy is made after its reply has left."""
        until(lambda: (now := self.counts()).waiting == 0 and now.chosen >= chosen, "no copy waits", SETTLE_SECONDS)
        return self.counts()

    def comparison(self) -> pb.Comparison:
        """The one pair of the model, since the gateway started."""
        with grpc.insecure_channel(self._gateway.admin, options=OPTIONS) as channel:
            stub: Any = AdminStub(channel)  # type: ignore[no-untyped-call]  # generated
            answer = stub.GetComparisons(pb.GetComparisonsRequest(model=self._model), timeout=30, wait_for_ready=True)
        (comparison,) = answer.comparisons
        found: pb.Comparison = comparison
        return found


@contextmanager
def copies_of(gateway: Gateway, model: str) -> Iterator[CopiesOf]:
    """The rings are the supervisor's; whoever runs as the same user may map them. A mapping has a descriptor too."""
    folder = Path(f"/proc/{gateway.supervisor.pid}/fd")
    rings = {str(file.readlink()): file for file in folder.iterdir() if "driftgate-copies-" in str(file.readlink())}
    segments = [Segment.attach(os.open(file, os.O_RDONLY), writable=False) for _, file in sorted(rings.items())]
    try:
        yield CopiesOf(gateway, segments, model)
    finally:
        for segment in segments:
            segment.close()
