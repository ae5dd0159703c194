"""GetStatistics: the pages of all workers as a message that can be merged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from shm_records import Desk, desk, records_of

from gateway.control.statistics import Statistics
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.errors import NotFound
from runtime.shm.publish import KEEP_NONE
from runtime.shm.series import SeriesKey, SeriesReader
from runtime.shm.statistics import StatisticsReader, StatisticsWriter
from runtime.shm.statistics_layout import create_page

IRIS = SeriesKey("iris", 3, "default", 0, "")
REFUSED = SeriesKey("iris", 3, "default", 8, "OVERLOADED")
WINE = SeriesKey("wine", 1, "pinned", 0, "")
NOBODY = SeriesKey("", 0, "", 5, "MODEL_NOT_FOUND")


def count(at: Desk, key: SeriesKey, *latencies_ns: int, ran: bool = True) -> None:
    rows = [
        {
            "series": at.series.number(key), "replied_ns": ns, "rows": 2, "bytes_in": 100, "bytes_out": 40,
            **({"started_ns": 1_000, "ran_ns": 5_000, "run_rows": 2, "run_id": bytes([n + 1] * 8)} if ran else {}),
        }
        for n, ns in enumerate(latencies_ns)
    ]  # fmt: skip
    at.publish(records_of(rows), KEEP_NONE)


@contextmanager
def in_flight(*counts: int) -> Iterator[StatisticsReader]:
    pages = [create_page("statistics") for _ in counts]
    for page, number in zip(pages, counts, strict=True):
        StatisticsWriter(page).set_in_flight(number)
    yield StatisticsReader(pages)
    for page in pages:
        os.close(page.fd)


def response(*desks: Desk, model: str = "", known: tuple[str, ...] = ()) -> pb.GetStatisticsResponse:
    with in_flight(3, 4) as statistics:
        reader = SeriesReader([each.page_segment for each in desks])
        return Statistics(reader, statistics, 2, 1_750_000_000.25).response(model, known)


def test_each_series_has_its_identity_and_its_figures() -> None:
    with desk() as at:
        count(at, IRIS, 1_000_000, 4_000_000)
        count(at, REFUSED, 20_000, ran=False)
        answer = response(at)
        refused, answered = sorted(answer.series, key=lambda series: series.code == "OK")
        assert (answered.model, answered.version, answered.variant, answered.code, answered.reason) == (
            "iris", 3, "default", "OK", "",
        )  # fmt: skip
        assert (answered.requests, answered.rows, answered.runs) == (2, 4, 2)
        assert (answered.request_bytes, answered.response_bytes) == (200, 80)
        assert answered.duration.sum == pytest.approx(0.005)
        assert (answered.shortest.ToNanoseconds(), answered.longest.ToNanoseconds()) == (1_000_000, 4_000_000)
        assert (sum(answered.queue.counts), sum(answered.run.counts), answered.run_rows.sum) == (2, 2, 4)
        assert (refused.code, refused.reason, refused.requests) == ("RESOURCE_EXHAUSTED", "OVERLOADED", 1)
        assert not refused.HasField("run")


def test_times_and_requests_in_flight_are_of_the_whole_gateway() -> None:
    with desk() as at:
        answer = response(at)
        assert answer.started_at.ToMilliseconds() == 1_750_000_000_250
        assert answer.time.ToNanoseconds() > answer.started_at.ToNanoseconds()
        assert answer.requests_in_flight == 7
        assert not answer.series


def test_answers_of_two_replicas_merge_into_the_one_that_saw_everything() -> None:
    with desk() as left, desk() as right, desk() as both:
        for at, latencies in ((left, (900_000, 70_000_000)), (right, (1_100_000, 300))):
            count(at, IRIS, *latencies)
            count(both, IRIS, *latencies)
        (one,), (two,), (whole,) = response(left).series, response(right).series, response(both).series
        merged: dict[int, int] = {}
        for series in (one, two):
            assert series.duration.scale == whole.duration.scale == 4
            for index, value in enumerate(series.duration.counts, series.duration.offset):
                merged[index] = merged.get(index, 0) + value
        expected = dict(enumerate(whole.duration.counts, whole.duration.offset))
        assert {k: v for k, v in merged.items() if v} == {k: v for k, v in expected.items() if v}
        assert one.duration.zero_count + two.duration.zero_count == whole.duration.zero_count == 1
        assert one.duration.sum + two.duration.sum == pytest.approx(whole.duration.sum)
        assert response(left, right).series == response(both).series


def test_one_model_can_be_asked_for() -> None:
    with desk() as at:
        for key in (IRIS, WINE, NOBODY):
            count(at, key, 1000)
        assert {series.model for series in response(at).series} == {"iris", "wine", ""}
        assert {series.model for series in response(at, model="wine").series} == {"wine"}


def test_a_model_without_requests_is_empty_and_one_that_is_unknown_is_refused() -> None:
    with desk() as at:
        assert not response(at, model="idle", known=("idle",)).series
        with pytest.raises(NotFound, match="'unheard'"):
            response(at, model="unheard")


def test_what_was_counted_of_a_model_that_is_gone_is_still_answered() -> None:
    with desk() as at:
        count(at, IRIS, 1000)
        assert len(response(at, model="iris", known=()).series) == 1
