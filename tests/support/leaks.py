"""What a gateway may leave behind, and must not."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path

import psutil

SHARED_MEMORY = Path("/dev/shm")


def shared_memory() -> set[str]:
    """Names of the shared-memory segments of this machine."""
    return {file.name for file in SHARED_MEMORY.iterdir()} if SHARED_MEMORY.is_dir() else set()


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; one that has ended and waits to be reaped does not."""
    return [process for process in processes if _lives(process)]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between the two questions
        return False


def is_free(address: str) -> bool:
    """Whether a server could listen there now."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
            probe.listen()
        except OSError:
            return False
        return True
