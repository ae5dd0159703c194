"""Long work in the background that lets those go first who answer clients.

Where a core is wanted by two, the system's clock takes it from one after a tick, of four milliseconds on many machines:
so long every request of a worker may wait, however nice the other is. A piece of work of less than a millisecond after
which others may run is felt by no one.
"""

from __future__ import annotations

import os
import threading
import time

CAN_YIELD = hasattr(os, "sched_yield")  # not on macOS
PIECE_SECONDS = 1e-3
"""Work from one yielding to the next: a nice thread waits tens of milliseconds for its next turn, and thousands of data
points or features with a turn each would never end beside a busy worker."""

_thread = threading.local()


def begin_yielding() -> None:
    """From now on the calling thread yields in `let_others_run`; others, of a command or a test, never do."""
    _thread.yields, _thread.since = CAN_YIELD, time.monotonic()


def let_others_run() -> None:
    """Where work may pause: once a piece, gives the core to a thread that waits for it."""
    if getattr(_thread, "yields", False) and time.monotonic() - _thread.since >= PIECE_SECONDS:
        os.sched_yield()
        _thread.since = time.monotonic()
