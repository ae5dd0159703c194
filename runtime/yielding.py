"""Long work in the background that lets those go first who answer clients.

Where a core is wanted by two, the system's clock takes it from one after a tick, of four milliseconds on many machines:
so long every request of a worker may wait, however nice the other is. A piece of work of less than a millisecond after
which others may run is felt by no one.
"""

from __future__ import annotations

import os
import threading

CAN_YIELD = hasattr(os, "sched_yield")  # not on macOS

_thread = threading.local()


def begin_yielding() -> None:
    """From now on the calling thread yields in `let_others_run`; others, of a command or a test, never do."""
    _thread.yields = CAN_YIELD


def let_others_run() -> None:
    """Between two pieces of work: gives the core to a thread that waits for it. Without one it costs a microsecond."""
    if getattr(_thread, "yields", False):
        os.sched_yield()
