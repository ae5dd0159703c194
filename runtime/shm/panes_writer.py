"""The worker's end of its pane arena: gives out slots, takes over a killed predecessor's, frees what is done."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from runtime.shm.panes_layout import ALLOCATIONS_AT, allocation_bytes, is_sound
from runtime.shm.panes_memory import Extents, zero
from runtime.shm.panes_slot import PaneSlot
from runtime.shm.panes_table import PaneTable
from runtime.shm.segment import Segment

log = logging.getLogger(__name__)

T = TypeVar("T")


class PaneWriter:
    """The one writer of an arena. Thread-safe.

    `arena`: this worker's, attached writable. `control`: the pane control page, which is only read. `worker`: which of
    the page's workers this is. Raises PanesMismatch.
    """

    def __init__(self, arena: Segment, control: Segment, worker: int) -> None:
        self._table = PaneTable(arena, control, worker)
        self._extents = Extents(ALLOCATIONS_AT, arena.size_bytes)
        self._live: dict[int, PaneSlot[Any]] = {}  # by place, as `_ended`
        self._ended: set[int] = set()
        self._lock = threading.Lock()
        self._closed = self._told = False
        self._take_over()

    def _take_over(self) -> None:
        """Ends what a predecessor left, wherever it was killed. What belongs to no slot becomes zeros again."""
        table = self._table
        table.finish_discarding()
        for place in range(table.used()):
            if table.is_unused(place):
                continue
            if is_sound(table.words, place) and self._extents.reserve(*table.allocation(place)):
                table.end(place)
                self._ended.add(place)
            else:
                log.error("slot %d of this worker's panes is damaged and is dropped with all that was in it", place)
                table.drop(place)
        for part in self._extents.parts():
            zero(table.arena.fd, *part)
        self._free_collected()

    def slot(
        self,
        model: str,
        version: int,
        generation: int,
        digest: str,
        description: bytes,
        pane_bytes: int,
        make: Callable[[memoryview], T],
    ) -> PaneSlot[T] | None:
        """Panes for one loading of a version. None: there is no room, which is counted and logged once; or `close` was.

        `description`: what a reader needs to know of the panes' bytes; it comes with each of them. `make` gets the
        zeroed memory of each pane that is begun, `pane_bytes` of it at a page's beginning, and is called on the thread
        of `enter` or of `tick`. Raises what `make` raises.
        """
        if pane_bytes <= 0:
            raise ValueError(f"expected a pane of at least 1 byte for {model} version {version}, got {pane_bytes}")
        texts = (model.encode(), digest.encode(), description)
        size = allocation_bytes(sum(map(len, texts)), pane_bytes)
        with self._lock:
            if self._closed:
                return None
            place = self._table.free_place()
            offset = None if place is None else self._extents.take(size)
            if place is None or offset is None:
                self._refuse(model, version, size, place)
                return None
            try:
                self._table.describe(place, version, generation, texts, pane_bytes, offset)
                slot = PaneSlot(self._table, place, make)
            except BaseException:
                zero(self._table.arena.fd, offset, size)
                self._extents.give_back(offset, size)
                raise
            self._table.publish(place)
            self._live[place] = slot
            return slot

    def _refuse(self, model: str, version: int, size: int, place: int | None) -> None:
        self._table.refuse()
        if self._told:
            return
        self._told = True
        free = sum(part for _, part in self._extents.parts())
        log.warning(
            "no statistics are kept of %s version %d, nor of others that find no room: it needs %d bytes, %s; "
            "unload versions, or allow more memory for statistics",
            model, version, size, "all slots are taken" if place is None else f"{free} are free, in parts",
        )  # fmt: skip

    def tick(self) -> None:
        """To be called every 0.1 s or so: frees what was collected, and closes panes that no request comes to."""
        with self._lock:
            ended = {place for place, slot in self._live.items() if slot.ended}
            for place in ended:
                del self._live[place]
            self._ended |= ended
            self._free_collected()
            live = list(self._live.values())
        for slot in live:
            slot.turn()

    def close(self) -> None:
        """At drain: ends every slot, and gives out no more."""
        with self._lock:
            self._closed = True
            live = list(self._live.values())
        for slot in live:
            slot.end()

    def _free_collected(self) -> None:
        for place in [place for place in self._ended if self._table.is_collected(place)]:
            self._ended.remove(place)
            self._table.free(place)
            self._extents.give_back(*self._table.allocation(place))
