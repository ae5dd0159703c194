"""Control's end of the workers' pane arenas: raises the epoch, collects closed panes, gives them back as zeros."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runtime.shm.order import order
from runtime.shm.panes_layout import (
    CLOSED,
    CONTROL_EPOCH,
    DESCRIPTION_SIZE,
    DIGEST_SIZE,
    DISCARDED_PANES,
    DISCARDED_ROWS,
    EPOCH,
    FIRST,
    FREE,
    GENERATION,
    ID,
    LAST,
    MODEL_SIZE,
    OFFSET,
    OPEN,
    PANE_SIZE,
    PANE_STATE,
    PANES,
    REFUSED,
    ROWS,
    SEQUENCE,
    SIZE,
    SLOT_STATE,
    STATES,
    USED,
    VERSION,
    acknowledged,
    arena_words,
    collected_at,
    control_words,
    head_at,
    is_sound,
    pages,
    pane_offset,
    slot_at,
    zeroing,
)
from runtime.shm.panes_memory import read, resident_bytes, zero
from runtime.shm.segment import Segment


@dataclass(frozen=True, slots=True)
class SlotView:
    """One version's slot in one worker's arena. No other slot ever has its `id`."""

    worker: int
    place: int
    id: int
    model: str
    version: int
    generation: int
    digest: str
    description: bytes
    used_bytes: int
    """Of the arena: description and both panes, in whole pages. The memory taken is at most this."""


@dataclass(frozen=True, slots=True)
class ClosedPane:
    """A part of one version's values in one worker, which its writer has done with.

    Times are those of the first and the last observation, ns since 1970. `epoch`: the one that it was begun in.
    """

    slot: SlotView
    serial: int
    epoch: int
    first_unix_ns: int
    last_unix_ns: int
    rows: int
    pane: int
    fd: int
    offset: int
    size_bytes: int

    @property
    def key(self) -> tuple[int, int]:
        """(slot id, serial): names it for ever."""
        return self.slot.id, self.serial

    def read(self) -> bytes:
        """A copy, of the size that the writer asked for. Not after the acknowledgement: it may be the next pane's."""
        return read(self.fd, self.offset, self.size_bytes)


@dataclass(frozen=True, slots=True)
class ArenaFigures:
    """Of one worker's arena. What was refused and discarded is counted since the arena was made."""

    size_bytes: int
    used_bytes: int
    """Allocated to slots."""
    resident_bytes: int
    """What the arena takes of the machine's memory now."""
    slots: int
    refused_slots: int
    discarded_panes: int
    discarded_rows: int


