"""Either end of the panes is killed before each of its stores, one after the other, and nothing is lost but what must.

What must: the pane that a worker was writing to when it was killed. Its rows are counted.
"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from shm_panes import PANE_BYTES, Desk, Fuse, Killed, Slot, counters, desk, rows_of, slot_of

from runtime.shm.panes_layout import PAGE_BYTES
from runtime.shm.panes_memory import resident_bytes
from runtime.shm.panes_reader import PaneReader
from runtime.shm.panes_writer import PaneWriter


def work(at: Desk, writer: PaneWriter, reader: PaneReader) -> None:
    """Everything that a worker does with panes, some of it twice."""
    first, second = slot_of(writer, "first"), slot_of(writer, "second")
    at.observe(first)
    at.observe(second)
    at.observe(first)
    reader.raise_epoch(reader.epoch + 1)
    at.observe(first)  # closes, and begins the other
    writer.tick()  # as for `second`
    at.store(reader)
    reader.raise_epoch(reader.epoch + 1)
    at.observe(first)
    reader.raise_epoch(reader.epoch + 1)
    at.observe(first)  # finds the other one uncollected
    second.end()
    writer.tick()
    third = slot_of(writer, "third")  # in the place of `second`
    at.observe(third)
    reader.raise_epoch(reader.epoch + 1)
    at.observe(third)
    first.end()
    at.store(reader)
    writer.tick()
    writer.close()
    at.store(reader)
    writer.tick()


def finish(at: Desk) -> None:
    """The next worker and the next control do what is left, and every observation is accounted for."""
    in_flight = 0 if at.in_flight is None else rows_of(at.in_flight)
    writer, reader = at.writer(), at.reader()
    at.store(reader)
    writer.tick()
    seen = at.seen()
    assert set(seen.values()) <= {1}, "an observation is in two panes"
    assert set(seen) <= {*at.observed, at.in_flight}
    lost = sum(rows_of(number) for number in at.observed if number not in seen)
    (figures,) = reader.figures()
    assert figures.discarded_rows in (lost, lost + in_flight), "what is lost is counted"
    assert (figures.discarded_panes > 0) >= (lost > 0)
    assert (figures.slots, reader.closed(), reader.half_written()) == (0, [], (0, 0))
    arena = at.arenas[0]
    assert resident_bytes(arena.fd) <= 2 * PAGE_BYTES, "header and first slots: all else is free"
    assert not any(arena.buffer[2 * PAGE_BYTES :])


def stores_of_work() -> int:
    with desk() as at:
        fuse = Fuse()
        work(at, at.writer(fuse), at.reader())
        finish(at)
        assert len(at.observed) == len(at.seen()) == 8
        return fuse.burnt


def test_a_worker_killed_before_any_of_its_stores_loses_at_most_the_pane_it_wrote() -> None:
    stores = stores_of_work()
    assert stores > 150
    losses = 0
    for left in range(stores):
        with desk() as at:
            reader = at.reader()
            with pytest.raises(Killed):
                work(at, at.writer(Fuse(left)), reader)
            finish(at)
            losses += len(at.observed) > len(at.seen())
    assert 0 < losses < stores / 3


def test_a_worker_that_is_killed_while_it_takes_over_leaves_it_to_the_next() -> None:
    """The first is killed in the middle of an observation, with a closed pane, an ended slot and an open pane left."""
    stores = 0
    for left in range(1000):
        with desk() as at:
            writer, reader = at.writer(), at.reader()
            for model in "abc":
                at.observe(slot_of(writer, model))
            reader.raise_epoch(1)
            slot = slot_of(writer, "d")
            for _ in range(2):
                at.observe(slot)
            reader.raise_epoch(2)
            at.observe(slot)
            slot_of(writer, "e").end()
            at.worker_fuse.left = at.worker_fuse.burnt + 2
            with pytest.raises(Killed):
                at.observe(slot)
            fuse = Fuse(left)
            try:
                at.writer(fuse)
            except Killed:
                stores += 1
            finish(at)
            assert at.reader().figures()[0].discarded_panes == 1
            if fuse.burnt <= left:
                break
    assert stores >= 20


def test_a_worker_killed_while_it_discards_counts_it_once() -> None:
    for left in range(12):
        with desk() as at:
            writer = at.writer()
            slot = slot_of(writer)
            at.observe(slot)
            slot.enter()
            at.worker_fuse.left = at.worker_fuse.burnt + left
            with contextlib.suppress(Killed):
                slot.abandon()
                at.observe(slot)
            at.in_flight = None
            finish(at)
            figures = at.reader().figures()[0]
            assert (figures.discarded_panes, figures.discarded_rows) in ((1, rows_of(0)), (2, rows_of(0)))


def test_a_control_killed_before_any_of_its_stores_stores_each_pane_once() -> None:
    """It gets no pane that its predecessor has begun to zero."""
    for kills in range(1000):
        with desk() as at:
            writer, reader = at.writer(), at.reader(Fuse(kills))
            slots = [slot_of(writer, model) for model in "ab"]
            was_killed = False
            try:
                for _ in range(3):
                    reader.raise_epoch(reader.epoch + 1)
                    for slot in slots:
                        at.observe(slot)
                    at.store(reader)
            except Killed:
                was_killed = True
            for slot in slots:
                at.observe(slot)
            writer.close()
            at.store(at.reader())
            assert at.seen() == dict.fromkeys(at.observed, 1)
            finish(at)
            if not was_killed:
                break
    assert kills > 20


class Panes(RuleBasedStateMachine):
    """Both ends do what they do in any order, and are killed before any store; another takes each one's place."""

    def __init__(self) -> None:
        super().__init__()
        self.context = desk(slots=3)
        self.at = self.context.__enter__()
        self.slots: list[Slot] = []
        self.discarded = 0  # the most rows of observations that were in flight when their worker was killed

    @initialize()
    def start(self) -> None:
        self.writer, self.reader = self.at.writer(), self.at.reader()

    def new_worker(self, fuse: int | None = None) -> None:
        if self.at.in_flight is not None:
            self.discarded += rows_of(self.at.in_flight)
        self.at.in_flight = None
        self.slots.clear()
        try:
            self.writer = self.at.writer(None if fuse is None else Fuse(fuse))
        except Killed:
            self.writer = self.at.writer()

    def burning(self, left: int | None) -> None:
        fuse = self.at.worker_fuse
        fuse.left = 1 << 60 if left is None else fuse.burnt + left

    fuses = st.none() | st.integers(0, 25)

    @rule(fuse=fuses)
    def load(self, fuse: int | None) -> None:
        self.burning(fuse)
        try:
            slot = self.writer.slot("m", len(self.slots), 1, "", b"", PANE_BYTES, counters)
        except Killed:
            self.new_worker()
        else:
            assert slot is not None or self.at.reader().figures()[0].slots == 3
            self.slots += [slot] if slot is not None else []

    @precondition(lambda self: self.slots)
    @rule(data=st.data(), fuse=fuses)
    def observe(self, data: st.DataObject, fuse: int | None) -> None:
        self.burning(fuse)
        try:
            self.at.observe(data.draw(st.sampled_from(self.slots)))
        except Killed:
            self.new_worker(fuse)

    @precondition(lambda self: self.slots)
    @rule(data=st.data(), fuse=fuses)
    def fail(self, data: st.DataObject, fuse: int | None) -> None:
        self.burning(fuse)
        try:
            slot = data.draw(st.sampled_from(self.slots))
            slot.enter()[999] = 1
            slot.abandon()
        except Killed:
            self.new_worker(fuse)

    @precondition(lambda self: self.slots)
    @rule(data=st.data(), fuse=fuses)
    def unload(self, data: st.DataObject, fuse: int | None) -> None:
        slot = data.draw(st.sampled_from(self.slots))
        self.slots.remove(slot)
        self.burning(fuse)
        try:
            slot.end()
        except Killed:
            self.new_worker(fuse)

    @rule(fuse=fuses)
    def tick(self, fuse: int | None) -> None:
        self.burning(fuse)
        try:
            self.writer.tick()
        except Killed:
            self.new_worker(fuse)

    @rule()
    def begin_epoch(self) -> None:
        self.at.control_fuse = Fuse()
        self.reader.raise_epoch(self.reader.epoch + 1)

    @rule(fuse=fuses)
    def collect(self, fuse: int | None) -> None:
        self.at.control_fuse = Fuse() if fuse is None else Fuse(fuse)
        try:
            self.at.store(self.reader)
        except Killed:
            self.reader = self.at.reader()

    @rule()
    def drain(self) -> None:
        self.burning(None)
        self.writer.close()
        self.new_worker()

    def teardown(self) -> None:
        self.new_worker()
        self.at.store(self.at.reader())
        seen = self.at.seen()
        assert set(seen.values()) <= {1}
        lost = sum(rows_of(number) for number in self.at.observed if number not in seen)
        figures = self.at.reader().figures()[0]
        assert lost <= figures.discarded_rows <= lost + self.discarded
        self.writer.tick()
        assert self.at.reader().slots() == []
        assert not any(self.at.arenas[0].buffer[2 * PAGE_BYTES :])
        self.context.__exit__(None, None, None)


TestPanes = Panes.TestCase
TestPanes.settings = settings(max_examples=150, stateful_step_count=40)
