"""Only threads of the background yield."""

from __future__ import annotations

import os
import threading

import pytest

from runtime.yielding import begin_yielding, let_others_run


def test_a_thread_yields_once_it_has_begun_to(monkeypatch: pytest.MonkeyPatch) -> None:
    yielded: list[str] = []
    monkeypatch.setattr(os, "sched_yield", lambda: yielded.append(threading.current_thread().name))

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