class PaneReader:
    """The one collector of the arenas; not thread-safe. `segments`: by worker.

    Arenas should be attached read-only. Only their descriptors have to be open for writing, because a pane is given
    back as zeros: it is control's from its closing to its acknowledgement, and the worker need not clear it while a
    request waits. Nothing else is written to an arena. Whoever attaches the control page read-only may look, at `slots`
    and `figures`, and not collect. Raises PanesMismatch.
    """

    def __init__(self, segments: Sequence[Segment], control: Segment) -> None:
        self._segments = list(segments)
        self._arenas = [arena_words(segment) for segment in segments]
        self._control = control_words(control, len(segments))
        self._known: dict[tuple[int, int], SlotView] = {}  # by worker and place: a description may be long

    @property
    def epoch(self) -> int:
        """0 before the first; a new control goes on from it."""
        return self._control[CONTROL_EPOCH]

    def raise_epoch(self, epoch: int) -> None:
        """Workers close the panes that they began in an earlier one. An epoch that is not higher changes nothing."""
        if epoch > self.epoch:
            self._control[CONTROL_EPOCH] = epoch

    def closed(self, *, also_open: bool = False) -> list[ClosedPane]:
        """All panes that are closed and not acknowledged, by worker.

        Whether one is stored already, by its `key`, is the first question: control may have been killed between storing
        and acknowledging it. `also_open`: the open ones too, but for those that are half-written; only when all workers
        have ended.
        """
        found = []
        for slot in self.slots():
            for index in range(PANES):
                pane = self._look(slot, index, (CLOSED, OPEN) if also_open else (CLOSED,))
                if pane is None:
                    continue
                collected = self._control[collected_at(slot.worker, slot.place, index)]
                if collected == zeroing(*pane.key):  # a control before was killed at it: it is stored
                    self.acknowledge(pane)
                elif collected != acknowledged(*pane.key):
                    found.append(pane)
        return found

    def _look(self, slot: SlotView, index: int, states: Sequence[int]) -> ClosedPane | None:
        """The pane, if it is in one of `states`. Nothing of such a pane changes before it is acknowledged."""
        words, at, head = self._arenas[slot.worker], slot_at(slot.place), head_at(slot.place, index)
        word = words[head + PANE_STATE]
        order()
        serial, state = divmod(word, STATES)
        if state not in states or (state == OPEN and (words[head + SEQUENCE] % 2 or not words[head + ROWS])):
            return None
        times = words[head + FIRST], words[head + LAST]  # of two threads, the later one may have come first
        size = words[at + PANE_SIZE]
        offset = pane_offset(words[at + OFFSET], words[at + SIZE], size, index)
        pane = ClosedPane(
            slot, serial, words[head + EPOCH], min(times), max(times), words[head + ROWS], index,
            self._segments[slot.worker].fd, offset, size,
        )  # fmt: skip
        order()
        is_still_the_slots = words[at + ID] == slot.id and words[head + PANE_STATE] == word
        return pane if is_still_the_slots else None

    def acknowledge(self, pane: ClosedPane) -> None:
        """The pane is stored where nothing is lost: its memory becomes zeros, and its writer's again.

        A pane that was acknowledged before is left alone.
        """
        slot = pane.slot
        words, at = self._arenas[slot.worker], collected_at(slot.worker, slot.place, pane.pane)
        is_writers = (
            self._control[at] == acknowledged(*pane.key)
            or words[slot_at(slot.place) + ID] != slot.id
            or words[head_at(slot.place, pane.pane) + PANE_STATE] // STATES != pane.serial
        )
        if is_writers:
            return
        self._control[at] = zeroing(*pane.key)
        order()
        zero(pane.fd, pane.offset, pages(pane.size_bytes))
        order()
        self._control[at] = acknowledged(*pane.key)

    def slots(self) -> list[SlotView]:
        """All that have memory now, by worker; also those that have ended and are not yet free."""
        return [slot for worker, place in self._places() if (slot := self._slot(worker, place)) is not None]

    def figures(self) -> list[ArenaFigures]:
        """By worker."""
        used = [0] * len(self._arenas)
        slots = [0] * len(self._arenas)
        for slot in self.slots():
            used[slot.worker] += slot.used_bytes
            slots[slot.worker] += 1
        return [
            ArenaFigures(
                size_bytes=segment.size_bytes, used_bytes=used[worker], resident_bytes=resident_bytes(segment.fd),
                slots=slots[worker], refused_slots=words[REFUSED], discarded_panes=words[DISCARDED_PANES],
                discarded_rows=words[DISCARDED_ROWS],
            )
            for worker, (segment, words) in enumerate(zip(self._segments, self._arenas, strict=True))
        ]  # fmt: skip

    def half_written(self) -> tuple[int, int]:
        """(panes, rows) that workers left half-written when they were killed.

        Only when all workers have ended and none follows: a successor counts such panes as discarded.
        """
        torn = []
        for slot in self.slots():
            words = self._arenas[slot.worker]
            for pane in range(PANES):
                head = head_at(slot.place, pane)
                if words[head + PANE_STATE] % STATES == OPEN and words[head + SEQUENCE] % 2:
                    torn.append(words[head + ROWS])
        return len(torn), sum(torn)

    def _places(self) -> Iterator[tuple[int, int]]:
        """Only those that were used: looking at a page that was never written takes memory for it."""
        for worker, words in enumerate(self._arenas):
            for place in range(words[USED]):
                yield worker, place

    def _slot(self, worker: int, place: int) -> SlotView | None:
        """None: it is free, or it was freed while it was looked at."""
        words, at = self._arenas[worker], slot_at(place)
        slot_id = words[at + ID]
        known = self._known.get((worker, place))
        if words[at + SLOT_STATE] == FREE:
            return None
        order()
        if known is not None and known.id == slot_id:
            return known
        if not is_sound(words, place):
            return None
        sizes = [words[at + word] for word in (MODEL_SIZE, DIGEST_SIZE, DESCRIPTION_SIZE)]
        texts = read(self._segments[worker].fd, words[at + OFFSET], sum(sizes))
        model, digest = texts[: sizes[0]], texts[sizes[0] : sizes[0] + sizes[1]]
        view = SlotView(
            worker, place, slot_id, model.decode("utf-8", "replace"), words[at + VERSION], words[at + GENERATION],
            digest.decode("utf-8", "replace"), texts[sizes[0] + sizes[1] :], words[at + SIZE],
        )  # fmt: skip
        order()
        if words[at + SLOT_STATE] == FREE or words[at + ID] != slot_id:
            return None
        self._known[worker, place] = view
        return view
