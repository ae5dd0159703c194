"""Of many alike the first few pass, and none is forgotten."""

from __future__ import annotations

import threading

from gateway.throttle import BURST, MAX_KEYS, WINDOW_SECONDS, Throttle


def test_the_first_few_of_a_key_pass_and_the_next_window_tells_of_those_held_back() -> None:
    throttle = Throttle("others")
    first = [throttle.passes("a", 0.0, str(number)) for number in range(BURST + 5)]
    assert first == [(0, str(number)) for number in range(BURST)] + [(None, str(BURST - 1))] * 5
    assert throttle.passes("b", 0.0, "other") == (0, "other"), "keys do not silence each other"
    assert throttle.passes("a", WINDOW_SECONDS, "next") == (5, "next")
    assert throttle.passes("a", WINDOW_SECONDS, "after") == (0, "after")


def test_those_held_back_are_overdue_once_when_their_window_has_passed() -> None:
    throttle = Throttle("others")
    for _ in range(BURST + 3):
        throttle.passes("a", 1.0)
    assert throttle.overdue(1.0 + WINDOW_SECONDS - 0.1) == []
    assert throttle.overdue(1.0 + WINDOW_SECONDS) == [("a", 3, WINDOW_SECONDS)]
    assert throttle.overdue(99.0) == []
    for _ in range(BURST + 1):
        throttle.passes("b", 100.0)
    assert throttle.overdue(101.0, is_last=True) == [("b", 1, 1.0)]


def test_keys_are_bounded_and_the_rest_count_together() -> None:
    throttle = Throttle(-1)
    passed = sum(throttle.passes(key, 0.0)[0] is not None for key in range(MAX_KEYS + 100))
    assert passed == MAX_KEYS + BURST
    assert len(throttle._windows) == MAX_KEYS + 1
    assert throttle.overdue(WINDOW_SECONDS) == [(-1, 100 - BURST, WINDOW_SECONDS)]
    assert throttle.passes("new", 2 * WINDOW_SECONDS)[0] == 0, "those of the past have made room"  # type: ignore[arg-type]
    assert len(throttle._windows) == 1


def test_threads_together_pass_no_more() -> None:
    throttle, passed = Throttle("others"), []
    threads = [
        threading.Thread(target=lambda: passed.extend(throttle.passes("a", 0.0)[0] for _ in range(500)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(held is not None for held in passed) == BURST
    assert throttle.overdue(WINDOW_SECONDS) == [("a", 2000 - BURST, WINDOW_SECONDS)]
