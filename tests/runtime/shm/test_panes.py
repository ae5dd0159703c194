"""Panes of one worker and one control, both alive: what is observed comes to control, once, in bounded memory."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from shm_panes import COUNTERS, PANE_BYTES, counters, desk, rows_of, slot_of

from runtime.shm.panes_layout import (
    PAGE_BYTES,
)
from runtime.shm.panes_memory import resident_bytes
from runtime.shm.panes_slot import SlotEnded


def test_a_new_epoch_hands_over_what_was_observed_in_the_one_before() -> None:
    with desk(workers=2) as at:
        writer, reader = at.writer(worker=1), at.reader()
        slot = slot_of(writer, "iris", 3, 2)
        reader.raise_epoch(7)
        at.observe(slot)
        at.observe(slot)
        assert reader.closed() == []
        reader.raise_epoch(8)
        at.observe(slot)
        (pane,) = reader.closed()
        assert (pane.slot.worker, pane.slot.model, pane.slot.version, pane.slot.generation) == (1, "iris", 3, 2)
        assert (pane.slot.digest, pane.slot.description) == ("sha256:iris", b"schema")
        assert (pane.serial, pane.epoch, pane.rows) == (1, 7, rows_of(0) + rows_of(1))
        assert (pane.first_unix_ns, pane.last_unix_ns) == (1_000, 1_001)
        assert np.frombuffer(pane.read(), np.int64)[:3].tolist() == [rows_of(0), rows_of(1), 0]
        reader.acknowledge(pane)
        assert reader.closed() == []
        reader.raise_epoch(9)
        at.observe(slot)
        (pane,) = reader.closed()
        assert (pane.serial, pane.epoch, pane.rows) == (2, 8, rows_of(2))


def test_times_are_in_order_though_a_later_thread_came_first() -> None:
    with desk() as at:
        slot, reader = slot_of(at.writer()), at.reader()
        for now_ns in (5_001, 5_000):
            slot.enter()[0] += 1
            slot.leave(1, now_ns)
        slot.end()
        (pane,) = reader.closed()
        assert (pane.first_unix_ns, pane.last_unix_ns) == (5_000, 5_001)


def test_each_pane_begins_as_zeros_though_the_worker_clears_none() -> None:
    with desk() as at:
        given: list[int] = []

        def made(memory: memoryview) -> object:
            given.append(sum(memory))
            memory[:] = b"\1" * len(memory)
            return memory

        reader = at.reader()
        slot = at.writer().slot("m", 1, 1, "", b"", PANE_BYTES, made)
        assert slot is not None
        for epoch in range(1, 6):
            slot.enter()
            slot.leave(1, 1)
            reader.raise_epoch(epoch)
            slot.enter()
            slot.leave(0, 1)
            at.stored.clear()
            (pane,) = reader.closed()
            assert pane.read() == b"\1" * PANE_BYTES
            reader.acknowledge(pane)
        assert given == [0] * 6


def test_while_control_is_away_the_open_pane_goes_on_and_nothing_is_lost() -> None:
    with desk() as at:
        slot, reader = slot_of(at.writer()), at.reader()
        for epoch in range(1, 10):
            reader.raise_epoch(epoch)
            at.observe(slot)
        first, *others = reader.closed()
        assert (first.serial, first.rows, others) == (1, rows_of(0), [])
        assert at.store(reader) == 1
        at.observe(slot)
        assert at.store(reader) == 1, "the next observation closes what has waited"
        slot.end()
        assert at.store(reader) == 1
        assert at.seen() == dict.fromkeys(range(10), 1)


def test_a_pane_without_rows_is_not_closed_and_takes_the_new_epoch() -> None:
    with desk() as at:
        writer, reader = at.writer(), at.reader()
        slot = slot_of(writer)
        reader.raise_epoch(4)
        writer.tick()
        reader.raise_epoch(5)
        writer.tick()
        assert reader.closed() == []
        at.observe(slot)
        slot.end()
        (pane,) = reader.closed()
        assert (pane.serial, pane.epoch) == (1, 5)


def test_a_tick_hands_over_the_rows_of_a_version_that_no_request_comes_to() -> None:
    with desk() as at:
        writer, reader = at.writer(), at.reader()
        slots = [slot_of(writer, model) for model in "abc"]
        for slot in slots[:2]:
            at.observe(slot)
        writer.tick()
        assert reader.closed() == []
        reader.raise_epoch(1)
        writer.tick()
        assert [pane.slot.model for pane in reader.closed()] == ["a", "b"]


def test_an_unloaded_versions_memory_is_free_when_control_has_collected_its_panes() -> None:
    with desk(slots=1) as at:
        writer, reader = at.writer(), at.reader()
        slot = slot_of(writer)
        at.observe(slot)
        reader.raise_epoch(1)
        at.observe(slot)
        before = resident_bytes(at.arenas[0].fd)
        slot.end()
        slot.end()
        with pytest.raises(SlotEnded, match="this one was unloaded"):
            slot.enter()
        writer.tick()
        assert [pane.serial for pane in reader.closed()] == [1, 2]
        assert writer.slot("n", 1, 1, "", b"", PANE_BYTES, counters) is None
        assert at.store(reader) == 2
        writer.tick()
        assert (reader.slots(), reader.figures()[0].slots) == ([], 0)
        assert resident_bytes(at.arenas[0].fd) == before - 3 * PAGE_BYTES, "texts, and what was written of two panes"
        at.observe(slot_of(writer, "n"))
        assert at.store(reader, also_open=True) == 1
        assert at.seen() == {0: 1, 1: 1, 2: 1}


def test_a_version_without_rows_is_free_at_once() -> None:
    with desk(slots=1) as at:
        writer = at.writer()
        for version in range(1, 20):
            slot_of(writer, version=version).end()
            writer.tick()


def test_a_slot_in_a_used_place_is_not_taken_for_acknowledged() -> None:
    """Its panes have the serials of the one that was there before."""
    with desk(slots=1) as at:
        writer, reader = at.writer(), at.reader()
        for model in "abcd":
            slot = slot_of(writer, model)
            at.observe(slot)
            slot.end()
            assert [(pane.serial, pane.slot.model) for pane in reader.closed()] == [(1, model)]
            at.store(reader)
            writer.tick()
        assert at.seen() == dict.fromkeys(range(4), 1)


def test_at_drain_all_panes_are_closed_and_no_slot_is_given_out_any_more() -> None:
    with desk() as at:
        writer, reader = at.writer(), at.reader()
        for model in "ab":
            at.observe(slot_of(writer, model))
        writer.close()
        assert at.store(reader) == 2
        assert writer.slot("c", 1, 1, "", b"", PANE_BYTES, counters) is None
        assert reader.figures()[0].refused_slots == 0
        writer.tick()
        assert reader.slots() == []


def test_the_last_collection_takes_open_panes_but_for_half_written_ones() -> None:
    with desk() as at:
        writer, reader = at.writer(), at.reader()
        whole, half = slot_of(writer, "whole"), slot_of(writer, "half")
        slot_of(writer, "empty")
        at.observe(whole)
        at.observe(half)
        half.enter()
        assert reader.closed() == []
        assert [pane.slot.model for pane in reader.closed(also_open=True)] == ["whole"]
        assert reader.half_written() == (1, rows_of(1))
        assert at.store(reader, also_open=True) == 1
        assert reader.closed(also_open=True) == []
        half.leave(0, 0)


def test_an_observation_that_failed_is_discarded_with_its_pane_and_counted() -> None:
    with desk() as at:
        slot, reader = slot_of(at.writer()), at.reader()
        for _ in range(2):
            at.observe(slot)
            slot.enter()[500] = 3
            slot.abandon()
        (figures,) = reader.figures()
        assert (figures.discarded_panes, figures.discarded_rows) == (2, rows_of(0) + rows_of(1))
        at.observe(slot)
        slot.end()
        assert at.store(reader) == 1
        assert at.seen() == {2: 1}


def test_where_a_pane_cannot_be_made_the_one_before_goes_on() -> None:
    with desk() as at:
        fails = False

        def made(memory: memoryview) -> object:
            if fails:
                memory[:8] = b"\1" * 8
                raise RuntimeError("no")
            return counters(memory)

        writer, reader = at.writer(), at.reader()
        slot = writer.slot("m", 1, 1, "", b"", PANE_BYTES, made)
        assert slot is not None
        at.observe(slot)
        reader.raise_epoch(1)
        fails = True
        for _ in range(2):
            with pytest.raises(RuntimeError, match="no"):
                slot.enter()
        with pytest.raises(RuntimeError, match="no"):
            writer.slot("n", 1, 1, "", b"", PANE_BYTES, made)
        fails = False
        assert reader.closed() == []
        at.observe(slot)
        slot.end()
        assert at.store(reader) == 2
        assert at.seen() == {0: 1, 1: 1}
        assert [view.model for view in reader.slots()] == ["m"], "what failed left nothing behind"


def test_what_was_acknowledged_is_not_zeroed_again() -> None:
    with desk() as at:
        writer, reader = at.writer(), at.reader()
        slot = slot_of(writer)
        at.observe(slot)
        reader.raise_epoch(1)
        at.observe(slot)
        (first,) = reader.closed()
        at.store(reader)
        for epoch in range(2, 6):  # in the memory of the first, with what was acknowledged last before it and after it
            reader.raise_epoch(epoch)
            at.observe(slot)
            reader.acknowledge(first)
            at.store(reader)
            reader.acknowledge(first)
        slot.end()
        at.store(reader)
        writer.tick()
        at.observe(slot_of(writer, "n"))
        reader.acknowledge(first)
        at.store(reader, also_open=True)
        assert at.seen() == dict.fromkeys(range(7), 1)


def test_several_threads_observe_while_others_tick_and_collect() -> None:
    """Each observation is in exactly one pane, and whole in it."""
    with desk(slots=3) as at:
        writer, reader = at.writer(), at.reader()
        slots = [slot_of(writer, model) for model in "ab"]
        done = threading.Event()

        def observe(thread: int) -> None:
            for number in range(3_000):
                slot = slots[number % 2]
                into = slot.enter()
                into[thread] += 2
                into[COUNTERS - 1 - thread] += 2
                slot.leave(4, number)

        def tick() -> None:
            while not done.is_set():
                writer.tick()

        threads = [threading.Thread(target=observe, args=(thread,)) for thread in range(4)]
        ticking = threading.Thread(target=tick)
        for thread in (*threads, ticking):
            thread.start()
        total = np.zeros(COUNTERS, np.int64)
        epoch = 0

        def collect() -> None:
            for pane in reader.closed():
                values = np.frombuffer(pane.read(), np.int64)
                assert values.sum() == pane.rows
                assert (values[:4] == values[: COUNTERS - 5 : -1]).all()
                total[:] += values
                reader.acknowledge(pane)

        while any(thread.is_alive() for thread in threads):
            reader.raise_epoch(epoch := epoch + 1)
            collect()
        done.set()
        ticking.join()
        writer.close()
        collect()
        assert total[:4].tolist() == [6_000] * 4


def test_an_epoch_never_falls() -> None:
    with desk() as at:
        reader = at.reader()
        for epoch in (3, 2, 3):
            reader.raise_epoch(epoch)
            assert at.reader().epoch == 3
