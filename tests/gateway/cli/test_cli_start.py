"""What the command does before it does anything: help, version, and the imports these cost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import click
import pytest
from click.testing import CliRunner

from gateway.cli import cli
from gateway.version import VERSION

HEAVY = ("grpc", "google.protobuf", "pydantic", "rich", "yaml", "numpy", "onnxruntime", "sqlalchemy")

Run = Callable[..., subprocess.CompletedProcess[str]]


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


COMMANDS = dict(_commands(cli))


@pytest.mark.parametrize("path", [(), *COMMANDS], ids=" ".join)
def test_help_imports_nothing_heavy(path: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom gateway.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print('heavy:', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *path, "--help"], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("Usage: driftgate"), done.stderr
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_version_is_the_packages(process: Run) -> None:
    done = process("--version")
    assert (done.returncode, done.stdout) == (0, f"driftgate, version {VERSION}\n")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_one_line_of_help_and_an_example(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    assert command.help
    assert "\n" not in command.help
    assert command.epilog
    assert command.epilog.partition(": ")[2].startswith(f"driftgate {' '.join(path)}")


def test_the_list_of_commands_is_not_cut_off_in_a_narrow_terminal() -> None:
    listing = CliRunner().invoke(cli, ["--help"], terminal_width=80).stdout.partition("Commands:\n")[2]
    assert "  models " in listing
    assert "..." not in listing


@pytest.mark.parametrize("arguments", [(), ("label",), ("config",)], ids=" ".join)
def test_a_group_without_a_command_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert "Commands:" in result.stderr


def test_an_unknown_command_is_wrong_usage(process: Run) -> None:
    done = process("lode", "iris")
    assert done.returncode == 2
    assert "No such command 'lode'" in done.stderr
