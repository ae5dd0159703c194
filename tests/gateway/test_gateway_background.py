"""Work in the background gives way, and is otherwise as on any thread."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from gateway.background import GIVING_WAY_NICE, KEEPING_UP_NICE, background_ended, give_way, in_background
from runtime import yielding
from runtime.yielding import let_others_run


def niceness() -> int:
    """Of the calling thread."""
    return os.getpriority(os.PRIO_PROCESS, 0)


def test_its_thread_gives_way_and_no_other_does() -> None:
    before = niceness()

    async def both() -> tuple[int, int]:
        return await in_background(niceness), await asyncio.to_thread(niceness)

    assert asyncio.run(both()) == (max(before, GIVING_WAY_NICE), before)
    assert niceness() == before


def test_who_has_given_way_never_takes_it_back() -> None:
    before = niceness()

    def twice() -> tuple[int, int]:
        give_way(KEEPING_UP_NICE)
        once = niceness()
        give_way()
        give_way(KEEPING_UP_NICE)
        return once, niceness()

    assert asyncio.run(asyncio.to_thread(twice)) == (max(before, KEEPING_UP_NICE), max(before, GIVING_WAY_NICE))


def test_it_yields_between_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    yielded: list[int] = []
    monkeypatch.setattr(os, "sched_yield", lambda: yielded.append(threading.get_ident()))
    monkeypatch.setattr(yielding, "PIECE_SECONDS", 0.0)
    asyncio.run(in_background(let_others_run))
    let_others_run()
    assert len(yielded) == 1
    assert yielded[0] != threading.get_ident()


def test_what_it_returns_and_raises_arrives() -> None:
    assert asyncio.run(in_background(divmod, 7, 2)) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(in_background(divmod, 7, 0))


def test_its_thread_ends_with_it() -> None:
    found = asyncio.run(in_background(threading.current_thread))
    found.join(20)
    assert not found.is_alive()


def test_a_cancellation_is_not_held_up_by_the_work_which_is_waited_for_at_the_end() -> None:
    begun, finish, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        finish.wait(20)
        done.set()

    async def cancelled() -> bool:
        task = asyncio.create_task(in_background(work))
        await asyncio.to_thread(begun.wait, 20)
        task.cancel()
        await asyncio.wait([task])
        assert not done.is_set()
        finish.set()
        await background_ended()
        assert done.is_set()
        return task.cancelled()

    assert asyncio.run(cancelled())
