"""The ring of records: order, wrap, drops, names, and what is left for the next reader."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shm_records import desk, records_of

from runtime.shm.publish import KEEP_ALL, KEEP_ERRORS, KEEP_NONE, KEEP_SAMPLED
from runtime.shm.record import RECORD
from runtime.shm.record_layout import FIELDS, OFFSETS, PACKED, RECORD_BYTES
from runtime.shm.ring import NameReader, NameWriter, RingMismatch, RingReader, map_ring
from runtime.shm.ring_layout import MAX_NAME_BYTES, NAME_BYTES, NAMES, NAMES_OFFSET, create_ring
from runtime.shm.segment import Segment

# Every record carries its number twice, so that a torn or stale one cannot look right.
WRITE_UNTIL_KILLED = """
import itertools, sys, time
import numpy as np
from runtime.shm.publish import KEEP_ALL, publish
from runtime.shm.record import RECORD
from runtime.shm.ring import map_ring
from runtime.shm.segment import Segment
from runtime.shm.series import SeriesWriter
ring = map_ring(Segment.attach(int(sys.argv[1]), writable=True))
series = SeriesWriter(Segment.attach(int(sys.argv[2]), writable=True))
records = np.zeros(16, RECORD)
records["extra_bytes"] = 160  # all of the text counts
words = records.view(np.uint64).reshape(16, -1)
print("writing", flush=True)
end = time.monotonic() + 120  # bounded: it outlives a test run that is killed
for first in itertools.count(0, 16):
    if time.monotonic() > end:
        break
    records["received_unix_ns"] = np.arange(first, first + 16)
    records["text"][:, 152:160] = records["received_unix_ns"][:, None].view(np.uint8)
    publish(records, words, 16, series.header, series.rows, ring.words, ring.slots, KEEP_ALL)
