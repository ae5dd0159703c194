"""Only threads of the background yield, once for each piece of work."""

from __future__ import annotations

import os
import threading

import pytest

from runtime import yielding
from runtime.yielding import begin_yielding, let_others_run


def test_a_thread_yields_once_it_has_begun_to(monkeypatch: pytest.MonkeyPatch) -> None:
    yielded: list[str] = []
    monkeypatch.setattr(os, "sched_yield", lambda: yielded.append(threading.current_thread().name))
    monkeypatch.setattr(yielding, "PIECE_SECONDS", 0.0)

    def background() -> None:
        let_others_run()
        begin_yielding()
        let_others_run()
        let_others_run()

    thread = threading.Thread(target=background, name="background")
    thread.start()
    thread.join()
    let_others_run()
    assert yielded == ["background"] * 2


def test_it_yields_once_a_piece_however_often_it_could(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    yielded: list[float] = []
    monkeypatch.setattr(os, "sched_yield", lambda: yielded.append(round(now, 4)))
    monkeypatch.setattr(yielding.time, "monotonic", lambda: now)

    def background() -> None:
        nonlocal now
        begin_yielding()
        for _ in range(12):
            now += 0.0004
            let_others_run()

    thread = threading.Thread(target=background)
    thread.start()
    thread.join()
    assert yielded == [0.0012, 0.0024, 0.0036, 0.0048]
