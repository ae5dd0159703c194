"""The statistics page: one writer, any readers, and totals that survive the writer's death in the middle of a write."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.shm.segment import Segment
from runtime.shm.statistics import (
    LayoutMismatch,
    SlotWriter,
    StatisticsReader,
    StatisticsWriter,
    VersionCounts,
    map_page,
)
from runtime.shm.statistics_layout import (
    BATCH_SIZES,
    BATCH_WORDS,
    BATCHES_AT,
    COUNTERS,
    HEADER_BYTES,
    LAYOUT_VERSION,
    PAGE_BYTES,
    SEQUENCE,
    SLOT_WORDS,
    SLOTS,
    USED,
    VERSION_AT,
    create_page,
)

# Each counter is a fixed multiple of the runs, so that a torn read cannot look right.
WRITE_UNTIL_KILLED = """
import sys
from runtime.shm.segment import Segment
from runtime.shm.statistics import StatisticsWriter
slot = StatisticsWriter(Segment.attach(int(sys.argv[1]), writable=True)).slot("m", 1)
slot.add_run(2, 3, 5, 7, 11, 13, 17, 0)
print("writing", flush=True)
for _ in range(1_000_000):  # bounded: it outlives a test run that is killed
    slot.add_run(2, 3, 5, 7, 11, 13, 17, 0)
"""

SAY_SEVEN_IN_FLIGHT = """
import sys
from runtime.shm.segment import Segment
from runtime.shm.statistics import StatisticsWriter
writer = StatisticsWriter(Segment.attach(int(sys.argv[1]), writable=True))
writer.set_in_flight(7)
print("writing", flush=True)
for _ in range(20_000_000):
    writer.set_in_flight(7)
"""
# Forks its writers: each would take a second to start otherwise.
KILL_WRITERS = """
import os
import random
import signal
from runtime.shm.statistics import StatisticsReader, StatisticsWriter
from runtime.shm.statistics_layout import COUNTERS, create_page
page = create_page("statistics")
reader = StatisticsReader([page])
before = (0,) * (len(COUNTERS) + 1)
random.seed(1)
for kill in range(400):
    ready, told = os.pipe()
    writer = os.fork()
    if not writer:
        slot = StatisticsWriter(page).slot("m", 1)
        slot.add_run(2, 3, 5, 7, 11, 13, 17, 19)
        os.write(told, b"x")
        for _ in range(1_000_000):
            slot.add_run(2, 3, 5, 7, 11, 13, 17, 19)
            slot.add_failures(1, 2, cancelled=True)
        os._exit(0)
    os.read(ready, 1)
    for _ in range(random.randrange(10_000)):
        pass
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    os.close(ready)
    os.close(told)
    (counts,) = reader.totals()
    now = *(getattr(counts, name) for name in COUNTERS), counts.batches.get(3, (0,))[0]
    assert all(map(int.__ge__, now, before)), (kill, before, now)
    before = now
