"""The batch runner with real sessions: what becomes one run, and what becomes of each request."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bad_models import write_bad
from support.runtime import Deliveries, request_of, session_of
from zoo import built, by_name, reference, slow, versioned
from zoo import session as reference_session

from runtime.batching.plan import BatchLimits
from runtime.batching.request import Request
from runtime.batching.runner import SLOW_RUNS, BatchRunner
from runtime.errors import Cancelled, DeadlineExceeded, NotReady, Overloaded, RunError
from runtime.onnx.session import Session
from runtime.repository.manifest import SessionSettings

LIMITS = BatchLimits(64)
INLINE, SLOW = 0.0, 1.0  # seconds of a run, as warm-up measured it
Start = Callable[..., BatchRunner]


@pytest.fixture
def delivery() -> Deliveries:
    return Deliveries()


@pytest.fixture
def start(delivery: Deliveries) -> Iterator[Start]:
    """Starts a runner of a session; closes it, and shows that no thread of it is left."""
    runners: list[BatchRunner] = []

    def make(
        session: Session, limits: BatchLimits = LIMITS, instances: int = 1, run_seconds: float = INLINE
    ) -> BatchRunner:
        runners.append(BatchRunner("m/1", session, limits, instances, run_seconds, delivery))
        return runners[-1]

    yield make
    for runner in runners:
        runner.stop_all_runs()
        runner.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("run m/1")]


@pytest.fixture
def adding(tmp_path: Path) -> Session:
    """y = x + 1, float32[N, 4]."""
    return session_of(tmp_path, versioned(1.0))


def rows_of(session: Session, value: float, rows: int = 1) -> Request:
    return request_of(session.signature, {"x": np.full((rows, 4), value, np.float32)})


def hold(runner: BatchRunner, session: Session) -> tuple[Request, threading.Thread]:
    """Keeps an inline runner of a slow or endless model busy on another thread; returns once the run is under way."""
    request = request_of(session.signature, {"x": np.zeros((1, 64), np.float32)})
    thread = threading.Thread(target=runner.submit, args=([request],))
    thread.start()
    while not runner._active:
        time.sleep(0)
    return request, thread


def test_what_is_submitted_together_is_one_run_and_each_gets_its_own_rows(
    start: Start, adding: Session, delivery: Deliveries
) -> None:
    requests = [rows_of(adding, value, rows) for value, rows in ((1.0, 1), (2.0, 3), (3.0, 2))]
    start(adding).submit(requests)
    assert delivery.batches == [3]
    for request, value in zip(requests, (1.0, 2.0, 3.0), strict=True):
        np.testing.assert_array_equal(delivery.answer(request)[0], np.full((request.rows, 4), value + 1))


def test_requests_that_arrive_during_a_run_form_the_next_one(
    start: Start, tmp_path: Path, delivery: Deliveries
) -> None:
    session = session_of(tmp_path, slow())
    runner = start(session)
    first, thread = hold(runner, session)
    later = [request_of(session.signature, {"x": np.full((1, 64), i, np.float32)}) for i in range(5)]
    for request in later:
        runner.submit([request])
    assert runner.pending_requests == 5
    delivery.wait([first, *later])
    thread.join()
    assert delivery.batches == [1, 5]
    assert delivery.answer(later[3])[0].shape == (1, 64)


def test_requests_of_different_shapes_share_no_run(start: Start, tmp_path: Path, delivery: Deliveries) -> None:
    session = session_of(tmp_path, built("reduce_t"))
    requests = [request_of(session.signature, {"x": np.ones((1, width), np.float32)}) for width in (2, 5, 2, 5, 2)]
    start(session).submit(requests)
    assert sorted(delivery.batches) == [2, 3]
    assert [delivery.answer(request)[0].tolist() for request in requests] == [[1.0]] * 5


def test_selected_outputs_come_in_the_order_asked_for(start: Start, tmp_path: Path, delivery: Deliveries) -> None:
    session = session_of(tmp_path, built("three_outputs"))
    x = np.array([[1.0, 5.0]], np.float32)
    request = request_of(session.signature, {"x": x}, outputs=(2, 0))
    start(session).submit([request])
    best, negative = delivery.answer(request)
    assert (best.tolist(), negative.tolist()) == ([1], [[-1.0, -5.0]])


def test_no_rows_in_are_no_rows_out_without_a_run(start: Start, tmp_path: Path, delivery: Deliveries) -> None:
    session = session_of(tmp_path, built("rows_or_none"))
    empty = {"x": np.empty((0, 2), np.float32), "s": np.empty(0, object)}
    request = request_of(session.signature, empty)
    start(session).submit([request])
    answers = delivery.answer(request)
    assert [(a.shape, a.dtype) for a in answers] == [((0, 2), np.dtype("f4")), ((0,), np.dtype("O"))]


def test_a_model_without_a_batch_axis_is_run_one_by_one(start: Start, tmp_path: Path, delivery: Deliveries) -> None:
    model, rng = by_name["matmul"], np.random.default_rng(3)
    session = session_of(tmp_path, built("matmul"))
    feeds = [model.feeds(rng, 2) for _ in range(4)]
    requests = [request_of(session.signature, feed, merges=False) for feed in feeds]
    start(session, BatchLimits(0)).submit(requests)
    assert delivery.batches == [1, 1, 1, 1]
    oracle = reference_session(built("matmul"))
    for feed, request in zip(feeds, requests, strict=True):
        np.testing.assert_array_equal(delivery.answer(request)[0], reference(oracle, feed)["z"])


def test_answers_that_cannot_be_cut_by_rows_are_made_one_by_one(
    start: Start, tmp_path: Path, delivery: Deliveries
) -> None:
    """The signature says rows, the answer does not: each still gets its own."""
    session = session_of(tmp_path, built("double_rows"))
    requests = [request_of(session.signature, {"x": np.full((1, 2), i, np.float32)}) for i in range(3)]
    start(session).submit(requests)
    assert [delivery.answer(request)[0].tolist() for request in requests] == [[[i, i]] * 2 for i in range(3)]
    assert delivery.batches == [1, 1, 1]


def test_a_request_that_fails_the_run_fails_alone(start: Start, tmp_path: Path, delivery: Deliveries) -> None:
    session = session_of(tmp_path, built("gather"))
    ids = [1, 99, 2, 3]
    requests = [request_of(session.signature, {"ids": np.array([i], np.int64)}) for i in ids]
    start(session).submit(requests)
    error = delivery.error(requests[1])
    assert isinstance(error, RunError)
    assert (error.message, "idx=99" in error.detail) == ("model failed", True)
    oracle = reference_session(built("gather"))
    for index in (0, 2, 3):
        expected = reference(oracle, {"ids": np.array([ids[index]], np.int64)})["y"]
        np.testing.assert_array_equal(delivery.answer(requests[index])[0], expected)
    assert set(delivery.counts.values()) == {1}


def test_a_deadline_that_passed_in_the_queue_is_refused_with_the_time_waited_and_not_run(
    start: Start, adding: Session, delivery: Deliveries
) -> None:
    late, live = rows_of(adding, 1.0), rows_of(adding, 2.0)
    late.deadline_seconds = time.time() - 1
    late.arrived_ns = time.monotonic_ns() - 250_000_000
    start(adding).submit([late, live])
    error = delivery.error(late)
    assert isinstance(error, DeadlineExceeded)
    said = re.fullmatch(r"the deadline passed after ([0-9.]+) ms in the queue of m/1, before the run", error.message)
    assert said is not None
    assert 250 <= float(said[1]) < 30_000
    delivery.answer(live)
    assert delivery.batches == [1]


def test_rows_of_a_client_that_has_gone_are_not_computed(start: Start, adding: Session, delivery: Deliveries) -> None:
    gone, live = rows_of(adding, 1.0), rows_of(adding, 2.0)
    gone.owner, live.owner = SimpleNamespace(cancelled=True, watch=lambda: None), SimpleNamespace(cancelled=False)
    start(adding).submit([gone, live])
    assert isinstance(delivery.error(gone), Cancelled)
    delivery.answer(live)
    assert delivery.batches == [1]


def test_what_finds_the_queue_full_is_refused_and_what_was_there_is_answered(
    start: Start, adding: Session, delivery: Deliveries
) -> None:
    requests = [rows_of(adding, float(i)) for i in range(5)]
    start(adding, BatchLimits(64, max_queue_requests=3)).submit(requests)
    for request in requests[:3]:
        delivery.answer(request)
    for request in requests[3:]:
        error = delivery.error(request)
        assert isinstance(error, Overloaded)
        assert error.retry_after_seconds > 0
        assert "at most 3 requests wait (batching.max_queue_requests)" in error.message


def test_a_model_that_turns_out_slow_moves_to_a_thread_of_its_own(
    start: Start, tmp_path: Path, delivery: Deliveries
) -> None:
    session = session_of(tmp_path, slow())
    runner = start(session)
    assert (runner.dedicated, repr(runner)) == (False, "<BatchRunner m/1 inline pending=0 running=0>")
    for _ in range(SLOW_RUNS):
        runner.submit([request_of(session.signature, {"x": np.zeros((1, 64), np.float32)})])
    assert (runner.dedicated, repr(runner)) == (True, "<BatchRunner m/1 dedicated pending=0 running=0>")
    request = request_of(session.signature, {"x": np.zeros((1, 64), np.float32)})
    runner.submit([request])
    delivery.answer(request)
    assert (len(delivery.counts), set(delivery.counts.values())) == (SLOW_RUNS + 1, {1})


@pytest.mark.parametrize(
    ("instances", "delay", "run_seconds", "dedicated"),
    [(1, 0.0, INLINE, False), (2, 0.0, INLINE, True), (1, 0.001, INLINE, True), (1, 0.0, SLOW, True)],
)
def test_only_short_runs_that_wait_for_nobody_stay_on_the_receiving_thread(
    start: Start, adding: Session, instances: int, delay: float, run_seconds: float, *, dedicated: bool
) -> None:
    assert start(adding, BatchLimits(64, delay), instances, run_seconds).dedicated is dedicated


def test_a_request_waits_for_company_until_the_run_is_full(start: Start, adding: Session, delivery: Deliveries) -> None:
    runner = start(adding, BatchLimits(4, max_delay_seconds=30.0))
    requests = [rows_of(adding, float(i)) for i in range(4)]
    for request in requests:
        request.arrived_ns = time.monotonic_ns()
        assert delivery.batches == []
        runner.submit([request])
    delivery.wait(requests)
    assert delivery.batches == [4]


def test_a_request_without_company_is_run_when_its_time_is_up(
    start: Start, adding: Session, delivery: Deliveries
) -> None:
    runner = start(adding, BatchLimits(4, max_delay_seconds=0.05))
    request = rows_of(adding, 1.0)
    started = request.arrived_ns = time.monotonic_ns()
    runner.submit([request])
    delivery.answer(request)
    assert delivery.times[0].started_ns - started >= 50_000_000


def test_closing_refuses_what_waits(start: Start, adding: Session, delivery: Deliveries) -> None:
    runner = start(adding, BatchLimits(4, max_delay_seconds=30.0))
    request = rows_of(adding, 1.0)
    request.arrived_ns = time.monotonic_ns()
    runner.submit([request])
    runner.close()
    error = delivery.error(request)
    assert (type(error), error.message) == (NotReady, "m/1 is being unloaded")


def test_a_run_is_stopped_only_when_all_of_its_clients_have_gone(
    start: Start, tmp_path: Path, delivery: Deliveries
) -> None:
    write_bad(tmp_path, "endless", model="m")
    session = Session(tmp_path / "m" / "1" / "model.onnx", SessionSettings())
    runner = start(session)
    owners = [SimpleNamespace(cancelled=False, watch=lambda: None) for _ in range(3)]
    requests = [request_of(session.signature, {"x": np.ones(1, np.float32)}) for _ in owners]
    for request, owner in zip(requests, owners, strict=True):
        request.owner = owner
    thread = threading.Thread(target=runner.submit, args=(requests,))
    thread.start()
    while not runner._active:
        time.sleep(0)
    for owner in owners:
        assert runner.look_after(time.time(), 0).stopped == 0
        owner.cancelled = True
    assert runner.look_after(time.time(), 3_600_000_000_000).stopped == 0, "younger than that"
    assert runner.look_after(time.time(), 0).stopped == 1
    thread.join()
    for request in requests:
        delivery.error(request)
    assert set(delivery.counts.values()) == {1}
    assert not runner._active


def test_stopping_all_runs_refuses_every_request_of_a_batch_at_once(
    start: Start, tmp_path: Path, delivery: Deliveries
) -> None:
    """They are not run again one by one, each to be stopped in its turn."""
    write_bad(tmp_path, "endless", model="m")
    session = Session(tmp_path / "m" / "1" / "model.onnx", SessionSettings())
    runner = start(session)
    requests = [request_of(session.signature, {"x": np.ones(1, np.float32)}) for _ in range(3)]
    thread = threading.Thread(target=runner.submit, args=(requests,))
    thread.start()
    while not runner._active:
        time.sleep(0)
    runner.stop_all_runs()
    thread.join()
    assert {(type(error), error.message) for error in map(delivery.error, requests)} == {
        (NotReady, "m/1 is being unloaded, and its run was stopped")
    }
    assert set(delivery.counts.values()) == {1}


@pytest.mark.parametrize(("instances", "delay"), [(1, 0.0), (3, 0.0), (1, 0.002)])
def test_under_many_threads_each_request_gets_its_own_answer_exactly_once(
    start: Start, adding: Session, delivery: Deliveries, instances: int, delay: float
) -> None:
    runner = start(adding, BatchLimits(16, delay, max_queue_requests=100_000), instances)
    threads_count, rounds = 6, 120
    sent: list[list[tuple[Request, float]]] = [[] for _ in range(threads_count)]

    def send(index: int) -> None:
        rng = np.random.default_rng(index)
        for turn in range(rounds):
            batch = []
            for _ in range(int(rng.integers(1, 5))):
                value = float(1000 * index + turn)
                request = rows_of(adding, value, int(rng.integers(0, 4)))
                request.arrived_ns = time.monotonic_ns()
                batch.append((request, value))
            sent[index] += batch
            runner.submit([request for request, _ in batch])

    threads = [threading.Thread(target=send, args=(index,)) for index in range(threads_count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [pair for one in sent for pair in one]
    delivery.wait([request for request, _ in everything])
    assert set(delivery.counts.values()) == {1}
    assert len(delivery.counts) == len(everything)
    for request, value in everything:
        np.testing.assert_array_equal(delivery.answer(request)[0], np.full((request.rows, 4), value + 1))
    assert runner.pending_requests == 0


class Marks:
    """A Mark that keeps what it was told."""

    def __init__(self) -> None:
        self.under_way: set[int] = set()
        self.begun = 0

    def begin(self) -> int:
        self.begun += 1
        self.under_way.add(self.begun)
        return self.begun

    def end(self, begun: int) -> None:
        self.under_way.remove(begun)


@pytest.mark.parametrize("model", ["add", "gather"])
def test_each_run_is_marked_and_no_mark_stays_whether_it_fails_or_not(
    model: str, tmp_path: Path, delivery: Deliveries
) -> None:
    marks = Marks()
    session = session_of(tmp_path, versioned(1.0) if model == "add" else built("gather"))
    runner = BatchRunner("m/1", session, LIMITS, 1, INLINE, delivery, marks)
    if model == "add":
        requests = [rows_of(session, 1.0), rows_of(session, 2.0)]
    else:
        requests = [request_of(session.signature, by_name["gather"].failing(np.random.default_rng(1), 2))]
    runner.submit(requests)
    delivery.wait(requests)
    runner.close()
    assert (marks.begun, marks.under_way) == (1, set())
