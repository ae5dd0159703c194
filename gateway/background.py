"""Work that gives way to whoever answers clients.

A thread that has to wait for a core that others want is no harm where nobody waits for what it does; a worker that has
to wait for one is felt by every request in flight in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, ParamSpec, TypeVar

from runtime.yielding import begin_yielding

GIVING_WAY_NICE = 10  # a tenth of a core that a worker wants too, and all of one that is idle
KEEPING_UP_NICE = 5  # a quarter of it: what has to keep up with the workers, in pieces of a millisecond or two

P = ParamSpec("P")
T = TypeVar("T")


def give_way(nice: int = GIVING_WAY_NICE) -> None:
    """The calling thread, and those that it starts, for good: only the privileged may take it back. It also yields."""
    begin_yielding()
    with contextlib.suppress(OSError, AttributeError):
        before = os.getpriority(os.PRIO_PROCESS, 0)  # on Linux, 0 is the calling thread
        os.setpriority(os.PRIO_PROCESS, 0, max(before, nice))


_under_way: set[Future[Any]] = set()


async def in_background(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As asyncio.to_thread, on a thread of its own that gives way; a cancellation does not wait for it.

    While it has the interpreter's lock, so does what waits for that: it is for work of milliseconds, or that lets go
    of the lock.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="background", initializer=give_way)
    future = pool.submit(work, *args, **kwargs)
    _under_way.add(future)
    future.add_done_callback(_under_way.discard)
    pool.shutdown(wait=False)
    return await asyncio.wrap_future(future)


async def background_ended() -> None:
    """Until nothing is under way, whose caller may have been cancelled."""
    while pending := list(_under_way):
        await asyncio.to_thread(wait, pending)
