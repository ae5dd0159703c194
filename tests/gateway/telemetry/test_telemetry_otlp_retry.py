"""Which failures are tried again, and how long is waited: the rules as tables, by a clock of the test's."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.received import Fault

from gateway.telemetry.otlp.retry import (
    Backoff,
    failed_call,
    failed_request,
    retry_after_seconds,
    retry_info_seconds,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
AGAIN = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
TOLD = Fault(told_seconds=2.5).details()


@pytest.mark.parametrize("code", [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_only_the_codes_that_otlp_names_are_tried_again(code: str) -> None:
    """RESOURCE_EXHAUSTED is among them only with RetryInfo; no other code becomes so by it."""
    assert failed_call(code, "").retryable == (code in AGAIN)
    told = failed_call(code, "", TOLD)
    assert told.retryable == (code in AGAIN | {"RESOURCE_EXHAUSTED"})
    assert told.least_wait_seconds == 2.5


@pytest.mark.parametrize("status", [*range(300, 309), *range(400, 432), *range(500, 512)])
def test_only_the_statuses_that_otlp_names_are_tried_again(status: int) -> None:
    for retry_after in ("", "1"):
        assert failed_request(status, "", retry_after, "", NOW).retryable == (status in {429, 502, 503, 504})


@pytest.mark.parametrize(
    ("retry_after", "date", "seconds"),
    [
        ("", "", 0.0),
        ("0", "", 0.0),
        ("120", "", 120.0),
        ("9" * 400, "", 999999999999.0),
        ("-1", "", 0.0),
        ("1.5", "", 0.0),
        ("\u00b2", "", 0.0),
        ("soon", "", 0.0),
        ("Fri, 02 Jan 2026 03:04:35 GMT", "", 30.0),
        ("Fri, 02 Jan 2026 03:04:35 -0000", "", 30.0),
        ("Fri, 02 Jan 2026 03:04:00 GMT", "", 0.0),
        ("Fri, 02 Jan 2026 09:00:07 GMT", "Fri, 02 Jan 2026 09:00:00 GMT", 7.0),
        ("Fri, 02 Jan 2026 03:04:35 GMT", "no date", 30.0),
        ("Fri, 99 Jan 2026 03:04:35 GMT", "", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date_by_the_receivers_own_clock(
    retry_after: str, date: str, seconds: float
) -> None:
    assert retry_after_seconds(retry_after, date, NOW) == seconds


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_retry_after_makes_it_raise(retry_after: str, date: str) -> None:
    assert retry_after_seconds(retry_after, date, NOW) >= 0


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - the zone follows
def test_any_http_date_ahead_is_understood(until: datetime) -> None:
    until = until.replace(microsecond=0)
    text = format_datetime(until, usegmt=True)
    assert retry_after_seconds(text, "", NOW) == max(0.0, (until - NOW).total_seconds())


@given(st.binary(max_size=60))
def test_no_status_details_make_it_raise(details: bytes) -> None:
    found = retry_info_seconds(details)
    assert found is None or found >= 0


@pytest.mark.parametrize(("told", "seconds"), [(None, None), (0.0, 0.0), (-3.0, 0.0), (1.25, 1.25), (1e6, 1e6)])
def test_retry_info_is_read_from_the_status_details(told: float | None, seconds: float | None) -> None:
    assert retry_info_seconds(Fault(told_seconds=told, message="x").details()) == seconds


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0, 100))
def test_waits_have_full_jitter_a_bound_and_a_floor(attempts: int, part: float, least: float) -> None:
    backoff = Backoff(initial_seconds=1, most_seconds=5, factor=1.5)
    whole = backoff.wait_seconds(attempts, 1.0)
    assert whole == min(5, 1.5 ** min(attempts - 1, 10))
    assert backoff.wait_seconds(attempts, part) == part * whole
    assert backoff.wait_seconds(attempts, part, least) == max(least, part * whole)
