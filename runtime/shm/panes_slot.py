"""What a version's requests are observed in: two panes in turn, one open for its worker, one for control to collect."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from runtime.shm.panes_layout import CONTROL_EPOCH, EPOCH, FIRST, LAST, PANES, ROWS, SEQUENCE
from runtime.shm.panes_memory import zero
from runtime.shm.panes_table import PaneTable

T = TypeVar("T")

NO_EPOCH = -1
"""Differs from every epoch of control's, so that `enter` looks closer."""


class SlotEnded(RuntimeError):
    """The version was unloaded: nothing more is observed of it."""


class PaneSlot(Generic[T]):
    """One version's panes. `T` is what `make` makes of a pane's zeroed memory: a writer of it. Thread-safe.

    An observation stands between `enter` and `leave`, or `abandon` where it failed:

        summary = slot.enter()
        try:
            summary.observe(...)
        except BaseException:
            slot.abandon()
            raise
        slot.leave(rows, time.time_ns())
    """

    __slots__ = (
        "_acquire", "_begun", "_control", "_ended", "_epoch", "_head", "_lock", "_make", "_object", "_pane", "_place",
        "_release", "_rows", "_sequence", "_serial", "_table",
    )  # fmt: skip

    def __init__(self, table: PaneTable, place: int, make: Callable[[memoryview], T]) -> None:
        self._table = table
        self._place = place
        self._make = make
        self._control = table.control
        self._lock = threading.Lock()
        self._acquire, self._release = self._lock.acquire, self._lock.release
        self._ended = self._begun = False
        self._pane, self._serial = 0, 1
        self._begin(self._pane, self._serial)

    @property
    def used_bytes(self) -> int:
        """Of the arena: description and both panes, in whole pages. The memory taken is at most this."""
        return self._table.allocation(self._place)[1]

    @property
    def ended(self) -> bool:
        return self._ended

    def enter(self) -> T:
        """What the open pane's observations go to, until `leave` or `abandon`.

        If control has begun a new epoch and the other pane is free, that one is the open pane from here on.
        Raises SlotEnded, and what `make` raises.
        """
        self._acquire()
        if self._control[CONTROL_EPOCH] != self._epoch:
            try:
                self._turn()
            except BaseException:
                self._release()
                raise
        self._head[SEQUENCE] = self._sequence + 1
        return self._object

    def leave(self, rows: int, now_ns: int) -> None:
        """The observation of so many rows is whole. `now_ns`: since 1970."""
        head = self._head
        if not self._rows:
            head[FIRST] = now_ns
        head[LAST] = now_ns
        self._rows += rows
        head[ROWS] = self._rows
        self._sequence += 2
        head[SEQUENCE] = self._sequence
        self._release()

    def abandon(self) -> None:
        """The observation failed half-way: what the pane holds is discarded and counted, and it begins anew."""
        try:
            self._table.discard(self._place, self._pane)
            self._begun = False
            self._epoch = NO_EPOCH
            zero(self._table.arena.fd, *self._table.pane(self._place, self._pane))
        finally:
            self._release()

    def turn(self) -> None:
        """Lets control have the rows of a version that no request comes to."""
        with self._lock:
            if not self._ended and self._control[CONTROL_EPOCH] != self._epoch:
                self._turn()

    def end(self) -> None:
        """The version is unloaded: closes its pane. The slot's memory is free again when control has collected it."""
        with self._lock:
            if not self._ended:
                self._table.end(self._place)
                self._epoch = NO_EPOCH
                self._ended = True  # last: from here on the writer may free it

    def _turn(self) -> None:
        """What may be begun for control's new epoch is begun. The caller holds the lock."""
        if self._ended:
            raise SlotEnded("expected observations of a version that is loaded; this one was unloaded")
        if not self._begun:
            self._begin(self._pane, self._serial)
        elif not self._rows:  # nothing to collect: the pane is as good as a new one
            self._epoch = self._head[EPOCH] = self._table.epoch()
        elif self._table.is_free(self._place, other := (self._pane + 1) % PANES):
            self._begin(other, self._serial + 1)
        # else control is late: the pane goes on, and the next `enter` looks again

    def _begin(self, pane: int, serial: int) -> None:
        """Closes the open pane, if there is one, and opens this, which may be the same one."""
        table, place = self._table, self._place
        offset, size = table.pane(place, pane)
        try:
            made = self._make(table.memory(place, pane))
        except BaseException:
            zero(table.arena.fd, offset, size)  # it may have written to it
            raise
        if self._begun:
            table.close(place, self._pane)
        epoch = table.epoch()
        table.begin(place, pane, serial, epoch)
        self._object = made
        self._head = table.head(place, pane)
        self._pane, self._serial, self._epoch = pane, serial, epoch
        self._rows = self._sequence = 0
        self._begun = True
