"""What holds after every file of tests with real backends: no process and no shared memory is left."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest
from support.leaks import alive, shared_memory


@pytest.fixture(autouse=True, scope="module")
def nothing_left() -> Iterator[None]:
    before, running = shared_memory(), set(psutil.Process().children(recursive=True))
    yield
    assert set(alive(psutil.Process().children(recursive=True))) <= running
    assert shared_memory() <= before