"""


def test_a_record_is_as_drawn() -> None:
    assert RECORD_BYTES == RECORD.itemsize == 384
    assert [OFFSETS[name] for name in ("received_unix_ns", "target", "variant", "code", "request_id", "text")] == [
        40, 96, 124, 132, 160, 224,
    ]  # fmt: skip


def test_what_is_packed_field_by_field_is_read_by_name() -> None:
    values = [
        bytes(range(1, 1 + int(form[:-1]))) if form.endswith("s") else number + 1
        for number, (_, form) in enumerate(FIELDS)
    ]
    record = np.frombuffer(PACKED.pack(*values), RECORD)[0]
    for (name, _), value in zip(FIELDS, values, strict=True):
        assert (record[name].tobytes() if isinstance(value, bytes) else int(record[name])) == value


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.data())
def test_every_record_is_taken_once_and_in_order_or_counted_as_dropped(batches: list[int], data: st.DataObject) -> None:
    with desk(capacity=32) as at:
        reader = RingReader(at.ring)
        seen: list[int] = []
        number = 0
        for size in batches:
            at.publish(records_of([{"received_unix_ns": number + i, "trace_flags": 1} for i in range(size)]), KEEP_ALL)
            number += size
            if data.draw(st.booleans()):
                reader.look()
                before = reader.taken
                parts = reader.take(data.draw(st.integers(1, 50)))
                seen += [int(value) for part in parts for value in part["received_unix_ns"]]
                reader.release(reader.taken - before)
        reader.look()
        seen += [int(value) for part in reader.take(10**6) for value in part["received_unix_ns"]]
        assert len(seen) + reader.dropped[0] == number
        assert seen == sorted(set(seen))


def test_a_full_ring_keeps_what_it_has_and_counts_spans_and_others_apart() -> None:
    with desk(capacity=4) as at:
        rows = [{"received_unix_ns": n, "trace_flags": n % 2} for n in range(10)]
        at.publish(records_of(rows), KEEP_ALL)
        reader = RingReader(at.ring)
        assert [int(n) for part in reader.take(100) for n in part["received_unix_ns"]] == [0, 1, 2, 3]
        assert reader.dropped == (3, 3)


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (KEEP_NONE, []),
        (KEEP_SAMPLED, [1, 3]),
        (KEEP_ERRORS, [2, 3]),
        (KEEP_SAMPLED | KEEP_ERRORS, [1, 2, 3]),
        (KEEP_ALL, [0, 1, 2, 3]),
    ],
)
def test_only_what_is_asked_for_goes_into_the_ring(keep: int, kept: list[int]) -> None:
    rows = [{"received_unix_ns": n, "trace_flags": n % 2, "code": 14 * (n >= 2)} for n in range(4)]
    with desk() as at:
        at.publish(records_of(rows), keep)
        reader = RingReader(at.ring)
        assert [int(n) for part in reader.take(100) for n in part["received_unix_ns"]] == kept
        assert reader.dropped == (0, 0)


def test_a_run_is_never_cut_and_one_longer_than_asked_for_comes_whole() -> None:
    runs = [b"aaaaaaaa"] * 3 + [b"bbbbbbbb"] * 5 + [b""] * 2 + [b"cccccccc"] * 2
    with desk() as at:
        at.publish(records_of([{"run_id": run} for run in runs]), KEEP_ALL)
        reader = RingReader(at.ring)
        taken = []
        while reader.waiting:
            taken.append(sum(len(part) for part in reader.take(4)))
        assert taken == [3, 5, 4]


def test_a_run_that_wraps_round_the_end_of_the_ring_comes_as_two_parts() -> None:
    with desk(capacity=8) as at:
        reader = RingReader(at.ring)
        at.publish(records_of([{}] * 6), KEEP_ALL)
        reader.look()
        reader.take(10)
        reader.release(6)
        at.publish(records_of([{"run_id": b"x", "rows": n} for n in range(5)]), KEEP_ALL)
        reader.look()
        parts = reader.take(2)
        assert [part["rows"].tolist() for part in parts] == [[0, 1], [2, 3, 4]]


def test_records_that_were_not_released_are_there_for_the_next_reader() -> None:
    with desk() as at:
        at.publish(records_of([{"rows": n} for n in range(6)]), KEEP_ALL)
        first = RingReader(at.ring)
        first.take(100)
        first.release(2)
        assert [int(n) for part in RingReader(at.ring).take(100) for n in part["rows"]] == [2, 3, 4, 5]


def test_what_was_logged_is_not_logged_again_by_the_next_reader() -> None:
    with desk() as at:
        at.publish(records_of([{"rows": n} for n in range(6)]), KEEP_ALL)
        first = RingReader(at.ring)
        assert [int(n) for part in first.untold() for n in part["rows"]] == [0, 1, 2, 3, 4, 5]
        at.publish(records_of([{"rows": 6}]), KEEP_ALL)
        assert first.untold() == []
        second = RingReader(at.ring)
        assert [int(n) for part in second.untold() for n in part["rows"]] == [6]
        second.release_logged()
        assert (second.waiting, second.held) == (0, 0)


def test_names_keep_their_numbers_over_a_restart_of_the_writer() -> None:
    with desk() as at:
        first = NameWriter(at.ring)
        numbers = [first.number("target", "m", "1", "sha"), first.number("variant", "m"), first.number("")]
        again = NameWriter(map_ring(at.ring_segment))
        assert [again.number("target", "m", "1", "sha"), again.number("variant", "m"), 0] == numbers
        assert again.number("variant", "other") not in numbers
        names = NameReader(at.ring)
        names.refresh()
        assert names.names[numbers[0]].split("\x1f") == ["target", "m", "1", "sha"]


@pytest.mark.parametrize("character", ["a", "é", "\ufffd", "\U0001f600"])
def test_names_that_are_equal_as_far_as_they_are_stored_are_one_name(character: str) -> None:
    with desk() as at:
        first = NameWriter(at.ring)
        assert {first.number("authority", character * 254 + tail) for tail in ("", "a", "b")} == {1}
        target = first.number("target", "iris", "3", "sha256:aa")
        again = NameWriter(at.ring)
        assert again.number("authority", character * 254 + "c") == 1
        assert again.number("target", "iris", "3", "sha256:aa") == target
        assert again.number("target", "fraud", "9", "sha256:bb") == target + 1
        names = NameReader(at.ring)
        names.refresh()
        assert names.names[2:] == ["target\x1firis\x1f3\x1fsha256:aa", "target\x1ffraud\x1f9\x1fsha256:bb"]
        stored = names.names[1]
        assert stored == ("authority\x1f" + character * 254)[: len(stored)]
        assert MAX_NAME_BYTES - len(character.encode()) < len(stored.encode()) <= MAX_NAME_BYTES


def test_a_number_that_was_given_is_not_given_again_though_two_stand_for_one_text() -> None:
    with desk() as at:
        first = NameWriter(at.ring)
        first.number("same")
        first.number("also")
        buffer, one = at.ring_segment.buffer, NAMES_OFFSET + NAME_BYTES
        two = one + NAME_BYTES
        buffer[two : two + NAME_BYTES] = buffer[one:two]
        reader = NameReader(at.ring)
        reader.refresh()
        assert reader.names == ["", "same", "same"]
        number = NameWriter(at.ring).number("other")
        reader.refresh()
        assert (number, reader.names[number]) == (3, "other")


def test_a_full_table_of_names_gives_no_number() -> None:
    with desk() as at:
        names = NameWriter(at.ring)
        given_out = {names.number("variant", str(n)) for n in range(NAMES + 5)}
        assert given_out == set(range(NAMES))
        assert names.number("variant", "0") == 1


def test_a_ring_of_another_layout_is_refused() -> None:
    segment = create_ring("ring", 16)
    segment.buffer[8] = 99
    with pytest.raises(RingMismatch, match="expected a ring of layout 1 with records of 384 bytes"):
        map_ring(segment)
    segment.close()


def test_a_reader_in_another_process_sees_whole_records_only_and_a_killed_writer_leaves_a_whole_ring() -> None:
    with desk(capacity=256) as at:
        os.set_inheritable(at.ring_segment.fd, True)
        fds = (at.ring_segment.fd, at.page_segment.fd)
        command = [sys.executable, "-c", WRITE_UNTIL_KILLED, *map(str, fds)]
        with subprocess.Popen(command, pass_fds=fds, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"writing\n"
            reader = RingReader(map_ring(Segment.attach(os.dup(at.ring_segment.fd), writable=True)))
            seen = 0
            last = -1
            while seen < 50_000:
                reader.look()
                before = reader.taken
                for part in reader.take(64):
                    twice = part["text"][:, 152:160].copy().view(np.uint64)[:, 0]
                    assert (part["received_unix_ns"] == twice).all()
                    assert (np.diff(part["received_unix_ns"].astype(np.int64)) > 0).all()
                    assert part["received_unix_ns"][0] > last or last == -1
                    last = int(part["received_unix_ns"][-1])
                    seen += len(part)
                reader.release(reader.taken - before)
            writer.kill()
            writer.wait()
        reader.look()
        for part in reader.take(1000):
            twice = part["text"][:, 152:160].copy().view(np.uint64)[:, 0]
            assert (part["received_unix_ns"] == twice).all()
