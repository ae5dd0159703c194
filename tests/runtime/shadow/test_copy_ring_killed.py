"""Either end of the ring is killed: before each store of a word, and for real, at any instant."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from copy_rings import CopyDesk, copy_desk, pair_of
from shm_panes import Fuse, Fused, Killed

from runtime.shadow import ring_writer
from runtime.shadow.ring_map import CopyCounter, CopyRing, map_copy_ring
from runtime.shadow.ring_reader import CopyReader
from runtime.shm.segment import Segment

PAIR = pair_of()

END_OF_THE_RING = """
import itertools, sys, time
from copy_rings import CopyDesk, pair_of
from runtime.shm.segment import Segment

class Writing(CopyDesk):
    def restart_reader(self): pass

class Reading(CopyDesk):
    def restart_writer(self): pass

role, fd, first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
segment = Segment.attach(fd, writable=True)
end = time.monotonic() + 120  # bounded: it outlives a test run that is killed
if role == "write":
    at = Writing(segment)
    place = at.place(pair_of())
    print("here", flush=True)
    for number in itertools.count(first):
        if time.monotonic() > end:
            break
        at.write(place, number, rows=(1,) * (1 + number % 3), columns=1 + number % 50)
        time.sleep(0)
else:
    at = Reading(segment)
    from runtime.shadow.ring_layout import Status
    slot = at.slot(pair_of())
    at.reader.tell(slot, {"lost": at.reader.untold(slot)})
    at.reader.set_status(slot, Status.READY)
    print("here", flush=True)
    while time.monotonic() < end:
        taken = at.reader.look()
        if taken is None:
            continue
        if taken.unix_ns % 5:
            at.take(pair_of())
            at.reader.tell(slot, {"compared": taken.requests})
        else:
            at.reader.drop()
            at.reader.tell(slot, {"late": taken.requests})
"""


@contextmanager
def fused(at: CopyDesk, fuse: Fuse) -> Iterator[None]:
    """The writer and the reader that are made within are killed by the fuse."""

    def mapped(segment: Segment) -> CopyRing:
        ring = map_copy_ring(segment)
        return replace(ring, words=Fused(ring.words, fuse))  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring_writer, "map_copy_ring", mapped)
        at.restart_writer()
        at.reader = CopyReader(mapped(at.segment), 0)
        yield


def stores(scenario: Callable[[CopyDesk], None], before: Callable[[CopyDesk], None]) -> int:
    fuse = Fuse()
    with copy_desk() as at:
        before(at)
        with fused(at, fuse):
            burnt = fuse.burnt
            scenario(at)
    return fuse.burnt - burnt


def write_three(at: CopyDesk) -> None:
    place = at.place(PAIR)
    for number in range(3):
        at.write(place, number, rows=(1, 1))


def nothing(_: CopyDesk) -> None:
    pass


def test_a_writer_killed_before_any_store_leaves_whole_copies_and_true_counts() -> None:
    total = stores(write_three, nothing)
    assert total > 20, "the words of a pair are among them"
    for left in range(total):
        fuse = Fuse()
        with copy_desk() as at:
            with fused(at, fuse):
                fuse.left = fuse.burnt + left
                with pytest.raises(Killed):
                    write_three(at)
            at.restart_reader()
            at.restart_writer()
            place, slot = at.begin(PAIR)
            for number in (100, 101):
                at.write(place, number, rows=(1, 1))
            seen = at.take_all(PAIR)
            assert seen in [[*range(count), 100, 101] for count in range(4)]
            assert (at.counts(PAIR).chosen, at.reader.untold(slot)) == (2 * len(seen), 2 * len(seen))


def test_a_reader_killed_before_any_store_loses_what_it_had_and_nothing_else() -> None:
    def read_three(at: CopyDesk) -> list[int]:
        seen: list[int] = []
        slot = at.slot(PAIR)
        try:
            for _ in range(3):
                found = at.take(PAIR)
                assert found is not None
                seen.append(found)
                at.reader.tell(slot, {"compared": 2})
        except Killed:
            pass
        return seen

    def write_five(at: CopyDesk) -> None:
        place = at.place(PAIR)
        for number in range(5):
            at.write(place, number, rows=(1, 1))

    for left in range(stores(read_three, write_five)):
        fuse = Fuse()
        with copy_desk() as at:
            write_five(at)
            with fused(at, fuse):
                fuse.left = fuse.burnt + left
                first = read_three(at)
            at.restart_reader()
            slot = at.slot(PAIR)
            lost = at.reader.untold(slot)
            at.reader.tell(slot, {"lost": lost})
            second = at.take_all(PAIR)
            assert not set(first) & set(second), "what was taken is not run again: it may have killed its reader"
            counts = at.counts(PAIR)
            assert counts.chosen == 10
            assert counts.waiting == 2 * len(second)
            assert counts.outcomes["compared"] + lost + 2 * len(second) == 10


class End:
    """A process at one end of the ring."""

    def __init__(self, role: str, at: CopyDesk) -> None:
        self.role = role
        self._fd = at.segment.fd
        self._times = 0
        self.start()

    def start(self) -> None:
        self._times += 1
        command = [sys.executable, "-c", END_OF_THE_RING, self.role, str(self._fd), str(self._times * 10_000_000)]
        self.process = subprocess.Popen(command, pass_fds=(self._fd,), stdout=subprocess.PIPE, env=ENVIRONMENT)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"here\n"

    def kill(self) -> None:
        self.process.kill()
        assert self.process.wait() == -9, "it has not ended by itself, over a copy that is not whole"
        assert self.process.stdout is not None
        self.process.stdout.close()


ENVIRONMENT = {"PYTHONPATH": ":".join(path for path in sys.path if path)}


def test_real_processes_killed_at_any_instant_lose_no_count() -> None:
    random_ = random.Random(3)
    with copy_desk(room=32 * 1024) as at:
        at.place(PAIR)
        counter = CopyCounter([map_copy_ring(at.segment)])
        ends = [End("write", at), End("read", at)]
        seen = 0
        for _ in range(16):
            end = time.monotonic() + 30
            while counter.counts()[PAIR.key].outcomes["compared"] < seen + 200:
                assert time.monotonic() < end, "copies go on being compared"
            time.sleep(random_.random() * 0.01)
            killed = random_.choice(ends)
            killed.kill()
            seen = counter.counts()[PAIR.key].outcomes["compared"]
            killed.start()
        for each in ends:
            each.kill()
        at.restart_writer()
        at.restart_reader()
        slot = at.slot(PAIR)
        at.reader.tell(slot, {"lost": at.reader.untold(slot)})
        at.take_all(PAIR)
        waited = at.reader.untold(slot)
        counts = counter.counts()[PAIR.key]
        assert counts.waiting == waited
        assert counts.chosen == sum(counts.shed.values()) + sum(counts.outcomes.values()) + waited
        assert counts.outcomes["lost"] <= 3 * 17, "at most one copy with each kill"
