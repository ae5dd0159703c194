"""The bounds of panes: memory, slots, and segments that are not what they should be."""

from __future__ import annotations

import os

import pytest
from shm_panes import COUNTERS, PANE_BYTES, SLOT_BYTES, counters, desk, slot_of

from runtime.shm.panes_layout import (
    ALLOCATIONS_AT,
    HEADS_AT,
    PAGE_BYTES,
    SLOT_WORDS,
    SLOTS,
    PanesMismatch,
    create_arena,
    create_pane_control,
    slot_at,
)
from runtime.shm.panes_memory import resident_bytes
from runtime.shm.panes_reader import PaneReader
from runtime.shm.panes_writer import PaneWriter
from runtime.shm.segment import Segment


def test_an_arena_is_as_large_as_drawn() -> None:
    assert (SLOT_WORDS, HEADS_AT, ALLOCATIONS_AT) == (2 * HEADS_AT, 2 * 8, 65 * PAGE_BYTES)
    with desk(slots=2) as at:
        assert at.arenas[0].size_bytes == ALLOCATIONS_AT + 2 * SLOT_BYTES
        assert resident_bytes(at.arenas[0].fd) == PAGE_BYTES, "its header"


def test_a_full_arena_refuses_counts_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with desk(slots=2) as at:
        writer, reader = at.writer(), at.reader()
        slots = [slot_of(writer, model) for model in "ab"]
        for _ in range(3):
            assert writer.slot("c", 4, 1, "", b"", PANE_BYTES, counters) is None
        (figures,) = reader.figures()
        assert (figures.slots, figures.refused_slots, figures.used_bytes) == (2, 3, 2 * SLOT_BYTES)
        (record,) = caplog.records
        assert "no statistics are kept of c version 4" in record.getMessage()
        slots[0].end()
        writer.tick()
        slot_of(writer, "c", 4)


def test_a_full_table_refuses() -> None:
    with desk(slots=SLOTS) as at:
        writer, reader = at.writer(), at.reader()
        for version in range(SLOTS):
            assert writer.slot("m", version, 1, "", b"", 1, bytes) is not None
        assert writer.slot("m", SLOTS, 1, "", b"", 1, bytes) is None
        assert (len(reader.slots()), reader.figures()[0].refused_slots) == (SLOTS, 1)


def test_a_slots_memory_is_known_before_it_is_taken() -> None:
    with desk() as at:
        writer, reader = at.writer(), at.reader()
        header = resident_bytes(at.arenas[0].fd)
        slot = slot_of(writer)
        assert slot.used_bytes == reader.slots()[0].used_bytes == SLOT_BYTES
        into = slot.enter()
        into[:] = 1
        slot.leave(COUNTERS, 1)
        reader.raise_epoch(1)
        slot.enter()[:] = 1
        slot.leave(COUNTERS, 1)
        assert resident_bytes(at.arenas[0].fd) - header == SLOT_BYTES
        assert at.store(reader) == 1
        assert resident_bytes(at.arenas[0].fd) - header == SLOT_BYTES - 2 * PAGE_BYTES


def test_reading_a_pane_takes_no_memory_for_what_was_never_written() -> None:
    with desk(slots=200) as at:
        slot, reader = at.writer().slot("m", 1, 1, "", b"", 100 * PAGE_BYTES, counters), at.reader()
        assert slot is not None
        slot.enter()[0] = 1
        slot.leave(1, 1)
        slot.end()
        before = resident_bytes(at.arenas[0].fd)
        (pane,) = reader.closed()
        assert len(pane.read()) == 100 * PAGE_BYTES
        assert resident_bytes(at.arenas[0].fd) == before


def test_whoever_has_everything_read_only_may_look() -> None:
    with desk() as at:
        slot = slot_of(at.writer(), "iris")
        at.observe(slot)
        slot.end()
        segments = [Segment.attach(os.dup(each.fd), writable=False) for each in (at.arenas[0], at.page)]
        reader = PaneReader(segments[:1], segments[1])
        assert [view.model for view in reader.slots()] == ["iris"]
        assert reader.figures()[0].slots == 1
        (pane,) = reader.closed()
        del reader, pane
        for segment in segments:
            segment.close()


@pytest.mark.parametrize("at_byte", [0, 8, 12, 16, 24 + 4, 64 + 4])
def test_an_arena_whose_header_is_damaged_is_refused(at_byte: int) -> None:
    with desk() as at:
        at.arenas[0].buffer[at_byte] ^= 0x55
        with pytest.raises(PanesMismatch, match="expected"):
            PaneWriter(at.arenas[0], at.page, 0)
        with pytest.raises(PanesMismatch, match="an arena of panes"):
            PaneReader(at.arenas, at.page)


@pytest.mark.parametrize("at_byte", [0, 8, 12, 16])
def test_a_control_page_that_is_damaged_is_refused(at_byte: int) -> None:
    with desk() as at:
        at.page.buffer[at_byte] ^= 0x55
        with pytest.raises(PanesMismatch, match="a control page of panes of layout 1 for 1 workers"):
            PaneWriter(at.arenas[0], at.page, 0)


def test_segments_that_are_too_small_or_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=f"an arena of panes has at least {ALLOCATIONS_AT + 3 * PAGE_BYTES} bytes"):
        create_arena("small", ALLOCATIONS_AT + 3 * PAGE_BYTES - 1)
    small = Segment.create("small", 32)
    with desk() as at:
        for arena, page, worker in ((small, at.page, 0), (at.arenas[0], small, 0), (at.arenas[0], at.page, 1)):
            with pytest.raises(PanesMismatch):
                PaneWriter(arena, page, worker)
        writer = at.writer()
        with pytest.raises(ValueError, match="expected a pane of at least 1 byte for m version 1, got 0"):
            writer.slot("m", 1, 1, "", b"", 0, counters)
    small.close()


def test_a_page_for_more_workers_than_there_are_is_no_mismatch() -> None:
    with desk() as at:
        page = create_pane_control("larger", 8)
        assert PaneReader(at.arenas, page).closed() == []
        page.close()


def test_a_damaged_slot_is_dropped_by_the_next_worker_and_shown_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with desk() as at:
        writer, reader = at.writer(), at.reader()
        for model in "abc":
            at.observe(slot_of(writer, model))
        words = memoryview(at.arenas[0].buffer).cast("Q")
        words[slot_at(1) + 4] = 1 << 40  # its offset
        words[slot_at(2) + 4] = words[slot_at(0) + 4]
        assert [view.model for view in reader.slots()[:1]] == ["a"]
        at.writer()
        assert [pane.slot.model for pane in reader.closed()] == ["a"]
        (figures,) = reader.figures()
        assert (figures.slots, figures.discarded_panes, figures.discarded_rows) == (1, 2, 0)
        assert [record.levelname for record in caplog.records] == ["ERROR"] * 2
        del words
