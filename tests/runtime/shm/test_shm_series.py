"""The series page: what is counted is exact, whoever counted it and however it is merged."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shm_records import Desk, desk, records_of

from runtime.shm.publish import KEEP_NONE
from runtime.shm.series import (
    OVERFLOW,
    OVERFLOW_REFUSED,
    VARIANT_BYTES,
    PageMismatch,
    Series,
    SeriesKey,
    SeriesReader,
    SeriesWriter,
    _variant_text,
    bounds_seconds,
    map_page,
)
from runtime.shm.series_layout import (
    CLASSIC_SECONDS,
    MAX_SERIES,
    PER_OCTAVE,
    TIME_BUCKETS,
    TIME_OFFSET,
    USED,
    create_series_page,
)

KEY = SeriesKey("iris", 3, "default", 0, "")
NS = st.integers(0, 10**13)


def durations(at: Desk, key: SeriesKey, values: list[int]) -> None:
    number = at.series.number(key)
    if values:
        at.publish(records_of([{"series": number, "replied_ns": value, "rows": 2} for value in values]), KEEP_NONE)


def only(at: Desk) -> Series:
    (series,) = at.totals().totals()
    return series


def bucket_of(ns: int) -> int:
    """By exact arithmetic on the 16th power, without logarithms: -1 at or below the first bound."""
    seconds = Fraction(ns, 10**9)
    if seconds <= Fraction(1, 2**20):
        return -1
    k = math.ceil(math.log2(seconds) * PER_OCTAVE) - 1 - TIME_OFFSET + 2
    while seconds**PER_OCTAVE <= Fraction(2) ** (TIME_OFFSET + k):
        k -= 1
    return min(k, TIME_BUCKETS - 1)


@settings(max_examples=80, deadline=None)
@given(st.lists(NS, min_size=1, max_size=40))
def test_every_duration_falls_into_the_bucket_whose_bounds_hold_it(values: list[int]) -> None:
    with desk() as at:
        durations(at, KEY, values)
        series = only(at)
        expected = [bucket_of(value) for value in values]
        assert series.duration.tolist() == np.bincount([k for k in expected if k >= 0], minlength=TIME_BUCKETS).tolist()
        counters = series.counters
        assert counters["duration_zero"] == expected.count(-1)
        assert (counters["requests"], counters["rows"], counters["duration_ns"]) == (
            len(values), 2 * len(values), sum(values),
        )  # fmt: skip
        assert counters["duration_max_ns"] == max(values)
        edges = np.array(CLASSIC_SECONDS) * 1e9
        expected_classic = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
        assert series.classic.tolist() == expected_classic.tolist()


def test_powers_of_two_end_their_bucket() -> None:
    with desk() as at:
        durations(at, KEY, [10**9, 2 * 10**9, 4 * 10**9])
        found = np.flatnonzero(only(at).duration)
        assert [float(bounds_seconds()[k + 1]) for k in found] == [1.0, 2.0, 4.0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(NS, st.booleans()), min_size=1, max_size=40))
def test_two_workers_added_up_are_the_worker_that_saw_everything(values: list[tuple[int, bool]]) -> None:
    with desk() as left, desk() as right, desk() as both:
        for value, goes_left in values:
            durations(left if goes_left else right, KEY, [value])
        durations(both, KEY, [value for value, _ in values])
        (merged,) = SeriesReader([left.page_segment, right.page_segment]).totals()
        whole = only(both)
        if all(value for value, _ in values):  # 0 stands for no minimum yet
            assert merged.counters == whole.counters
        assert merged.duration.tolist() == whole.duration.tolist()
        assert merged.classic.tolist() == whole.classic.tolist()


def test_a_run_is_counted_once_for_all_its_requests() -> None:
    times = {"decoded_ns": 1000, "queued_ns": 2000, "started_ns": 5_000, "gathered_ns": 6_000, "ran_ns": 105_000}
    with desk() as at:
        number = at.series.number(KEY)
        rows = [
            {"series": number, "rows": 1, "run_rows": size, "run_requests": size, "run_id": bytes([run] * 8),
             "replied_ns": 200_000, **times}
            for run, size in ((1, 3), (2, 1), (3, 4)) for _ in range(size)
        ]  # fmt: skip
        at.publish(records_of(rows), KEEP_NONE)
        series = only(at)
        assert (series.counters["runs"], series.counters["run_rows"], series.counters["ran_requests"]) == (3, 8, 8)
        assert (series.counters["run_ns"], series.counters["queue_ns"]) == (297_000, 32_000)
        assert (int(series.run.sum()), int(series.queue.sum()), int(series.run_rows.sum())) == (3, 8, 3)


def test_an_exemplar_is_the_newest_sampled_request_of_its_bucket() -> None:
    with desk() as at:
        number = at.series.number(KEY)
        rows = [
            {"series": number, "replied_ns": 300_000 + n, "received_unix_ns": 10**18 + n, "trace_id": bytes([n] * 16),
             "span_id": bytes([n] * 8), "trace_flags": n != 3}
            for n in (1, 2, 3)
        ]  # fmt: skip
        at.publish(records_of(rows), KEEP_NONE)
        (exemplar,) = only(at).exemplars
        assert (exemplar.trace_id, exemplar.span_id) == (bytes([2] * 16), bytes([2] * 8))
        assert exemplar.duration_seconds == pytest.approx(0.000300002)
        assert CLASSIC_SECONDS[exemplar.bucket - 1] < exemplar.duration_seconds <= CLASSIC_SECONDS[exemplar.bucket]


def test_a_restarted_worker_counts_on() -> None:
    with desk() as at:
        durations(at, KEY, [1_000_000])
        at.series = SeriesWriter(at.page_segment)
        durations(at, KEY, [2_000_000])
        assert only(at).counters["requests"] == 2


def test_a_name_that_is_cut_has_one_row_over_restarts_too() -> None:
    long = SeriesKey("é" * 100, 1, "default", 0, "")
    with desk() as at:
        for _ in range(3):
            durations(at, long, [1_000_000])
            at.series = SeriesWriter(at.page_segment)
        assert int(at.series.header[USED]) == 3
        assert only(at).counters["requests"] == 3


def test_long_variants_of_one_rule_are_told_apart() -> None:
    rule = "r" * 63
    names = {_variant_text(f"{rule}/{variant}") for variant in ("a", "b", "c" * 63)}
    assert len(names) == 3
    assert all(len(name) == VARIANT_BYTES and name.startswith(rule[:50].encode()) for name in names)
    assert _variant_text("candidate") == b"candidate"


def test_a_writer_killed_in_the_middle_of_a_write_does_not_stop_readers_or_its_successor() -> None:
    with desk() as at:
        durations(at, KEY, [1_000_000])
        at.series.header[2] += np.uint64(1)
        assert only(at).counters["requests"] == 1
        at.series = SeriesWriter(at.page_segment)
        durations(at, KEY, [1_000_000])
        assert int(at.series.header[2]) % 2 == 0
        assert only(at).counters["requests"] == 2


def test_series_beyond_the_last_are_counted_together_and_said_to_be(caplog: pytest.LogCaptureFixture) -> None:
    """What was answered apart from what was refused: a refusal counts as no success."""
    with desk() as at:
        numbers = [at.series.number(SeriesKey(f"m{n}", 1, "", 0, "")) for n in range(MAX_SERIES + 2)]
        assert numbers[-5:] == [MAX_SERIES - 1, 0, 0, 0, 0]
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "SeriesKey(model='m1022'" in caplog.text
        durations(at, SeriesKey("m5000", 1, "", 0, ""), [7])
        durations(at, SeriesKey("m5000", 1, "", 13, "INTERNAL"), [7, 8])
        durations(at, SeriesKey("", 0, "", 5, "MODEL_NOT_FOUND"), [9])
        totals = at.totals().totals()
        assert [(series.key, series.counters["requests"]) for series in totals] == [
            (OVERFLOW, 1), (OVERFLOW_REFUSED, 3)
        ]  # fmt: skip
        assert at.totals().lost() == 7
        at.series = SeriesWriter(at.page_segment)
        durations(at, SeriesKey("m5000", 1, "", 13, "INTERNAL"), [7])
        assert [series.counters["requests"] for series in at.totals().totals()] == [1, 4]


def test_a_page_of_another_layout_is_refused() -> None:
    segment = create_series_page("page")
    segment.buffer[0] = 0
    with pytest.raises(PageMismatch, match="expected a page of series of layout 2"):
        map_page(segment)
    segment.close()
