"""A version whose code a process died in has crashed once, whatever else the page holds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from runtime.shm.crashes import Crash, note_crashes
from runtime.shm.segment import Segment
from runtime.shm.statistics import StatisticsReader, StatisticsWriter, VersionCounts
from runtime.shm.statistics_layout import HEADER, LAYOUT_VERSION, MAGIC, MARKS, SLOTS, create_page

DIES_IN_A_RUN = """
import os, signal, sys
from runtime.shm.segment import Segment
from runtime.shm.statistics import StatisticsWriter
writer = StatisticsWriter(Segment.attach(int(sys.argv[1]), writable=True))
ended, running = writer.slot("m", 1), writer.slot("m", 2)
ended.end(ended.begin())
running.begin(), running.begin()
os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.fixture
def page() -> Iterator[Segment]:
    segment = create_page("statistics")
    yield segment
    segment.close()


def test_a_process_that_dies_in_a_run_names_the_version(page: Segment) -> None:
    done = subprocess.run([sys.executable, "-c", DIES_IN_A_RUN, str(page.fd)], pass_fds=[page.fd], check=False)
    assert done.returncode == -signal.SIGSEGV
    assert note_crashes(page, count=True) == [Crash("m", 2, 2)]
    reader = StatisticsReader([page])
    assert (reader.crashes("m", 1), reader.crashes("m", 2)) == (0, 1), "one process, one crash, however many runs"
    assert note_crashes(page, count=True) == [], "it is counted once"


def test_an_end_from_outside_is_no_crash_and_leaves_no_mark(page: Segment) -> None:
    StatisticsWriter(page).slot("m", 1).begin()
    assert note_crashes(page, count=False) == [Crash("m", 1, 1)]
    assert StatisticsReader([page]).all_crashes() == {}
    assert note_crashes(page, count=True) == []


def test_crashes_of_all_pages_are_added_up_and_survive_the_next_process(page: Segment) -> None:
    shadow = create_page("shadow")
    for each in (page, shadow, shadow):
        StatisticsWriter(each).mark("m", 7).begin()
        note_crashes(each, count=True)
    StatisticsWriter(page).slot("m", 7).add_run(1, 1, 1, 1, 1, 1, 1, 1)
    reader = StatisticsReader([page], [shadow])
    assert reader.crashes("m", 7) == 3
    assert [counts.runs for counts in reader.totals()] == [1], "of the others nothing but crashes is read"
    shadow.close()


def test_a_version_that_never_loaded_can_crash_and_is_in_no_total(page: Segment) -> None:
    writer = StatisticsWriter(page)
    mark = writer.mark("m", 1)
    mark.end(mark.begin())
    reader = StatisticsReader([page])
    assert reader.totals() == []
    writer.mark("m", 1).begin()
    note_crashes(page, count=True)
    assert (reader.totals(), reader.crashes("m", 1)) == ([], 1)
    writer.slot("m", 1)
    assert reader.totals() == [VersionCounts("m", 1)]


def test_more_at_once_than_there_are_words_are_still_known(page: Segment) -> None:
    mark = StatisticsWriter(page).slot("m", 1)
    begun = [mark.begin() for _ in range(MARKS + 9)]
    for place in begun[:-1]:
        mark.end(place)
    assert note_crashes(page, count=True) == [Crash("m", 1, 1)]


def test_many_threads_leave_no_mark_when_all_have_ended(page: Segment) -> None:
    mark = StatisticsWriter(page).slot("m", 1)

    def work() -> None:
        for _ in range(5_000):
            mark.end(mark.begin())

    threads = [threading.Thread(target=work) for _ in range(MARKS + 4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert note_crashes(page, count=True) == []


def test_a_slot_that_another_version_takes_keeps_nothing_of_the_old_one(page: Segment) -> None:
    writer = StatisticsWriter(page)
    writer.mark("old", 1).begin()
    note_crashes(page, count=True)
    kept = [writer.slot("m", version) for version in range(1, SLOTS + 1)]  # the last takes the place of the old one
    reader = StatisticsReader([page])
    assert reader.crashes("old", 1) == 0
    assert reader.all_crashes() == {}
    assert len(kept) == len(reader.totals())


def test_a_new_writer_takes_away_marks_that_nobody_counted(page: Segment) -> None:
    StatisticsWriter(page).slot("m", 1).begin()
    StatisticsWriter(page)
    assert note_crashes(page, count=True) == []


def test_what_a_broken_process_wrote_over_ends_nothing(page: Segment) -> None:
    page.buffer[:] = os.urandom(len(page.buffer))
    assert note_crashes(page, count=True) == []
    HEADER.pack_into(page.buffer, 0, MAGIC, LAYOUT_VERSION, SLOTS)
    for crash in note_crashes(page, count=True):
        assert crash.model.encode(), "bytes that are no text are shown all the same"
    small = Segment.create("small", 64)
    assert note_crashes(small, count=True) == []
    small.close()
