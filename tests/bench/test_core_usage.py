"""Whose time the two cores spent."""

import os
import subprocess
import sys
import time

import pytest

from bench.cores import Usage, process_seconds


def usage(server: float, load: float, server_core: float, load_core: float) -> Usage:
    return Usage(
        wall_seconds=10.0,
        server_seconds=server,
        load_seconds=load,
        receiver_seconds=load / 4,
        server_core_seconds=server_core,
        load_core_seconds=load_core,
    )


def test_others_are_what_server_and_load_leave_unexplained_on_the_worse_core() -> None:
    assert usage(server=7, load=2, server_core=10, load_core=3).others_seconds(shared=False) == 3
    assert usage(server=9, load=2, server_core=10, load_core=8).others_seconds(shared=False) == 6


def test_on_a_shared_core_server_and_load_both_explain_its_time() -> None:
    assert usage(server=6, load=3, server_core=10, load_core=10).others_seconds(shared=True) == 1


def test_clocks_that_tick_apart_never_give_less_than_nothing() -> None:
    assert usage(server=9.99, load=1, server_core=9.98, load_core=0.99).others_seconds(shared=False) == 0


def test_a_span_is_the_difference_of_every_clock() -> None:
    span = usage(9, 3, 10, 5).since(usage(2, 1, 4, 4))

    assert (span.wall_seconds, span.server_seconds, span.load_seconds) == (0, 7, 2)
    assert span.receiver_seconds == 0.5
    assert (span.server_core_seconds, span.load_core_seconds) == (6, 1)


def test_a_process_time_is_that_of_all_its_threads() -> None:
    work = (
        "import threading, time\n"
        "def spin():\n    while time.process_time() < 0.05: pass\n"
        "thread = threading.Thread(target=spin); thread.start(); thread.join(); print(); input()"
    )
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()

        assert process_seconds(process.pid) >= 0.05
        process.communicate(b"\n")


def test_a_process_knows_its_own_time_by_its_number() -> None:
    before = time.process_time()

    assert before <= process_seconds(os.getpid()) <= time.process_time()


def test_a_process_that_is_gone_has_no_time() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()

        with pytest.raises(OSError, match="Invalid argument"):
            process_seconds(process.pid)
