from __future__ import annotations

import os
import subprocess
import sys
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
