"""The real admin server with nothing behind it but scripted rollouts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from scripted_rollouts import ScriptedRollouts

from gateway.config import Config
from gateway.control.admin import AdminServer
from gateway.control.rollout_admin import RolloutAdmin
from gateway.supervisor.ports import hold


class OnlyRollouts(RolloutAdmin):
    """An AdminService whose other RPCs nobody calls."""

    def __init__(self) -> None:
        self.closing = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        if name[0].isupper():
            return self.ListModels
        raise AttributeError(name)

    async def ListModels(self, *_: Any) -> Any:
        raise NotImplementedError


@asynccontextmanager
async def serving(service: OnlyRollouts) -> AsyncIterator[str]:
    """Answers the address."""
    any_service: Any = service
    server = AdminServer(Config(models=("unused",)), any_service)
    held = hold("admin", "127.0.0.1:0")
    try:
        await server.start(held.address)
        yield held.address
    finally:
        await server.stop()
        held.held.close()


@dataclass
class RolloutServer:
    address: str
    rollouts: ScriptedRollouts
    _loop: asyncio.AbstractEventLoop
    _service: OnlyRollouts

    def do(self, act: Callable[[], Any]) -> Any:
        """On the server's event loop, as what moves rollouts is."""

        async def run() -> Any:
            return act()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    def until(self, is_so: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not is_so():  # noqa: ASYNC110  (a script has nothing to wait for)
                await asyncio.sleep(0.01)

        asyncio.run_coroutine_threadsafe(wait(), self._loop).result(30)


@contextmanager
def rollout_server() -> Iterator[RolloutServer]:
    """In a thread, for tests that wait for a command line."""
    ready: list[RolloutServer] = []
    started, over = threading.Event(), asyncio.Event()

    async def main() -> None:
        service = OnlyRollouts()
        rollouts = ScriptedRollouts()
        service.use_rollouts(rollouts)
        async with serving(service) as address:
            ready.append(RolloutServer(address, rollouts, asyncio.get_running_loop(), service))
            started.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert started.wait(30)
        yield ready[0]
    finally:
        if ready:
            ready[0].do(over.set)
        thread.join(30)
