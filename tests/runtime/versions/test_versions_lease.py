"""Leases: none after the close, and one call when the last is back."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.versions.lease import Leases


def test_a_closed_one_gives_no_leases_and_tells_when_the_last_is_back() -> None:
    leases, drained = Leases(), []
    assert (leases.take(2), leases.take(1), leases.count, leases.closed) == (True, True, 3, False)
    leases.close(lambda: drained.append(leases.count))
    assert (leases.take(1), leases.count, leases.closed, drained) == (False, 3, True, [])
    leases.give_back(2)
    assert drained == []
    leases.give_back(1)
    assert drained == [0]


def test_one_without_leases_is_drained_at_once() -> None:
    leases, drained = Leases(), []
    leases.close(lambda: drained.append(True))
    assert drained == [True]


def test_returning_the_last_lease_of_an_open_one_closes_nothing() -> None:
    leases = Leases()
    assert leases.take(1)
    leases.give_back(1)
    assert leases.take(1)


def test_it_shows_what_is_out() -> None:
    leases = Leases()
    leases.take(2)
    assert repr(leases) == "<Leases 2 out>"
    leases.close(lambda: None)
    assert repr(leases) == "<Leases 2 out, closed>"


@given(st.lists(st.one_of(st.integers(1, 5), st.just(-1), st.just(0)), max_size=40))
def test_drained_is_told_exactly_once_whatever_the_order(steps: list[int]) -> None:
    """n > 0: take n; -1: give the oldest back; 0: close."""
    leases = Leases()
    out: list[int] = []
    drained: list[int] = []
    closed = False
    for step in steps:
        if step > 0:
            taken = leases.take(step)
            assert taken is not closed
            if taken:
                out.append(step)
        elif step < 0 and out:
            leases.give_back(out.pop(0))
        elif step == 0 and not closed:
            closed = True
            leases.close(lambda: drained.append(leases.count))
        assert leases.count == sum(out)
        assert drained == ([0] if closed and not out else [])


@pytest.mark.parametrize("seed", range(5))
def test_threads_that_take_while_it_closes_either_hold_a_lease_before_the_drain_or_get_none(seed: int) -> None:
    leases, start = Leases(), threading.Barrier(5)
    drained = threading.Event()
    calls: list[int] = []
    after_drain: list[bool] = []

    def on_drained() -> None:
        calls.append(leases.count)
        drained.set()

    def use() -> None:
        start.wait()
        for count in range(1, 2000):
            if not leases.take(1 + (count + seed) % 3):
                return
            after_drain.append(drained.is_set())
            leases.give_back(1 + (count + seed) % 3)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    start.wait()
    leases.close(on_drained)
    for thread in threads:
        thread.join()
    assert drained.is_set()
    assert calls == [0]
    assert not any(after_drain)
