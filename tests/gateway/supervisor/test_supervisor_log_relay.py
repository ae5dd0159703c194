"""Children write to a pipe that is always read: what becomes of their lines, and that they never wait."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.supervisor.log_relay import LogRelay

WAIT_SECONDS = 30.0
OPEN = Path("/proc/self/fd")


@contextmanager
def relay() -> Iterator[tuple[LogRelay, io.FileIO, io.FileIO]]:
    """And both ends of what it writes to, first the one to read."""
    reading, writing = os.pipe()
    with io.FileIO(reading) as reader, io.FileIO(writing, "w") as stream:
        made = LogRelay(stream.fileno())
        try:
            yield made, reader, stream
        finally:
            made.close()


def child(made: LogRelay, program: str, name: str = "child") -> subprocess.Popen[bytes]:
    with made.pipe(name) as lines:
        return subprocess.Popen([sys.executable, "-c", program], stderr=lines)


def lines_of(reader: io.FileIO) -> list[bytes]:
    data = reader.read(64 * 1024)
    assert data is not None
    return data.splitlines()


def test_the_last_words_of_a_process_that_crashes_come_before_the_word_of_its_end() -> None:
    """Whatever wrote them: Python's log, a library in C, half a line."""
    program = """
import ctypes, os, signal, sys
print("from Python", file=sys.stderr)
ctypes.CDLL(None).dprintf(2, b"from C\\n")
os.write(2, b"half a line")
os.kill(os.getpid(), signal.SIGKILL)
"""
    with relay() as (made, reader, _):
        assert child(made, program).wait(WAIT_SECONDS) == -9
        made.ended("child")
        made.write("it has ended\n")
        made.close()
        assert lines_of(reader) == [b"from Python", b"from C", b"half a line", b"it has ended"]


def test_a_child_that_writes_more_than_anybody_reads_does_not_wait_and_every_lost_line_is_told() -> None:
    program = """
import sys
for number in range(100_000):
    print(f"line {number:06d} {'x' * 40}", file=sys.stderr)
"""
    with relay() as (made, reader, stream):
        made.formatter = logging.Formatter("%(levelname)s %(message)s")
        assert child(made, program).wait(WAIT_SECONDS) == 0, "though nobody has read"
        made.ended("child")
        found: list[bytes] = []
        thread = threading.Thread(target=lambda: found.append(reader.readall()))
        thread.start()
        made.close()
        stream.close()
        thread.join()
    lines = found[0].splitlines()
    told = [int(line.split()[1]) for line in lines if line.startswith(b"WARNING")]
    shown = [int(line.split()[1]) for line in lines if line.startswith(b"line")]
    assert shown == sorted(shown)
    assert sum(told) > 0
    assert len(shown) + sum(told) == 100_000


def test_lines_of_several_children_do_not_mix() -> None:
    program = """
import sys
for number in range(300):
    print(f"{sys.argv[1] if len(sys.argv) > 1 else '-'} {'x' * 100}", file=sys.stderr)
"""
    with relay() as (made, reader, _):
        running = [child(made, program, f"child {number}") for number in range(2)]
        assert [process.wait(WAIT_SECONDS) for process in running] == [0, 0]
        for number in range(2):
            made.ended(f"child {number}")
        made.close()
        assert set(lines_of(reader)) == {b"- " + b"x" * 100}


@pytest.mark.parametrize("text", ["é\n", "\udc80\n"])
def test_the_supervisors_own_lines_are_written_whatever_is_in_them(text: str) -> None:
    with relay() as (made, reader, _):
        made.write(text)
        made.close()
        assert len(lines_of(reader)) == 1


def test_no_pipe_is_left_when_a_child_could_not_be_started() -> None:
    before = len(list(OPEN.iterdir()))
    with relay() as (made, _, _):
        during = len(list(OPEN.iterdir()))
        with pytest.raises(OSError, match="no such child"), made.pipe("child"):
            raise OSError("no such child")
        made.ended("child")
        assert len(list(OPEN.iterdir())) == during
    assert len(list(OPEN.iterdir())) == before
