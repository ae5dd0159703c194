from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator

import pytest
from canned_gateway import CannedGateway, serve
from click.testing import CliRunner, Result

from gateway.cli import cli


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DRIFTGATE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def gateway() -> Iterator[CannedGateway]:
    canned = CannedGateway()
    stop = serve(canned)
    yield canned
    stop()


@pytest.fixture
def driftgate(gateway: CannedGateway) -> Callable[..., Result]:
    """Runs the command in this process against `gateway`."""

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(cli, arguments, env={"DRIFTGATE_ADMIN": gateway.address})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command as a process of its own."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            env=os.environ | environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    return run


@pytest.fixture
def terminal() -> Callable[..., str]:
    """Runs the command at a terminal so many columns wide; answers what it shows there. It must end with `status`."""

    def run(columns: int, *arguments: str, status: int = 0, lines: int = 50, term: str = "xterm-256color") -> str:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        unwanted = {"NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR"}
        environment = {k: v for k, v in os.environ.items() if k not in unwanted} | {"TERM": term}
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:  # how Linux says that the other side is closed
            pass
        finally:
            os.close(ours)
        assert process.wait(60) == status
        return shown.decode()

    return run
