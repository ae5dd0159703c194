"""One gateway per transport and session: one worker, so that what one request does to another can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dataplane_client import Client, channel_to
from dataplane_repository import write_dataplane_repository, write_small_repository
from support.gateway import Gateway

TRANSPORTS = ("queue", "public")
MAX_MESSAGE_BYTES = 16 * 1024 * 1024


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataplane_repository(tmp_path_factory.mktemp("dataplane") / "models")


@pytest.fixture(scope="session")
def small_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_repository(tmp_path_factory.mktemp("small") / "models")


@pytest.fixture(scope="session", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def gateway(transport: str, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = {"transport": transport, "limits": {"max_message_bytes": MAX_MESSAGE_BYTES}}
    with Gateway(repository, tmp_path_factory.mktemp(transport) / "state", config=config) as running:
        running.logged(f"listens with the {transport} transport")
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    """A connection of the test's own."""
    with channel_to(gateway.grpc) as channel:
        yield Client(channel)
