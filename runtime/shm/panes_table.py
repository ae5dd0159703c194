"""A worker's end of its arena's slots: a change takes effect with its last store, whoever is killed when."""

from __future__ import annotations

import os
import threading

from runtime.shm.order import order
from runtime.shm.panes_layout import (
    CLOSED,
    CONTROL_EPOCH,
    DESCRIPTION_SIZE,
    DIGEST_SIZE,
    DISCARDED_PANES,
    DISCARDED_ROWS,
    DISCARDING,
    EMPTY,
    ENDED,
    EPOCH,
    FIRST,
    FREE,
    GENERATION,
    HEAD_WORDS,
    ID,
    LAST,
    LIVE,
    MODEL_SIZE,
    OFFSET,
    OPEN,
    PANE_SIZE,
    PANE_STATE,
    PANES,
    PANES_AFTER,
    REFUSED,
    ROWS,
    ROWS_AFTER,
    SEQUENCE,
    SIZE,
    SLOT_STATE,
    SLOTS,
    STATES,
    USED,
    VERSION,
    WORD_MASK,
    Words,
    acknowledged,
    allocation_bytes,
    arena_words,
    collected_at,
    control_words,
    head_at,
    pages,
    pane_offset,
    slot_at,
)
from runtime.shm.panes_memory import zero
from runtime.shm.segment import Segment


