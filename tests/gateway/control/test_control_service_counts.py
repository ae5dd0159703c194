"""Counts of how a version answers: merged, subtracted and stored without loss, and taken from series once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shm_records import Desk, desk, records_of

from gateway.control.service_counts import ServiceCounts, ServiceMeter, ServiceSample
from runtime.drift.binned import NumericBins, RateCounts
from runtime.drift.evaluate import Sample
from runtime.drift.verdict import Role
from runtime.profile.levels import Levels
from runtime.profile.windows import Windows
from runtime.shm.publish import KEEP_NONE
from runtime.shm.series import SeriesKey
from runtime.shm.series_layout import TIME_BUCKETS
from runtime.sketch.errors import Malformed

BUCKETS = st.dictionaries(st.integers(0, TIME_BUCKETS - 1), st.integers(1, 1 << 40), max_size=20)
NUMBERS = st.integers(0, 1 << 60)


def counts_of(buckets: dict[int, int], zero: int, requests: int, errors: int) -> ServiceCounts:
    counts = ServiceCounts(zero=zero, requests=requests, errors=errors)
    for at, number in buckets.items():
        counts.durations[at] = number
    return counts


def same(one: ServiceCounts, other: ServiceCounts) -> bool:
    return one.encode() == other.encode()


COUNTS = st.builds(counts_of, BUCKETS, NUMBERS, NUMBERS, NUMBERS)


@given(COUNTS)
def test_bytes_are_the_counts(counts: ServiceCounts) -> None:
    data = counts.encode()
    decoded = ServiceCounts.decode(data)
    assert same(decoded, counts)
    assert np.array_equal(decoded.durations, counts.durations)
    assert decoded.rows == counts.requests


@given(COUNTS, COUNTS)
def test_what_was_merged_can_be_subtracted(one: ServiceCounts, other: ServiceCounts) -> None:
    both = one.copy()
    both.merge(other)
    assert both.answered == one.answered + other.answered
    assert same(both.minus(other), one)
    assert same(one.minus(both), ServiceCounts())


@pytest.mark.parametrize("change", ["cut", "bit", "magic", "more"])
def test_other_bytes_are_refused(change: str) -> None:
    data = bytearray(counts_of({3: 5}, 1, 6, 0).encode())
    if change == "cut":
        data = data[:-9]
    elif change == "bit":
        data[20] ^= 1
    elif change == "magic":
        data[0:4] = b"NOPE"
    else:
        data += b"\0"
    with pytest.raises(Malformed):
        ServiceCounts.decode(bytes(data))
    with pytest.raises(Malformed):
        ServiceCounts.decode(b"")


def count(at: Desk, key: SeriesKey, *seconds: float) -> None:
    number = at.series.number(key)
    rows = [{"series": number, "replied_ns": round(each * 1e9), "rows": 2, "code": key.code} for each in seconds]
    at.publish(records_of(rows), KEEP_NONE)


IRIS = SeriesKey("iris", 3, "default", 0, "")


def test_a_meter_takes_what_came_since_and_counts_only_the_servers_errors() -> None:
    with desk() as at:
        meter = ServiceMeter()
        count(at, IRIS, 0.01, 0.01, 0.01)
        assert meter.take(at.totals().totals()) == {}, "since when these are is not known"
        count(at, IRIS, 0.02, 0.02, 0.02, 0.02)
        count(at, SeriesKey("iris", 3, "default", 4, "DEADLINE_EXCEEDED"), 1.0, 1.0)
        count(at, SeriesKey("iris", 3, "default", 3, "INVALID_REQUEST"), 0.5)
        count(at, SeriesKey("iris", 4, "default", 0, ""), 0.02)
        count(at, SeriesKey("", 0, "", 5, "MODEL_NOT_FOUND"), 0.02)
        taken = meter.take(at.totals().totals())
        assert {key: (each.requests, each.errors, each.answered) for key, each in taken.items()} == {
            ("iris", 3): (7, 2, 4),
            ("iris", 4): (1, 0, 1),
        }
        assert meter.take(at.totals().totals()) == {}
        count(at, IRIS, 0.02)
        assert meter.take(at.totals().totals())["iris", 3].requests == 1


def test_the_time_before_a_window_is_the_long_one_without_it() -> None:
    windows: Windows[ServiceCounts] = Windows(Levels(10, (60, 600)), ServiceCounts.decode)
    now = 1_000_000
    for pane in range(50):
        slow = pane >= 44
        end = now - 10 * (49 - pane)
        windows.add(end - 10, end, counts_of({300 if slow else 200: 40}, 0, 40, int(slow)), now)
    sample = ServiceSample.of(windows.window(60, now), windows.window(600, now))
    assert sample is not None
    assert (sample.live.requests, sample.live.errors) == (240, 6)
    assert (sample.before.requests, sample.before.errors) == (50 * 40 - 240, 0)
    assert 540 <= sample.before_seconds <= 600
    assert ServiceSample.of(windows.window(60, now), windows.window(60, now)) is None
    before, live = sample.beside(Sample("p", {"a": RateCounts(1, 2)}, roles={}), Sample("w", {"a": RateCounts(1, 2)}))
    assert before.roles == {"service.latency": Role.SERVICE, "service.errors": Role.SERVICE}
    assert isinstance(live.subjects["service.latency"], NumericBins)
    assert set(live.subjects) == {"a", "service.latency", "service.errors"}
