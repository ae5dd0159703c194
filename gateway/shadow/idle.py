"""Leaves the processor to whoever answers clients: models run only while a core would be idle.

Loading only gives way, and is not idle: on a busy machine an idle thread gets next to nothing, and whoever tries a
version would wait for it without end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from pathlib import Path

log = logging.getLogger(__name__)

LAST_NICE = 19


def run_when_idle(thread: int = 0) -> bool:
    """A thread of this process, 0: the calling one. False where the system only lets it be as nice as can be."""
    try:
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    except (OSError, AttributeError):
        with contextlib.suppress(OSError, AttributeError):  # not Linux: there it keeps the process's priority
            os.setpriority(os.PRIO_PROCESS, thread, LAST_NICE)
        return False
    return True


def idle_library_threads() -> None:
    """Threads that ONNX Runtime has started for a version's runs: they were begun by whoever loaded it."""
    own = {thread.native_id for thread in threading.enumerate()}
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            if int(task.name) not in own:
                run_when_idle(int(task.name))