class PaneTable:
    """The slots of one arena, by place. Who changes a slot holds its lock, or nobody else knows of it yet."""

    def __init__(self, arena: Segment, control: Segment, worker: int) -> None:
        self.arena = arena
        self.words = arena_words(arena)
        self.control = control_words(control, worker + 1)
        self._worker = worker
        self._counting = threading.Lock()

    def used(self) -> int:
        """All places from here on are free."""
        return self.words[USED]

    def is_ended(self, place: int) -> bool:
        return self.words[slot_at(place) + SLOT_STATE] == ENDED

    def is_unused(self, place: int) -> bool:
        return self.words[slot_at(place) + SLOT_STATE] == FREE

    def free_place(self) -> int | None:
        return next(filter(self.is_unused, range(min(self.used() + 1, SLOTS))), None)

    def allocation(self, place: int) -> tuple[int, int]:
        """(offset, bytes)"""
        slot = slot_at(place)
        return self.words[slot + OFFSET], self.words[slot + SIZE]

    def pane(self, place: int, pane: int) -> tuple[int, int]:
        """(offset, bytes in whole pages)"""
        size = self.words[slot_at(place) + PANE_SIZE]
        return pane_offset(*self.allocation(place), size, pane), pages(size)

    def memory(self, place: int, pane: int) -> memoryview:
        """Of as many bytes as were asked for."""
        offset, _ = self.pane(place, pane)
        return memoryview(self.arena.buffer)[offset : offset + self.words[slot_at(place) + PANE_SIZE]]

    def head(self, place: int, pane: int) -> Words:
        at = head_at(place, pane)
        return self.words[at : at + HEAD_WORDS]

    def epoch(self) -> int:
        return self.control[CONTROL_EPOCH]

    def describe(
        self, place: int, version: int, generation: int, texts: tuple[bytes, bytes, bytes], pane_size: int, offset: int
    ) -> None:
        """Writes a free slot and its allocation, but for the panes. `texts`: model, digest, description."""
        words, slot = self.words, slot_at(place)
        for pane in range(PANES):
            words[head_at(place, pane) + PANE_STATE] = EMPTY
        order()  # a reader that saw the earlier slot's id sees none of the new one's panes
        words[slot + ID] = int.from_bytes(os.urandom(8), "little")
        words[slot + VERSION] = version
        words[slot + GENERATION] = generation
        words[slot + OFFSET] = offset
        words[slot + SIZE] = allocation_bytes(sum(map(len, texts)), pane_size)
        words[slot + PANE_SIZE] = pane_size
        for word, text in zip((MODEL_SIZE, DIGEST_SIZE, DESCRIPTION_SIZE), texts, strict=True):
            words[slot + word] = len(text)
        text = b"".join(texts)
        self.arena.buffer[offset : offset + len(text)] = text

    def publish(self, place: int) -> None:
        """From here on a successor finds the slot, and control collects it."""
        self.words[USED] = max(self.used(), place + 1)
        order()
        self.words[slot_at(place) + SLOT_STATE] = LIVE

    def begin(self, place: int, pane: int, serial: int, epoch: int) -> None:
        """Opens a pane whose memory is ready."""
        words, head = self.words, head_at(place, pane)
        for word, value in ((SEQUENCE, 0), (EPOCH, epoch), (FIRST, 0), (LAST, 0), (ROWS, 0)):
            words[head + word] = value
        order()
        words[head + PANE_STATE] = serial * STATES + OPEN

    def close(self, place: int, pane: int) -> None:
        """Of an open pane; one without rows is empty again."""
        words, head = self.words, head_at(place, pane)
        order()  # whoever sees it closed sees all of it
        if words[head + ROWS]:
            words[head + PANE_STATE] += CLOSED - OPEN
        else:
            words[head + PANE_STATE] = EMPTY

    def discard(self, place: int, pane: int) -> None:
        """Empties a pane, and counts what is lost, exactly once even if this process is killed on the way."""
        with self._counting:
            words = self.words
            words[PANES_AFTER] = words[DISCARDED_PANES] + 1
            words[ROWS_AFTER] = words[DISCARDED_ROWS] + words[head_at(place, pane) + ROWS] & WORD_MASK
            order()
            words[DISCARDING] = 1 + place * PANES + pane
            self.finish_discarding()

    def finish_discarding(self) -> None:
        """What was begun, perhaps by a predecessor; doing it twice does what doing it once does."""
        words = self.words
        if which := words[DISCARDING]:
            order()
            words[DISCARDED_PANES] = words[PANES_AFTER]
            words[DISCARDED_ROWS] = words[ROWS_AFTER]
            words[head_at(*divmod(which - 1, PANES)) + PANE_STATE] = EMPTY
            order()
            words[DISCARDING] = 0

    def is_free(self, place: int, pane: int) -> bool:
        """Nothing is in the pane: there was nothing, or control has collected it, and zeroed its memory."""
        words = self.words
        serial, state = divmod(words[head_at(place, pane) + PANE_STATE], STATES)
        if state == EMPTY:
            return True
        found = self.control[collected_at(self._worker, place, pane)]
        free: bool = state == CLOSED and found == acknowledged(words[slot_at(place) + ID], serial)
        order()  # what is written to it next is written behind control's zeros
        return free

    def is_collected(self, place: int) -> bool:
        return all(self.is_free(place, pane) for pane in range(PANES))

    def end(self, place: int) -> None:
        """Closes what is open, and discards what is half-written; the slot awaits its last collection."""
        for pane in range(PANES):
            head = self.head(place, pane)
            if head[PANE_STATE] % STATES == OPEN:
                if head[SEQUENCE] % 2:
                    self.discard(place, pane)
                else:
                    self.close(place, pane)
        order()
        self.words[slot_at(place) + SLOT_STATE] = ENDED

    def free(self, place: int) -> None:
        """A successor zeroes what belongs to no slot, should this process be killed before it has."""
        self.words[slot_at(place) + SLOT_STATE] = FREE
        order()
        zero(self.arena.fd, *self.allocation(place))

    def drop(self, place: int) -> None:
        """A slot that cannot be what this program wrote. What it says of its rows is not believed either."""
        self.words[DISCARDED_PANES] += sum(not self.is_free(place, pane) for pane in range(PANES))
        self.words[slot_at(place) + SLOT_STATE] = FREE

    def refuse(self) -> None:
        """Counts a slot that found no room."""
        self.words[REFUSED] += 1
