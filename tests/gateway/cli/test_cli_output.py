"""Standard output that cannot be written: one line that says so, and status 1."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from canned_gateway import CannedGateway

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

CHECK = ("config", "check", "--models", "m")
COMMANDS = [("top",), ("top", "--json"), ("models",), ("status",), ("status", "--json"), CHECK]
Start = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def shell(gateway: CannedGateway) -> Start:
    """Runs the command through a shell, which redirects its output."""
    gateway.answers |= {
        "GetStatistics": pb.GetStatisticsResponse(),
        "ListModels": pb.ListModelsResponse(),
        "GetStatus": pb.GetStatusResponse(),
    }

    def run(redirect: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-m", "gateway", *arguments],
            env=os.environ | {"DRIFTGATE_ADMIN": gateway.address}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_full_disk_is_said_in_one_line(shell: Start, command: tuple[str, ...]) -> None:
    done = shell("> /dev/full", *command)
    assert done.stderr == "error: standard output cannot be written: No space left on device\n"
    assert done.returncode == 1


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_closed_output_is_said_in_one_line(shell: Start, command: tuple[str, ...]) -> None:
    done = shell(">&-", *command)
    assert done.stderr == "error: standard output is closed\n"
    assert done.returncode == 1


@pytest.mark.parametrize("command", [("top",), CHECK], ids=" ".join)
def test_a_reader_that_has_gone_ends_the_command_without_a_word(shell: Start, command: tuple[str, ...]) -> None:
    done = shell("| true", *command)
    assert done.stderr == ""