assert list(counts.batches) == [3]
assert abs(counts.runs - counts.batches[3][0]) <= 400
print(counts.runs)
"""


@pytest.fixture
def page() -> Iterator[Segment]:
    segment = create_page("statistics")
    yield segment
    segment.close()


def only(page: Segment) -> VersionCounts:
    (counts,) = StatisticsReader([page]).totals()
    return counts


def test_the_page_is_as_large_as_drawn(page: Segment) -> None:
    assert (page.size_bytes, PAGE_BYTES) == (PAGE_BYTES, HEADER_BYTES + SLOTS * SLOT_WORDS * 8)
    assert SLOT_WORDS * 8 == 8 + 128 + 8 + 12 * 8 + 8 + 8 + 16 * 8 + 32 * 5 * 8
    assert StatisticsReader([page]).totals() == []


def test_runs_and_failures_are_counted(page: Segment) -> None:
    slot = StatisticsWriter(page).slot("m", 3)
    slot.add_run(2, 5, 100, 10, 1, 20, 3, 1_000)
    slot.add_run(1, 5, 50, 5, 1, 10, 1, 2_000)
    slot.add_run(1, 0, 7, 1, 0, 0, 0, 3_000)
    slot.add_failures(2, 70, cancelled=False)
    slot.add_failures(1, 30, cancelled=True)
    assert only(page) == VersionCounts(
        "m", 3, successes=4, success_ns=157, failures=3, failure_ns=100, queue_ns=16, input_ns=2, run_ns=30,
        output_ns=4, rows=10, runs=3, last_ms=3_000, cancelled=1, batches={5: (2, 2, 30, 4), 0: (1, 0, 0, 0)},
    )  # fmt: skip


def test_versions_come_in_order_and_each_has_one_slot(page: Segment) -> None:
    writer = StatisticsWriter(page)
    for model, version in (("b", 2), ("a", 10), ("b", 1), ("a", 9)):
        writer.slot(model, version).add_failures(version, 0, cancelled=False)
    assert writer.slot("b", 2) is writer.slot("b", 2)
    assert [(c.model, c.version, c.failures) for c in StatisticsReader([page]).totals()] == [
        ("a", 9, 9), ("a", 10, 10), ("b", 1, 1), ("b", 2, 2)
    ]  # fmt: skip


def test_pages_of_several_workers_add_up(page: Segment) -> None:
    other = create_page("other")
    StatisticsWriter(page).slot("m", 1).add_run(1, 4, 10, 1, 1, 1, 1, 500)
    writer = StatisticsWriter(other)
    writer.slot("m", 1).add_run(2, 4, 20, 2, 2, 2, 2, 400)
    writer.slot("m", 2).add_failures(1, 5, cancelled=False)
    writer.set_in_flight(7)
    reader = StatisticsReader([page, other])
    first, second = reader.totals()
    assert (first.successes, first.success_ns, first.last_ms, first.batches) == (3, 30, 500, {4: (2, 3, 3, 3)})
    assert (second.version, second.failures) == (2, 1)
    assert (reader.in_flight(0), reader.in_flight(1)) == (0, 7)
    other.close()


def test_batch_sizes_beyond_the_table_count_in_the_totals_only(page: Segment) -> None:
    slot = StatisticsWriter(page).slot("m", 1)
    for rows in range(1, BATCH_SIZES + 5):
        slot.add_run(1, rows, 0, 0, 0, 0, 0, 0)
    slot.add_run(1, BATCH_SIZES, 0, 0, 0, 0, 0, 0)
    counts = only(page)
    assert (counts.runs, sorted(counts.batches)) == (BATCH_SIZES + 5, list(range(1, BATCH_SIZES + 1)))
    assert counts.batches[BATCH_SIZES][0] == 2


def full(page: Segment) -> tuple[StatisticsWriter, dict[int, SlotWriter]]:
    """Versions 1 to SLOTS of m, each with as many failures as its number, all of them served."""
    writer = StatisticsWriter(page)
    served = {version: writer.slot("m", version) for version in range(1, SLOTS + 1)}
    for version, slot in served.items():
        slot.add_failures(version, 0, cancelled=False)
    return writer, served


def failures(page: Segment) -> dict[int, int]:
    return {counts.version: counts.failures for counts in StatisticsReader([page]).totals("m")}


def test_a_page_full_of_served_versions_loses_further_ones_and_says_how_many(
    page: Segment, caplog: pytest.LogCaptureFixture
) -> None:
    writer, served = full(page)
    for version in (SLOTS + 1, SLOTS + 2):
        writer.slot("m", version).add_failures(1, 0, cancelled=False)
    reader = StatisticsReader([page])
    assert (len(reader.totals()), reader.lost_versions()) == (SLOTS, 2)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert writer.slot("m", SLOTS) is served[SLOTS]
    assert reader.lost_versions() == 2


def test_in_a_full_page_a_new_version_takes_the_place_of_the_one_served_longest_ago(page: Segment) -> None:
    """A gateway swaps versions for years. Totals of those that stay do not change, also over a restart."""
    writer, served = full(page)
    writer.slot("m", 7)
    for version in (9, 7, 8):
        del served[version]
    assert failures(page)[8] == 8, "as long as there is room they stay"
    writer.slot("n", 1).add_failures(3, 0, cancelled=False)
    assert failures(page) == {version: version for version in range(1, SLOTS + 1) if version != 8}
    assert StatisticsReader([page]).totals("n")[0].failures == 3
    writer.slot("m", 9).add_failures(1, 0, cancelled=False)
    assert failures(page)[9] == 10, "it counts on, where its slot is its own still"
    del served
    again = StatisticsWriter(page)
    again.slot("n", 2).add_run(1, 8, 1, 1, 1, 1, 1, 1)
    assert StatisticsReader([page]).totals("n")[-1] == VersionCounts(
        "n", 2, successes=1, success_ns=1, queue_ns=1, input_ns=1, run_ns=1, output_ns=1, rows=8, runs=1, last_ms=1,
        batches={8: (1, 1, 1, 1)},
    )  # fmt: skip
    assert StatisticsReader([page]).lost_versions() == 0


def test_a_slot_whose_writer_was_killed_between_two_versions_is_free(page: Segment) -> None:
    writer, served = full(page)
    _, slots = map_page(page)
    slots[4, SEQUENCE] += np.uint64(1)
    slots[4, VERSION_AT] = 0
    del writer, served
    assert 5 not in failures(page)
    StatisticsWriter(page).slot("m", 900).add_failures(2, 0, cancelled=False)
    assert (slots[4, SEQUENCE] % 2, failures(page)[900], len(failures(page))) == (0, 2, SLOTS)


def test_so_is_one_whose_writer_was_killed_before_it_was_in_use(page: Segment) -> None:
    header, slots = map_page(page)
    StatisticsWriter(page).slot("m", 1).add_failures(7, 0, cancelled=False)
    header[USED] = 0
    slots[0, SEQUENCE] += np.uint64(1)
    StatisticsWriter(page).slot("m", 2).add_failures(2, 0, cancelled=False)
    assert (slots[0, SEQUENCE] % 2, failures(page)) == (0, {2: 2})


def test_a_restarted_writer_counts_on(page: Segment) -> None:
    StatisticsWriter(page).slot("m", 1).add_run(2, 8, 10, 1, 2, 3, 4, 5)
    again = StatisticsWriter(page)
    again.slot("m", 1).add_run(1, 8, 10, 1, 2, 3, 4, 6)
    again.slot("m", 1).add_run(1, 9, 10, 1, 2, 3, 4, 7)
    again.slot("n", 1).add_failures(1, 1, cancelled=False)
    counts, other = StatisticsReader([page]).totals()
    assert (counts.successes, counts.runs, counts.last_ms) == (4, 3, 7)
    assert counts.batches == {8: (2, 4, 6, 8), 9: (1, 2, 3, 4)}
    assert other.failures == 1


def test_a_name_that_is_cut_has_one_slot_over_restarts_too(page: Segment) -> None:
    for _ in range(3):
        StatisticsWriter(page).slot("é" * 100, 1).add_failures(1, 0, cancelled=False)
    assert (only(page).failures, int(map_page(page)[0][USED])) == (3, 1)


def test_what_a_writer_killed_in_mid_write_left_is_read_and_healed_by_the_next(page: Segment) -> None:
    StatisticsWriter(page).slot("m", 1).add_run(2, 8, 10, 1, 2, 3, 4, 5)
    _, slots = map_page(page)
    slots[0, SEQUENCE] = 7  # odd: it died between the two marks
    assert only(page).successes == 2
    StatisticsWriter(page)
    assert slots[0, SEQUENCE] % 2 == 0
    assert only(page).successes == 2


def test_a_version_whose_slot_was_not_published_is_not_there_and_the_next_one_takes_the_slot(page: Segment) -> None:
    StatisticsWriter(page).slot("killed-before-it-was-whole", 1)
    header, _ = map_page(page)
    header[USED] = 0
    assert StatisticsReader([page]).totals() == []
    StatisticsWriter(page).slot("next", 2).add_failures(1, 1, cancelled=False)
    assert (only(page).model, only(page).version, header[USED]) == ("next", 2, 1)


def test_each_batch_size_keeps_its_row_though_one_before_it_is_free(page: Segment) -> None:
    slot = StatisticsWriter(page).slot("m", 1)
    for rows in (1, 2, 3):
        slot.add_run(1, rows, 1, 1, 1, 1, 1, 1)
    _, slots = map_page(page)
    slots[0, BATCHES_AT : BATCHES_AT + BATCH_WORDS] = 0, 0, 5, 5, 5  # of a writer killed before it counted the run
    again = StatisticsWriter(page).slot("m", 1)
    again.add_run(1, 3, 1, 1, 1, 1, 1, 1)
    assert only(page).batches == {2: (1, 1, 1, 1), 3: (2, 2, 2, 2)}
    again.add_run(1, 4, 1, 1, 1, 1, 1, 1)
    again.add_run(1, 2, 1, 1, 1, 1, 1, 1)
    assert only(page).batches == {4: (1, 1, 1, 1), 2: (2, 2, 2, 2), 3: (2, 2, 2, 2)}


def test_no_total_falls_when_writers_are_killed_at_any_point() -> None:
    done = subprocess.run([sys.executable, "-c", KILL_WRITERS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 400, "each writer has counted before it was killed"


def test_the_number_in_flight_is_never_read_as_another_while_it_is_stored(page: Segment) -> None:
    reader = StatisticsReader([page])
    child = subprocess.Popen(
        [sys.executable, "-c", SAY_SEVEN_IN_FLIGHT, str(page.fd)], pass_fds=(page.fd,), stdout=subprocess.PIPE
    )
    with child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"writing\n"
            assert {reader.in_flight(0) for _ in range(1_000_000)} == {7}
        finally:
            child.kill()


def test_a_reader_in_another_process_than_the_writer_never_sees_half_a_run() -> None:
    """And when the writer has been killed at any point, at most the row of the last run's batch size is behind."""
    for _ in range(3):
        page = create_page("statistics")
        reader = StatisticsReader([page])
        last = 0
        child = subprocess.Popen(
            [sys.executable, "-c", WRITE_UNTIL_KILLED, str(page.fd)], pass_fds=(page.fd,), stdout=subprocess.PIPE
        )
        with child:
            try:
                assert child.stdout is not None
                assert child.stdout.readline() == b"writing\n"
                reads = 0
                while reads < 500 or last <= 100:  # on a busy machine the writer may get no core for a while
                    reads += 1
                    (counts,) = reader.totals()
                    assert _whole(counts), counts
                    assert counts.runs >= last
                    last = counts.runs
            finally:
                child.kill()
        (counts,) = reader.totals()
        assert counts.runs - counts.batches[3][0] in (0, 1)
        page.close()


