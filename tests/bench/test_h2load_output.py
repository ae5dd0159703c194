"""h2load's report and log, read as they are printed by nghttp2 1.52."""

import math

import numpy as np
import pytest
from support.bursts import burst as a_burst

from bench.load import MESSAGE_PREFIX_BYTES, parse_log, parse_report, quantiles_ms, unanswered
from bench.sample import Burst, LoadFailed

REPORT = """\
starting benchmark...
spawning thread #0: 4 total client(s). Timing-based test with 0s of warm-up time and 0.7s of main duration for \
measurements.
progress: 100% of clients started
Application protocol: h2c

finished in 701.49ms, 1791.43 req/s, 374.28KB/s
requests: 1254 total, 1318 started, 1254 done, 1254 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 1254 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 261.99KB (268281) total, 3.97KB (4062) headers (space savings 96.00%), 189.81KB (194370) data
                     min         max         mean         sd        +/- sd
time for request:     3.61ms     42.52ms     34.79ms      4.06ms    94.58%
"""
REPLY_BYTES = 150
SIZE = REPLY_BYTES + MESSAGE_PREFIX_BYTES


def burst(requests: int, reply_bytes: int, *, undecided: int = 64) -> Burst:
    return a_burst(requests=requests, reply_bytes=reply_bytes, undecided=undecided)


def test_a_report_gives_its_counts_rate_and_payload_bytes() -> None:
    report = parse_report(REPORT)

    assert (report.requests, report.failed) == (1254, 0)
    assert report.requests_per_second == 1791.43
    assert report.reply_bytes == 194_370 == 1254 * SIZE


def test_answers_that_are_not_2xx_count_as_failed() -> None:
    report = parse_report(REPORT.replace("1254 2xx, 0 3xx, 0 4xx, 0 5xx", "1200 2xx, 0 3xx, 14 4xx, 40 5xx"))

    assert report.failed == 54


def test_requests_that_did_not_succeed_and_those_timed_out_count_as_failed() -> None:
    line = "1254 done, 1250 succeeded, 4 failed, 4 errored, 3 timeout"

    report = parse_report(REPORT.replace("1254 done, 1254 succeeded, 0 failed, 0 errored, 0 timeout", line))

    assert report.failed == 7


@pytest.mark.parametrize("line", ["finished in", "requests:", "status codes:", "traffic:"])
def test_a_report_without_one_of_its_lines_is_refused(line: str) -> None:
    text = "\n".join(each for each in REPORT.splitlines() if not each.startswith(line))

    with pytest.raises(LoadFailed, match="has not the lines"):
        parse_report(text)


def test_a_report_of_no_request_is_refused() -> None:
    with pytest.raises(LoadFailed, match="completed no request"):
        parse_report(REPORT.replace("requests: 1254 total", "requests: 0 total"))


def test_a_log_gives_the_latencies_of_good_answers_only() -> None:
    log = "1795371406643\t200\t29272\n1795371406644\t-1\t5\n1795371408138\t503\t6\n1795371408139\t200\t32908\n"

    assert parse_log(log).tolist() == [29272, 32908]


def test_a_log_line_may_have_more_columns() -> None:
    assert parse_log("1\t200\t29272\tsomething\n").tolist() == [29272]


def test_quantiles_are_in_milliseconds() -> None:
    assert quantiles_ms(np.arange(1001, dtype=np.int64) * 10) == pytest.approx((5.0, 9.0, 9.9, 9.99, 10.0))


def test_quantiles_of_nothing_are_not_numbers() -> None:
    assert all(map(math.isnan, quantiles_ms(parse_log(""))))


def test_whole_replies_leave_nothing_unanswered() -> None:
    assert unanswered(burst(1000, 1000 * SIZE), REPLY_BYTES) == 0


def test_replies_without_a_message_are_all_unanswered() -> None:
    """A refusal is a trailer: HTTP 200, and not a byte of payload."""
    assert unanswered(burst(1000, 0), REPLY_BYTES) == 1000


def test_a_part_of_one_reply_missing_counts_as_one_unanswered() -> None:
    assert unanswered(burst(1000, 1000 * SIZE - 1, undecided=1), REPLY_BYTES) == 1


def test_replies_under_way_at_the_end_are_no_error() -> None:
    assert unanswered(burst(1000, 1064 * SIZE), REPLY_BYTES) == 0


def test_more_bytes_than_the_requests_in_flight_explain_are_errors() -> None:
    assert unanswered(burst(1000, 1066 * SIZE), REPLY_BYTES) == 2
