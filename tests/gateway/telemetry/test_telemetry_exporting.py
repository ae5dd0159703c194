"""What was begun is under way until it is counted, and nothing is counted twice."""

from __future__ import annotations

import threading

import pytest

from gateway.telemetry.daemon_pool import DaemonPool
from gateway.telemetry.exporting import ExportCounts
from gateway.telemetry.fates import COUNTS, Fate, Signal, place
from gateway.telemetry.otlp.client import Outcome
from runtime.shm.tally import Tally, create_tally

WAIT_SECONDS = 20.0


def test_spans_and_runs_are_under_way_until_their_export_ends() -> None:
    counts = ExportCounts(Tally(create_tally("exported", COUNTS)), Signal.SPANS)
    counts.begin(10, 3)
    counts.begin(1, 1)
    assert (counts.under_way(Signal.SPANS), counts.under_way(Signal.RUN_SPANS)) == (11, 4)
    counts.count(Outcome(13, 0, 0, 1, ""), 10, 3)
    assert (counts.under_way(Signal.SPANS), counts.under_way(Signal.RUN_SPANS)) == (1, 1)
    assert counts.under_way(Signal.LOGS) == 0


def test_what_is_abandoned_has_failed_even_if_it_arrives_later() -> None:
    tally = Tally(create_tally("exported", COUNTS))
    counts = ExportCounts(tally, Signal.SPANS)
    counts.begin(10, 3)
    counts.begin(5, 1)
    counts.count(Outcome(6, 0, 0, 1, ""), 5, 1)
    counts.abandon()
    counts.count(Outcome(13, 0, 0, 1, ""), 10, 3)
    found = {(signal, fate): tally.value(place(signal, fate)) for signal in Signal for fate in Fate}
    assert {key: count for key, count in found.items() if count} == {
        (Signal.SPANS, Fate.EXPORTED): 5,
        (Signal.RUN_SPANS, Fate.EXPORTED): 1,
        (Signal.SPANS, Fate.FAILED): 10,
        (Signal.RUN_SPANS, Fate.FAILED): 3,
    }
    assert counts.under_way(Signal.SPANS) == 0


def test_a_pool_ends_with_its_tasks_and_says_so() -> None:
    pool = DaemonPool(2, "test pool")
    done: list[int] = []
    futures = [pool.submit(done.append, number) for number in range(100)]
    assert pool.close(WAIT_SECONDS)
    assert sorted(done) == list(range(100))
    assert all(future.done() for future in futures)


def test_a_pool_does_not_wait_for_a_task_that_hangs() -> None:
    pool, going_on = DaemonPool(2, "test pool"), threading.Event()
    hanging = pool.submit(going_on.wait)  # type: ignore[arg-type]  # its answer is not looked at
    assert not pool.close(0.01)
    assert not hanging.done()
    going_on.set()
    hanging.result(WAIT_SECONDS)


def test_a_failed_task_keeps_its_error_and_leaves_the_thread_for_the_next() -> None:
    def fail() -> None:
        raise ValueError("no")

    pool = DaemonPool(1, "test pool")
    failed, well = pool.submit(fail), pool.submit(lambda: None)
    with pytest.raises(ValueError, match="no"):
        failed.result(WAIT_SECONDS)
    well.result(WAIT_SECONDS)
    assert pool.close(WAIT_SECONDS)


def test_an_unused_pool_starts_no_thread() -> None:
    before = threading.active_count()
    assert DaemonPool(4, "test pool").close(0.0)
    assert threading.active_count() == before
