"""Kernels are compiled once and kept; whatever has become of what is kept, a process starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TWO_KERNELS = """
import resource
import sys

if len(sys.argv) > 1:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))

from numba import int64
from runtime.kernels import kernel

@kernel(int64(int64))
def twice(number):
    return 2 * number

@kernel(int64(int64))
def next_one(number):
    return twice(number) + 1

print(next_one(20), *(sum(each.stats.cache_hits.values()) for each in (twice, next_one)))
"""
COMPILED, LOADED = "41 0 0\n", "41 1 1\n"
GIVEN_UP = "kernels are compiled anew, and"

Start = Callable[..., tuple[str, str]]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def start(tmp_path: Path, kept: Path) -> Start:
    script = tmp_path / "kernels_of_a_test.py"
    script.write_text(TWO_KERNELS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(kept)}

    def run(*most_bytes: int) -> tuple[str, str]:
        """What it printed and what it warned of. `most_bytes`: that a file may have, for a disk that is full."""
        command = [sys.executable, str(script), *map(str, most_bytes)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    return run


def test_what_one_process_compiled_the_next_one_loads(start: Start) -> None:
    assert [start(), start()] == [(COMPILED, ""), (LOADED, "")]


@pytest.mark.parametrize(("damaged", "left"), [("*.nbi", 0), ("*.nbc", 40)])
def test_with_damaged_files_a_process_starts_says_so_and_the_next_one_keeps_others(
    start: Start, kept: Path, damaged: str, left: int
) -> None:
    start()
    files = list(kept.rglob(damaged))
    assert len(files) == 2
    for file in files:
        os.truncate(file, left)
    printed, warned = start()
    assert printed == COMPILED
    assert warned.startswith(f"{GIVEN_UP} {kept}")
    assert warned.count("\n") == 1
    assert [start(), start()] == [(COMPILED, ""), (LOADED, "")]


def test_a_process_starts_where_nothing_can_be_written(start: Start, kept: Path) -> None:
    printed, warned = start(0)
    assert printed == COMPILED
    assert warned.startswith("kernels are compiled anew at each start: no folder for them can be written")
    assert list(kept.rglob("*.nb*")) == []


def test_a_process_starts_where_the_disk_is_full_before_the_kernels_are_kept(start: Start, kept: Path) -> None:
    printed, warned = start(600)
    assert printed == COMPILED
    assert GIVEN_UP in warned
    assert list(kept.iterdir()) == []
