"""Records for tests, and pages to publish them to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.shm.publish import publish
from runtime.shm.record import RECORD, Records
from runtime.shm.ring import RingView, map_ring
from runtime.shm.ring_layout import create_ring
from runtime.shm.segment import Segment
from runtime.shm.series import SeriesReader, SeriesWriter
from runtime.shm.series_layout import create_series_page


def records_of(rows: Sequence[dict[str, Any]]) -> Records:
    """RECORD[len(rows)]; byte fields are given as bytes, what is left out is 0."""
    records = np.zeros(len(rows), RECORD)
    for record, row in zip(records, rows, strict=True):
        for name, value in row.items():
            if isinstance(value, bytes):
                record[name][: len(value)] = np.frombuffer(value, np.uint8)
            else:
                record[name] = value
    return records


@dataclass
class Desk:
    """A ring and a series page, with the writer's side of both."""

    ring_segment: Segment
    page_segment: Segment
    ring: RingView
    series: SeriesWriter

    def publish(self, records: Records, keep: int) -> None:
        words = records.view(np.uint64).reshape(len(records), -1)
        publish(
            records, words, len(records), self.series.header, self.series.rows,
            self.ring.words, self.ring.slots, keep,
        )  # fmt: skip

    def totals(self) -> SeriesReader:
        return SeriesReader([self.page_segment])


@contextmanager
def desk(capacity: int = 64) -> Iterator[Desk]:
    ring, page = create_ring("ring", capacity), create_series_page("series")
    try:
        yield Desk(ring, page, map_ring(ring), SeriesWriter(page))
    finally:
        os.close(ring.fd)  # the mappings end with the arrays that hold them
        os.close(page.fd)