def _whole(counts: VersionCounts) -> bool:
    runs = counts.runs
    values = [getattr(counts, name) for name in COUNTERS]
    return values == [2 * runs, 5 * runs, 0, 0, 7 * runs, 11 * runs, 13 * runs, 17 * runs, 3 * runs, runs, 0, 0] and (
        counts.batches == {3: (runs, 11 * runs, 13 * runs, 17 * runs)}
    )


def test_threads_of_one_worker_lose_no_count(page: Segment) -> None:
    writer = StatisticsWriter(page)
    slots = []

    def count() -> None:
        slot = writer.slot("m", 1)
        slots.append(slot)
        for _ in range(500):
            slot.add_run(1, 1, 1, 1, 1, 1, 1, 1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, slots))) == 1
    assert (only(page).runs, only(page).batches) == (2000, {1: (2000, 2000, 2000, 2000)})


@pytest.mark.parametrize("damage", ["magic", "layout", "size"])
def test_a_segment_that_is_no_page_of_this_layout_is_refused(damage: str) -> None:
    segment = create_page("other")
    if damage == "magic":
        segment.buffer[0:1] = b"X"
    elif damage == "layout":
        segment.buffer[8:12] = (99).to_bytes(4, "little")
    else:
        os.ftruncate(segment.fd, PAGE_BYTES + 1)
        segment = Segment.attach(segment.fd, writable=True)
    for attach in (StatisticsWriter, lambda s: StatisticsReader([s])):
        with pytest.raises(LayoutMismatch, match=f"expected a statistics page of layout {LAYOUT_VERSION}"):
            attach(segment)
    segment.close()


COUNTS = st.builds(
    VersionCounts,
    st.just("m"),
    st.just(1),
    **dict.fromkeys(COUNTERS, st.integers(0, 2**40)),
    batches=st.dictionaries(st.integers(0, 64), st.tuples(*[st.integers(0, 2**40)] * 4), max_size=5),
)


def _sum(*counts: VersionCounts) -> VersionCounts:
    total = VersionCounts("m", 1)
    for each in counts:
        total.add(each)
    return total


@settings(max_examples=30)
@given(COUNTS, COUNTS, COUNTS)
def test_adding_up_is_the_same_in_any_order(a: VersionCounts, b: VersionCounts, c: VersionCounts) -> None:
    assert _sum(a, b, c) == _sum(c, a, b) == _sum(_sum(a, b), c)
    assert _sum(a) == a
