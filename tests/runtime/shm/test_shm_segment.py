"""Memory that a child process shares by its file descriptor, and that ends with the last of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.shm.segment import Segment
from runtime.shm.tally import HEADER, Tally, create_tally

ADD_UNTIL_KILLED = """
import sys
from runtime.shm.segment import Segment
from runtime.shm.tally import Tally
tally = Tally(Segment.attach(int(sys.argv[1]), writable=True))
tally.add(1, 1_000_000)
print("adding", flush=True)
for _ in range(20_000_000):  # bounded: it outlives a test run that is killed
    tally.add(1)
"""

WRITE_FROM_A_CHILD = """
import sys
from runtime.shm.segment import Segment
segment = Segment.attach(int(sys.argv[1]), writable=True)
segment.buffer[10:15] = bytes(reversed(segment.buffer[0:5]))
print(segment.size_bytes)
"""


def test_a_child_that_gets_the_descriptor_reads_and_writes_the_same_bytes() -> None:
    segment = Segment.create("test", 4096)
    segment.buffer[0:5] = b"hello"
    child = subprocess.run(
        [sys.executable, "-c", WRITE_FROM_A_CHILD, str(segment.fd)],
        pass_fds=(segment.fd,), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert child.stdout == "4096\n"
    assert segment.buffer[10:15] == b"olleh"
    segment.close()


def test_a_descriptor_is_not_inherited_unless_it_is_passed() -> None:
    segment = Segment.create("test", 64)
    assert not os.get_inheritable(segment.fd)
    segment.close()


def test_a_read_only_attachment_sees_changes_and_makes_none() -> None:
    segment = Segment.create("test", 64)
    other = Segment.attach(os.dup(segment.fd), writable=False)
    segment.buffer[0:2] = b"ab"
    assert other.buffer[0:2] == b"ab"
    with pytest.raises(TypeError):
        other.buffer[0:2] = b"xy"
    other.close()
    segment.close()


def test_nothing_has_a_name_and_nothing_is_left() -> None:
    before = sorted(Path("/dev/shm").glob("*driftgate*"))
    segment = Segment.create("driftgate-test", 64)
    fd = segment.fd
    assert sorted(Path("/dev/shm").glob("*driftgate*")) == before
    segment.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_tally_counts_for_those_that_attach() -> None:
    segment = create_tally("tally", 3)
    tally = Tally(segment)
    for index in (0, 2, 2):
        tally.add(index)
    reader = Tally(Segment.attach(os.dup(segment.fd), writable=False))
    assert [reader.value(index) for index in range(3)] == [1, 0, 2]
    segment.close()


def test_a_counter_of_a_tally_never_falls_for_a_reader_in_another_process() -> None:
    segment = create_tally("tally", 2)
    tally = Tally(segment)
    command = [sys.executable, "-c", ADD_UNTIL_KILLED, str(segment.fd)]
    with subprocess.Popen(command, pass_fds=(segment.fd,), stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"adding\n"
            read = [tally.value(1) for _ in range(300_000)]
        finally:
            child.kill()
    assert read == sorted(read)
    assert read[0] >= 1_000_000
    segment.close()


def test_a_segment_is_closed_though_views_of_it_are_in_use() -> None:
    segment = Segment.create("test", 64)
    view = memoryview(segment.buffer)
    segment.close()
    assert view[0] == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(segment.fd)


@pytest.mark.parametrize(
    "content",
    [b"\0" * 64, b"DGTALLY\0" + (9).to_bytes(4, "little") + b"\0" * 52, HEADER.pack(b"DGTALLY\0", 1, 1000)],
)
def test_a_segment_that_is_no_tally_is_refused(content: bytes) -> None:
    segment = Segment.create("other", len(content))
    segment.buffer[:] = content
    with pytest.raises(ValueError, match="expected a tally of layout 1"):
        Tally(segment)
    segment.close()
