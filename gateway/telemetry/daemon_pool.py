"""A few threads for tasks that may hang."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue

Task = tuple[Future[None], Callable[[], None]]


class DaemonPool:
    """Like ThreadPoolExecutor, but neither `close` nor the process's end waits for a task that hangs.

    For one thread to submit and close. The threads start with the first task, and are kept.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name} {number}", daemon=True) for number in range(threads)
        ]
        self._started = False

    def submit(self, task: Callable[..., None], *arguments: object) -> Future[None]:
        if not self._started:
            self._started = True
            for thread in self._threads:
                thread.start()
        future: Future[None] = Future()
        self._tasks.put((future, functools.partial(task, *arguments)))
        return future

    def close(self, seconds: float) -> bool:
        """Waits for what is submitted, but no longer; False: some of it has not ended."""
        if not self._started:
            return True
        for _ in self._threads:
            self._tasks.put(None)
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, call = task
            try:
                call()
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(None)
