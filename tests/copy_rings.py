"""Rings of copies for tests: both ends, and runs whose arrays say which run they are of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runtime.shadow.copied_pair import CopiedPair
from runtime.shadow.pair import Copy, PairKey, PairSettings
from runtime.shadow.ring_layout import Status, create_copy_ring
from runtime.shadow.ring_map import CopyCounter, CopyCounts, map_copy_ring
from runtime.shadow.ring_reader import CopyReader, PairSlot
from runtime.shadow.ring_writer import CopyHead, CopyWriter, Forms, PairPlace
from runtime.shm.segment import Segment

ROOM = 64 * 1024
INPUTS = (("x", "FP32"), ("word", "BYTES"))
OUTPUTS = (("y", "INT64"), ("text", "BYTES"))


def pair_of(shadow: int = 2, primary: int = 1, **settings: Any) -> CopiedPair:
    key = PairKey("m", primary, f"sha256:{primary}", shadow, f"sha256:{shadow}")
    return CopiedPair(key, PairSettings(**settings), INPUTS, OUTPUTS, batched=True)


@dataclass
class CopyDesk:
    """Both ends, in one process; either can be restarted."""

    segment: Segment
    writer: CopyWriter = field(init=False)
    reader: CopyReader = field(init=False)
    forms: Forms = field(init=False)

    def __post_init__(self) -> None:
        self.restart_writer()
        self.restart_reader()

    def restart_writer(self) -> None:
        self.writer = CopyWriter(self.segment)
        self.forms = Forms([each for _, each in INPUTS], [each for _, each in OUTPUTS], batched=True)

    def restart_reader(self) -> None:
        self.reader = CopyReader(map_copy_ring(self.segment), 0)

    def place(self, pair: CopiedPair) -> PairPlace:
        place = self.writer.place(pair.to_json())
        assert place is not None
        return place

    def slot(self, pair: CopiedPair) -> PairSlot:
        (slot,) = [slot for slot in self.reader.slots() if slot.described == pair]
        return slot

    def begin(self, pair: CopiedPair) -> tuple[PairPlace, PairSlot]:
        """A place whose copies are of use."""
        place, slot = self.place(pair), self.slot(pair)
        self.reader.set_status(slot, Status.READY)
        return place, slot

    def write(self, place: PairPlace, number: int, rows: Sequence[int] = (1,), columns: int = 4) -> None:
        """Run `number`: all its values say so."""
        total = sum(rows)
        inputs = [np.full((total, columns), number, np.float32), texts([f"é{number}"] * total)]
        answers = [np.full(total, number, np.int64), texts([""] * total)]
        form, contents = self.forms.of(len(rows), inputs, (0, 1), answers)
        head = CopyHead(rows, [f"{number}-{at}" for at in range(len(rows))], 1_000 + number, number)
        self.writer.write(place, form, head, contents)

    def take(self, pair: CopiedPair) -> int | None:
        """The number of the oldest run, which is as it was written; None: there is none."""
        if self.reader.look() is None:
            return None
        return number_of(self.reader.take(pair))

    def take_all(self, pair: CopiedPair) -> list[int]:
        found = []
        while (number := self.take(pair)) is not None:
            found.append(number)
        return found

    def counts(self, pair: CopiedPair) -> CopyCounts:
        return CopyCounter([map_copy_ring(self.segment)]).counts()[pair.key]


def number_of(copy: Copy) -> int:
    number = int(copy.unix_ns) - 1_000
    assert copy.run_ns == number
    assert copy.request_ids == tuple(f"{number}-{at}" for at in range(len(copy.rows)))
    total = sum(copy.rows)
    assert copy.inputs["x"].shape[0] == total
    assert (copy.inputs["x"] == np.float32(number)).all()
    assert copy.inputs["word"].tolist() == [f"é{number}"] * total
    assert copy.outputs["y"].tolist() == [number] * total
    assert copy.outputs["text"].tolist() == [""] * total
    return number


def texts(words: Sequence[str]) -> np.ndarray:
    array = np.empty(len(words), object)
    array[:] = words
    return array


@contextmanager
def copy_desk(room: int = ROOM) -> Iterator[CopyDesk]:
    segment = create_copy_ring("copies", room)
    try:
        yield CopyDesk(segment)
    finally:
        segment.close()
