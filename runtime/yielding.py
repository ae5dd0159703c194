"""Long work in the background that lets those go first who answer clients.

Where a core is wanted by two, the system's clock takes it from one after a tick, of four milliseconds on many machines:
so long every request of a worker may wait, however nice the other is. A piece of work of less than a millisecond after
which others may run is felt by no one.
"""

from __future__ import annotations

import os

CAN_YIELD = hasattr(os, "sched_yield")  # not on macOS


def let_others_run() -> None:
    """Gives the core to a thread that waits for it; without one, it costs less than a microsecond."""
    if CAN_YIELD:
        os.sched_yield()
