"""Batch cuts: who shares a run with whom, and for how long the first one waits."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.batching.plan import SHARED_BYTES, BatchLimits, cut, wait_seconds
from runtime.batching.request import Request


def waiting(rows: int, key: object = "k", arrived_ns: int = 0) -> Request:
    request = Request([], [], (), rows, key)
    request.arrived_ns = arrived_ns
    return request


QUEUES = st.lists(st.builds(waiting, st.integers(0, 9), st.sampled_from(["k", "l", "m"])), min_size=1, max_size=25)


@given(QUEUES, st.integers(0, 12))
def test_every_request_is_cut_exactly_once_and_in_the_order_of_its_key(queue: list[Request], max_rows: int) -> None:
    pending = deque(queue)
    cuts = []
    while pending:
        before = len(pending)
        cuts.append(cut(pending, max_rows))
        assert len(cuts[-1]) == before - len(pending) > 0
    cut_requests = [request for one in cuts for request in one]
    assert sorted(map(id, cut_requests)) == sorted(map(id, queue))
    for key in ("k", "l", "m"):
        assert [r for r in cut_requests if r.key == key] == [r for r in queue if r.key == key]


@given(QUEUES, st.integers(0, 12))
def test_a_run_has_one_key_and_no_more_rows_than_allowed_unless_one_request_alone_has(
    queue: list[Request], max_rows: int
) -> None:
    pending = deque(queue)
    while pending:
        oldest = pending[0]
        taken = cut(pending, max_rows)
        assert taken[0] is oldest, "nobody is passed over for ever"
        assert {request.key for request in taken} == {oldest.key}
        if len(taken) > 1:
            assert sum(request.rows for request in taken) <= max_rows
            assert all(request.rows for request in taken), "an empty request shares no run"


@given(QUEUES, st.integers(1, 12))
def test_a_run_leaves_no_room_that_the_next_of_its_key_could_use(queue: list[Request], max_rows: int) -> None:
    pending = deque(queue)
    while pending:
        taken = cut(pending, max_rows)
        following = next((request for request in pending if request.key == taken[0].key), None)
        if following is not None and taken[0].rows and following.rows:
            assert sum(request.rows for request in taken) + following.rows > max_rows


@given(QUEUES)
def test_without_a_batch_axis_each_runs_alone(queue: list[Request]) -> None:
    pending = deque(queue)
    assert [cut(pending, 0) for _ in queue] == [[request] for request in queue]


def test_requests_of_other_keys_keep_their_places() -> None:
    a, b, c, d, e = (waiting(1, key) for key in "xyxyx")
    pending = deque([a, b, c, d, e])
    assert cut(pending, 2) == [a, c]
    assert list(pending) == [b, d, e]


@pytest.mark.parametrize(
    ("rows", "delay", "age_ms", "expected"),
    [
        ([1], 0.0, 0, 0.0),  # no delay configured
        ([1, 2], 0.010, 4, 0.006),  # waits for the rest of the time
        ([1, 2], 0.010, 10, 0.0),
        ([1, 2], 0.010, 25, 0.0),  # overdue
        ([4, 4], 0.010, 0, 0.0),  # full
        ([9], 0.010, 0, 0.0),  # more than full
    ],
)
def test_the_first_waits_for_company_until_the_run_is_full_or_its_time_is_up(
    rows: list[int], delay: float, age_ms: int, expected: float
) -> None:
    now_ns = 10**12
    pending = [waiting(count, arrived_ns=now_ns - age_ms * 10**6) for count in rows]
    assert wait_seconds(pending, BatchLimits(8, delay), now_ns) == pytest.approx(expected, abs=1e-9)


def test_nobody_waits_where_runs_are_not_shared() -> None:
    assert wait_seconds([waiting(1)], BatchLimits(0, 0.5), 0) == 0.0


def sized(size_bytes: int) -> Request:
    request = waiting(1)
    request.size_bytes = size_bytes
    return request


@given(st.lists(st.integers(0, 2 * SHARED_BYTES), min_size=1, max_size=25))
def test_great_messages_run_alone_and_others_share_a_run_up_to_a_bound(sizes: list[int]) -> None:
    pending = deque(map(sized, sizes))
    while pending:
        taken = sum(request.size_bytes for request in cut(pending, 100))
        assert taken <= SHARED_BYTES or taken in sizes
        assert not pending or taken + pending[0].size_bytes > SHARED_BYTES, "there was room for the next"


def test_nobody_is_waited_for_where_there_is_no_room() -> None:
    limits = BatchLimits(max_rows=8, max_delay_seconds=1.0)
    assert wait_seconds([sized(SHARED_BYTES)], limits, now_ns=0) == 0
    assert wait_seconds([sized(SHARED_BYTES - 1)], limits, now_ns=0) == 1
