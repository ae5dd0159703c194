"""When an ended process is started again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.supervisor.restart import (
    EARLY_REFUSALS,
    QUIET_SECONDS,
    REFUSED,
    GiveUp,
    History,
    Restart,
    after_end,
)

FIRST, LONGEST = 0.1, 10.0
LIVES = st.lists(st.tuples(st.floats(0, 200), st.sampled_from([0, 1, REFUSED, -9, -11])), max_size=30)


def ends(lives: list[tuple[float, int]]) -> list[tuple[History, Restart | GiveUp, float]]:
    """A child that lives for so many seconds and ends so, again and again; the time of each end."""
    history, now, seen = History(), 1000.0, []
    for seconds, status in lives:
        history = replace(history, started_at=now)
        now += seconds
        history, decision = after_end(history, now, status, FIRST, LONGEST)
        seen.append((history, decision, now))
        if isinstance(decision, GiveUp):
            break
        now = decision.at
    return seen


@given(LIVES)
def test_the_wait_is_bounded_and_never_in_the_past(lives: list[tuple[float, int]]) -> None:
    for _, decision, now in ends(lives):
        if isinstance(decision, Restart):
            assert now <= decision.at <= now + LONGEST + 1e-6


@given(LIVES)
def test_only_a_child_that_refuses_three_times_in_a_row_is_given_up(lives: list[tuple[float, int]]) -> None:
    """And only if it has never run for a quiet minute: what a proven child refuses may mend."""
    row, proven = 0, False
    for (_, decision, _), (seconds, status) in zip(ends(lives), lives, strict=False):
        row = row + 1 if status == REFUSED else 0
        proven = proven or seconds >= QUIET_SECONDS
        assert isinstance(decision, GiveUp) == (row >= EARLY_REFUSALS and not proven)


@given(LIVES)
def test_a_quiet_minute_is_forgiven(lives: list[tuple[float, int]]) -> None:
    for (history, decision, now), (seconds, _) in zip(ends(lives), lives, strict=False):
        if isinstance(decision, Restart) and seconds > QUIET_SECONDS:
            assert (history.ends, decision.at) == (1, now)


def test_each_end_without_a_quiet_minute_doubles_the_wait_up_to_the_longest() -> None:
    waits = [round(decision.at - now, 6) for _, decision, now in ends([(1.0, 1)] * 10) if isinstance(decision, Restart)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]


@pytest.mark.parametrize("count", [1024, 1025, 5000])
def test_a_child_that_has_ended_for_days_is_still_started_again(count: int) -> None:
    """2**1024 is no float: the supervisor would end, and with it the whole gateway."""
    history, decision = after_end(History(count, 0.0), 1.0, 1, FIRST, LONGEST)
    assert (history.ends, decision) == (count + 1, Restart(1.0 + LONGEST))


def test_giving_up_says_why() -> None:
    *_, (_, decision, _) = ends([(0.1, REFUSED)] * 5)
    assert decision == GiveUp("it refused to run 3 times in a row")
