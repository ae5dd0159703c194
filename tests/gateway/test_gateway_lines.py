"""Lines for a stream whose reader owes nothing: whole, in order, or counted; and nobody who offers them waits."""

from __future__ import annotations

import io
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.lines import LineWriter

WAIT_SECONDS = 30.0
CAPACITY = 64 * 1024


@contextmanager
def pipe() -> Iterator[tuple[io.FileIO, io.FileIO]]:
    reading, writing = os.pipe()
    with io.FileIO(reading) as reader, io.FileIO(writing, "w") as writer:
        yield reader, writer


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """What writes beyond it writes a part, and then fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def offer(writer: LineWriter, number: int) -> bool:
    line = b"line %06d\n" % number
    return writer.offer(1, len(line), lambda: [line])


def gap(count: int) -> bytes:
    return b"%d are missing\n" % count


def read_all(stream: io.FileIO) -> tuple[threading.Thread, list[bytes]]:
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(stream.readall()))
    thread.start()
    return thread, found


def test_a_line_stands_where_others_were_dropped_and_says_how_many() -> None:
    """Twice: the first gap is followed by more lines, the second by none."""
    with pipe() as (reader, stream):
        writer = LineWriter(stream.fileno(), "lines", CAPACITY, tell_gap=gap)
        number = 0
        while offer(writer, number):
            number += 1
        assert not offer(writer, number + 1)
        seen = reader.read(CAPACITY)  # all that the pipe held
        assert seen is not None
        with writer._changed:
            assert writer._changed.wait_for(lambda: offer(writer, number + 2), WAIT_SECONDS)
        last = number + 3
        while offer(writer, last):
            last += 1
        thread, found = read_all(reader)
        writer.close(WAIT_SECONDS)
        stream.close()
        thread.join()
    lines = (seen + found[0]).splitlines()
    assert lines[-1].endswith(b"missing"), "those at the end are told of too"
    told = [int(line.split()[0]) for line in lines if line.endswith(b"missing")]
    assert len(told) == 2
    assert sum(told) == writer.dropped
    place = next(at for at, line in enumerate(lines) if line.endswith(b"missing"))
    assert (lines[place - 1], lines[place + 1]) == (b"line %06d" % (number - 1), b"line %06d" % (number + 2))
    assert [line for line in lines if line.startswith(b"line")] == [
        b"line %06d" % shown for shown in range(last) if shown not in (number, number + 1)
    ]


def test_a_line_that_a_full_disk_has_torn_stays_alone(tmp_path: Path) -> None:
    """Those that were not written whole are dropped ones; when there is room again, the next begins a line."""
    broken: list[OSError] = []
    mended: list[int] = []
    failed, again = threading.Event(), threading.Event()

    def on_broken(error: OSError) -> None:
        broken.append(error)
        failed.set()

    def on_mended(count: int) -> None:
        mended.append(count)
        again.set()

    with (tmp_path / "log").open("wb", buffering=0) as stream:
        writer = LineWriter(stream.fileno(), "lines", CAPACITY, on_broken=on_broken, on_mended=on_mended)
        with largest_file(40):
            lines = [b"line %06d\n" % number for number in range(5)]
            assert writer.offer(5, 60, lambda: lines)
            assert failed.wait(WAIT_SECONDS)
            assert offer(writer, 5)
            writer_idle(writer, 6)
        assert offer(writer, 6)
        assert again.wait(WAIT_SECONDS)
        writer.close(WAIT_SECONDS)
    shown = (tmp_path / "log").read_bytes().split(b"\n")
    assert shown == [b"line 000000", b"line 000001", b"line 000002", b"line", b"line 000006", b""]
    assert (writer.written, writer.dropped) == (4, 3)
    assert (len(broken), mended) == (1, [3])


def writer_idle(writer: LineWriter, lines: int) -> None:
    with writer._changed:
        assert writer._changed.wait_for(lambda: writer.written + writer.dropped == lines, WAIT_SECONDS)


def test_lines_longer_than_the_capacity_are_taken_when_nothing_waits() -> None:
    with pipe() as (reader, stream):
        writer = LineWriter(stream.fileno(), "lines", CAPACITY)
        long = b"x" * (2 * CAPACITY) + b"\n"
        assert writer.offer(1, len(long), lambda: [long])
        assert not offer(writer, 1)
        thread, found = read_all(reader)
        writer.close(WAIT_SECONDS)
        stream.close()
        thread.join()
    assert found == [long]
    assert (writer.written, writer.dropped) == (1, 1)


def test_closing_before_a_stream_that_nobody_reads_ends_soon_and_drops_the_rest() -> None:
    with pipe() as (_, stream):
        writer = LineWriter(stream.fileno(), "lines", 1024 * 1024)
        taken = sum(offer(writer, number) for number in range(20_000))
        writer.close(0.1)
        assert not writer._thread.is_alive()
    assert writer.written > 0
    assert taken == 20_000 == writer.written + writer.dropped


def test_what_is_offered_after_the_end_is_dropped(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as stream:
        writer = LineWriter(stream.fileno(), "lines", CAPACITY)
        writer.close(WAIT_SECONDS)
        assert not offer(writer, 1)
    assert (writer.written, writer.dropped) == (0, 1)


@pytest.mark.parametrize("threads", [1, 4])
def test_lines_of_one_thread_stay_in_their_order(threads: int) -> None:
    with pipe() as (reader, stream):
        writer = LineWriter(stream.fileno(), "lines", 1024 * 1024)

        def write(thread: int) -> None:
            for number in range(2000):
                line = b"%d %d\n" % (thread, number)
                assert writer.offer(1, len(line), lambda line=line: [line])

        reading, found = read_all(reader)
        writing = [threading.Thread(target=write, args=(thread,)) for thread in range(threads)]
        for thread in writing:
            thread.start()
        for thread in writing:
            thread.join()
        writer.close(WAIT_SECONDS)
        stream.close()
        reading.join()
    pairs = [tuple(map(int, line.split())) for line in found[0].splitlines()]
    for thread in range(threads):
        assert [number for of, number in pairs if of == thread] == list(range(2000))
