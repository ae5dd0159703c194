"""Pane arenas for tests: what is observed is known one by one, and either end can be killed before any store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from runtime.shm import panes_memory, panes_reader, panes_slot, panes_table, panes_writer
from runtime.shm.panes_layout import ALLOCATIONS_AT, PAGE_BYTES, arena_words, create_arena, create_pane_control
from runtime.shm.panes_layout import control_words as plain_control_words
from runtime.shm.panes_reader import ClosedPane, PaneReader
from runtime.shm.panes_slot import PaneSlot
from runtime.shm.panes_writer import PaneWriter
from runtime.shm.segment import Segment

COUNTERS = 1000
PANE_BYTES = COUNTERS * 8
SLOT_BYTES = PAGE_BYTES + 2 * 2 * PAGE_BYTES  # texts, and two panes of two pages

Counters = npt.NDArray[np.int64]
Slot = PaneSlot[Counters]


def counters(memory: memoryview) -> Counters:
    """int64[COUNTERS]: the payload of these tests, as it lies in the arena."""
    return np.frombuffer(memory, np.int64)


class Killed(BaseException):
    """The process is no more."""


class Fuse:
    """Burns at each store of a process; when nothing is left of it, neither this store nor a later one is done."""

    def __init__(self, left: int = 1 << 60) -> None:
        self.left = left
        self.burnt = 0

    def burn(self) -> None:
        self.burnt += 1
        if self.burnt > self.left:
            raise Killed


class Fused:
    """Words whose stores burn a fuse."""

    def __init__(self, words: memoryview, fuse: Fuse) -> None:
        self._words, self._fuse = words, fuse

    def __getitem__(self, at: Any) -> Any:
        found = self._words[at]
        return Fused(found, self._fuse) if isinstance(at, slice) else found

    def __setitem__(self, at: int, value: int) -> None:
        self._fuse.burn()
        self._words[at] = value


@dataclass
class Desk:
    """One gateway's segments, both ends of them, and what is known to have been observed and stored.

    Observation n adds its rows, n % 7 + 1, to counter n, in two halves. Control's store is exact: what it holds when it
    is killed, it holds.
    """

    arenas: list[Segment]
    page: Segment
    worker_fuse: Fuse = field(default_factory=Fuse)
    control_fuse: Fuse = field(default_factory=Fuse)
    observed: list[int] = field(default_factory=list)
    begun: int = 0
    in_flight: int | None = None
    stored: dict[tuple[int, int], tuple[ClosedPane, Counters]] = field(default_factory=dict)

    def writer(self, fuse: Fuse | None = None, worker: int = 0) -> PaneWriter:
        self.worker_fuse = fuse or Fuse()
        return PaneWriter(self.arenas[worker], self.page, worker)

    def reader(self, fuse: Fuse | None = None) -> PaneReader:
        self.control_fuse = fuse or Fuse()
        return PaneReader(self.arenas, self.page)

    def observe(self, slot: Slot) -> None:
        number = self.begun
        self.begun += 1
        rows = rows_of(number)
        into = slot.enter()
        self.in_flight = number
        into[number] += rows // 2
        self.worker_fuse.burn()
        into[number] += rows - rows // 2
        self.worker_fuse.burn()
        slot.leave(rows, 1_000 + number)
        self.in_flight = None
        self.observed.append(number)

    def store(self, reader: PaneReader, *, also_open: bool = False) -> int:
        """What control does with each pane: once into the store, then acknowledged. How many there were."""
        panes = reader.closed(also_open=also_open)
        for pane in panes:
            _, values = self.stored.setdefault(pane.key, (pane, np.frombuffer(pane.read(), np.int64)))
            assert pane.read() == values.tobytes(), "a pane that is offered again is what it was"
            self.control_fuse.burn()
            reader.acknowledge(pane)
        return len(panes)

    def seen(self) -> Counter[int]:
        """How often each observation is in the store, as its rows; what is half there is no whole number of times."""
        seen: Counter[int] = Counter()
        for pane, values in self.stored.values():
            assert pane.rows == values.sum()
            for number in np.flatnonzero(values).tolist():
                times, rest = divmod(int(values[number]), rows_of(number))
                assert rest == 0, f"half of observation {number} is in a pane that was collected"
                seen[number] += times
        return seen


def rows_of(number: int) -> int:
    return number % 7 + 1


@contextmanager
def desk(workers: int = 1, slots: int = 8) -> Iterator[Desk]:
    """`slots`: how many of `slot_of` an arena has room for."""
    arenas = [create_arena(f"arena {worker}", ALLOCATIONS_AT + slots * SLOT_BYTES) for worker in range(workers)]
    page = create_pane_control("pane control", workers)
    at = Desk(arenas, page)
    zero = panes_memory.zero

    def fused(words_of: Callable[..., memoryview], fuse: Callable[[], Fuse]) -> Callable[..., Any]:
        return lambda *arguments: Fused(words_of(*arguments), fuse())

    def zero_in_halves(fuse: Callable[[], Fuse]) -> Callable[..., None]:
        def zeros(fd: int, offset: int, size_bytes: int) -> None:
            half = size_bytes // 2 // PAGE_BYTES * PAGE_BYTES
            fuse().burn()
            zero(fd, offset, half)
            fuse().burn()
            zero(fd, offset + half, size_bytes - half)

        return zeros

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(panes_table, "arena_words", fused(arena_words, lambda: at.worker_fuse))
        for module in (panes_table, panes_slot, panes_writer):
            patch.setattr(module, "zero", zero_in_halves(lambda: at.worker_fuse))
        patch.setattr(panes_reader, "control_words", fused(plain_control_words, lambda: at.control_fuse))
        patch.setattr(panes_reader, "zero", zero_in_halves(lambda: at.control_fuse))
        yield at
    for segment in (*arenas, page):
        segment.close()


def slot_of(writer: PaneWriter, model: str = "m", version: int = 1, generation: int = 1) -> Slot:
    slot = writer.slot(model, version, generation, f"sha256:{model}", b"schema", PANE_BYTES, counters)
    assert slot is not None
    return slot
