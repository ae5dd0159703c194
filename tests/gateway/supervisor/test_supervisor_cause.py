"""Who ended a process: itself, or somebody from outside."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from gateway.supervisor import cause
from gateway.supervisor.cause import OutOfMemory, by_itself
from gateway.supervisor.restart import REFUSED


@pytest.mark.parametrize(
    ("status", "own"),
    [
        (0, False),
        (1, True),
        (REFUSED, False),
        (-signal.SIGSEGV, True),
        (-signal.SIGFPE, True),
        (-signal.SIGABRT, True),
        (-signal.SIGBUS, True),
        (-signal.SIGILL, True),
        (-signal.SIGKILL, False),
        (-signal.SIGTERM, False),
        (-signal.SIGINT, False),
    ],
)
def test_a_process_ended_by_itself_unless_somebody_ended_it(status: int, own: bool) -> None:
    assert by_itself(status, out_of_memory=False) is own


def test_the_kernels_kill_for_want_of_memory_is_the_process_s_own_doing() -> None:
    assert by_itself(-signal.SIGKILL, out_of_memory=True)
    assert not by_itself(-signal.SIGTERM, out_of_memory=True)


def test_a_growing_count_is_noticed_once(tmp_path: Path) -> None:
    file = tmp_path / "memory.events"
    file.write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    watch = OutOfMemory([file])
    assert not watch.grew()
    file.write_text("low 0\noom 4\noom_kill 3\noom_group_kill 0\n")
    assert watch.grew()
    assert not watch.grew()
    file.write_text("no counts")
    assert not watch.grew()
    file.unlink()
    assert not watch.grew()


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("0::/system.slice/driftgate.service", "system.slice/driftgate.service/memory.events"),
        ("0::/../../elsewhere", "memory.events"),
        ("9:name=systemd:/\n4:memory:/pod/a:b\n0::/nowhere", "memory/pod/a:b/memory.oom_control"),
        ("4:cpu,memory:/unseen", "memory/memory.oom_control"),
    ],
)
def test_the_count_is_found_in_either_version_of_control_groups(tmp_path: Path, lines: str, found: str) -> None:
    root = tmp_path / "cgroup"
    (root / found).parent.mkdir(parents=True)
    (root / found).write_text("oom_kill 0\n")
    own = tmp_path / "own"
    own.write_text(lines + "\n")
    assert cause._event_files(own, root) == (root / found,)


def test_without_control_groups_nothing_is_claimed(tmp_path: Path) -> None:
    assert cause._event_files(tmp_path / "missing", tmp_path) == ()
    assert not OutOfMemory([]).grew()
