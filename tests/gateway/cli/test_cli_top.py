"""`driftgate top`."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from canned_gateway import CannedGateway, refuse, timestamp, without_colours
from click.testing import Result

from gateway.cli.top import _latency
from gateway.cli.traffic import traffic
from gateway.telemetry.durations import DurationRecorder
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.errors import NotFound

Driftgate = Callable[..., Result]

START = 1_750_000_000


def histogram(*values: float) -> pb.ExponentialHistogram:
    if not values:
        return pb.ExponentialHistogram(scale=4)
    recorder = DurationRecorder()
    for value in values:
        recorder.record(value, "")
    found = recorder.distributions()[""]
    offset, counts = found.trimmed()
    return pb.ExponentialHistogram(
        scale=4, zero_count=found.zero, offset=offset, counts=counts.tolist(), sum=sum(values)
    )


def series(*latencies: float, runs: int = 0, rows: float = 0, **fields: Any) -> pb.SeriesStatistics:
    values: dict[str, Any] = {"model": "iris", "version": 2, "variant": "default", "code": "OK"}
    return pb.SeriesStatistics(
        requests=len(latencies), duration=histogram(*latencies), runs=runs,
        run_rows=pb.ExponentialHistogram(scale=4, sum=rows), **(values | fields),
    )  # fmt: skip


def answer(seconds: float, *found: pb.SeriesStatistics, in_flight: int = 0, started: float = START) -> Any:
    return pb.GetStatisticsResponse(
        started_at=timestamp(started), time=timestamp(START + seconds), series=found, requests_in_flight=in_flight
    )


REFUSED = {"code": "NOT_FOUND", "reason": "MODEL_NOT_FOUND", "model": "", "version": 0, "variant": ""}
FIRST = answer(
    100,
    series(*[0.001] * 90, *[0.01] * 10, runs=50, rows=400),
    series(*[0.002] * 100, variant="stable", runs=50, rows=100),
    series(0.5, 0.5, code="DEADLINE_EXCEEDED", reason="DEADLINE_EXCEEDED"),
    series(0.004, version=10),
    series(*[0.0001] * 4, **REFUSED),
    in_flight=7,
)
SECOND = answer(
    102,
    series(*[0.001] * 90, *[0.01] * 10, *[0.1] * 100, runs=60, rows=500),
    series(*[0.002] * 100, variant="stable", runs=50, rows=100),
    series(0.5, 0.5, code="DEADLINE_EXCEEDED", reason="DEADLINE_EXCEEDED"),
    series(0.004, version=10),
    series(*[0.0001] * 10, **REFUSED),
)


def test_one_look_shows_what_was_since_the_start() -> None:
    report = traffic(FIRST)
    assert (report.is_since_start, report.interval_seconds, report.requests_in_flight) == (True, 100, 7)
    second, tenth, nobody = report.versions
    assert [(each.model, each.version) for each in report.versions] == [("iris", 2), ("iris", 10), ("", 0)]
    assert (second.requests, second.errors) == (202, 2)
    assert (second.requests_per_second, second.errors_per_second) == (2.02, 0.02)
    assert second.p50_seconds == pytest.approx(0.002, rel=0.022)
    assert second.p95_seconds == second.p50_seconds
    assert second.p99_seconds == pytest.approx(0.01, rel=0.022)
    assert second.rows_per_run == 5
    assert tenth.rows_per_run is None
    assert (nobody.errors, nobody.p50_seconds) == (4, None)
    assert [(each.reason, each.requests) for each in report.refusals] == [
        ("DEADLINE_EXCEEDED", 2), ("MODEL_NOT_FOUND", 4),
    ]  # fmt: skip


def test_two_looks_show_what_came_between_them() -> None:
    report = traffic(SECOND, FIRST)
    assert (report.is_since_start, report.interval_seconds) == (False, 2)
    second, tenth, nobody = report.versions
    assert (second.requests, second.requests_per_second, second.errors_per_second) == (302, 50, 0)
    assert [second.p50_seconds, second.p99_seconds] == [pytest.approx(0.1, rel=0.022)] * 2
    assert second.rows_per_run == 10
    assert (tenth.requests, tenth.requests_per_second, tenth.p50_seconds) == (1, 0, None)
    assert (nobody.errors, nobody.errors_per_second) == (10, 3)
    assert [each.requests_per_second for each in report.refusals] == [0, 3]
    assert (report.requests_per_second, report.errors_per_second) == (53, 3)


def test_a_gateway_that_was_started_anew_begins_anew() -> None:
    anew = answer(103, series(0.001), started=START + 101)
    report = traffic(anew, FIRST)
    assert (report.is_since_start, report.interval_seconds) == (True, 2)
    assert report.versions[0].requests_per_second == 0.5


def test_a_clock_that_was_set_back_begins_anew() -> None:
    assert traffic(FIRST, SECOND).is_since_start


LINES = [
    "driftgate top  2025-06-15T15:08:20Z  since the start, 1 min 40 s",
    "2.1 requests/s  0.1 errors/s  7 in flight",
    "",
    "MODEL  VERSION  REQ/S  ERR/S      P50      P95      P99  ROWS/RUN  REQUESTS  ERRORS",
    "iris         2    2.0    0.0  2.00 ms  2.00 ms  9.91 ms       5.0       202       2",
    "iris        10    0.0    0.0  3.99 ms  3.99 ms  3.99 ms         -         1       0",
    "-            -    0.0    0.0        -        -        -         -         4       4",
    "",
    "MODEL  VERSION  CODE               REASON             ERR/S  ERRORS",
    "iris         2  DEADLINE_EXCEEDED  DEADLINE_EXCEEDED    0.0       2",
    "-            -  NOT_FOUND          MODEL_NOT_FOUND      0.0       4",
]


@pytest.mark.parametrize("arguments", [(), ("--once",)], ids=["pipe", "once"])
def test_it_is_printed_once_where_it_was_asked_for_or_there_is_no_terminal(
    gateway: CannedGateway, driftgate: Driftgate, arguments: tuple[str, ...]
) -> None:
    gateway.answers["GetStatistics"] = FIRST
    result = driftgate("top", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == LINES
    assert gateway.request == pb.GetStatisticsRequest()


def test_json_has_the_computed_figures(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["GetStatistics"] = FIRST
    document = json.loads(driftgate("top", "--model", "iris", "--json").stdout)
    assert gateway.request == pb.GetStatisticsRequest(model="iris")
    assert document["started_at"] == "2025-06-15T15:06:40Z"
    assert (document["time"], document["interval_seconds"]) == ("2025-06-15T15:08:20.000Z", 100)
    assert (document["is_since_start"], document["requests_in_flight"]) == (True, 7)
    version = document["versions"][0]
    assert (version["model"], version["version"], version["requests"], version["errors"]) == ("iris", 2, 202, 2)
    assert version["p99_seconds"] == pytest.approx(0.01, rel=0.022)
    assert document["versions"][2]["p50_seconds"] is None
    assert [each["reason"] for each in document["refusals"]] == ["DEADLINE_EXCEEDED", "MODEL_NOT_FOUND"]


def test_a_gateway_without_requests_says_so(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["GetStatistics"] = answer(1)
    assert driftgate("top").stdout.splitlines()[-1] == "no requests yet"


def test_names_cannot_drive_the_terminal(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["GetStatistics"] = answer(1, series(0.001, model="[red]:smile:\x1b[2J"))
    assert r"[red]:smile:\x1b[2J" in driftgate("top").stdout


def test_an_unknown_model_is_status_1(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["GetStatistics"] = NotFound("no model 'unheard'")
    result = driftgate("top", "--model", "unheard")
    assert (result.exit_code, result.stderr) == (1, "error: NOT_FOUND: no model 'unheard'\n")


@pytest.mark.parametrize("interval", ["0", "-1", "soon"])
def test_an_interval_that_is_none_is_wrong_usage(driftgate: Driftgate, interval: str) -> None:
    assert driftgate("top", "--interval", interval).exit_code == 2


def answered_in_turn(*responses: Any) -> Callable[[Any], Any]:
    """Each answer once, then a refusal, which ends the command."""
    left = [*responses]

    def answer_next(context: Any) -> Any:
        if left:
            return left.pop(0)
        refuse(context, NotFound("that is all"))
        return None

    return answer_next


def test_a_terminal_shows_each_interval_until_the_gateway_refuses(
    gateway: CannedGateway, terminal: Callable[..., str]
) -> None:
    gateway.answers["GetStatistics"] = answered_in_turn(FIRST, SECOND)
    shown = terminal(120, "top", "--interval", "0.1", "--admin", gateway.address, status=1)
    first, second = shown.partition("over 2.0 s")[::2]
    assert "since the start, 1 min 40 s" in first
    assert "53.0 requests/s" in without_colours(second)
    assert "iris         2   50.0    0.0  98.5 ms  98.5 ms  98.5 ms" in without_colours(second)
    assert shown.count("\x1b[?1049h") == shown.count("\x1b[?1049l") == 1  # the screen of its own, left again
    assert "error: NOT_FOUND: that is all" in shown
    assert [request.model for _, request, _ in gateway.asked] == [""] * 3


def test_a_terminal_with_little_room_shows_the_busiest(gateway: CannedGateway, terminal: Callable[..., str]) -> None:
    many = [series(*[0.001] * (5 if number == 70 else 1), version=number) for number in range(1, 100)]
    gateway.answers["GetStatistics"] = answered_in_turn(answer(1, *many))
    shown = without_colours(terminal(100, "top", "--admin", gateway.address, "--interval", "0.1", status=1))
    rows = [line.split()[1] for line in shown.splitlines() if "iris" in line]
    assert len(rows) == 42
    assert "70" in rows
    assert "57 more rows with less traffic have no room here" in shown


def names(count: int) -> list[pb.SeriesStatistics]:
    """Versions of models with names as long as those of the examples, answered and refused."""
    found = []
    for number in range(1, count + 1):
        model = f"breast_cancer{number:02}"
        found.append(series(*[0.001] * 9, model=model, runs=3, rows=9))
        found.append(series(0.5, model=model, code="DEADLINE_EXCEEDED", reason="DEADLINE_EXCEEDED"))
    return found


@pytest.mark.parametrize(
    ("columns", "lines", "headers"),
    [
        (120, 40, ["MODEL VERSION REQ/S ERR/S P50 P95 P99 ROWS/RUN REQUESTS ERRORS",
                   "MODEL VERSION CODE REASON ERR/S ERRORS"]),
        (80, 24, ["MODEL VERSION REQ/S ERR/S P50 P95 P99 REQUESTS ERRORS", "MODEL VERSION CODE REASON ERR/S ERRORS"]),
        (60, 20, ["MODEL VERSION REQ/S ERR/S P50 P99", "MODEL VERSION CODE REASON ERR/S"]),
        (40, 12, ["MODEL VERSION REQ/S ERR/S P99", "MODEL CODE REASON ERR/S"]),
    ],
)  # fmt: skip
def test_a_window_shows_whole_names_on_one_line_and_leaves_out_what_has_no_room(
    gateway: CannedGateway, terminal: Callable[..., str], columns: int, lines: int, headers: list[str]
) -> None:
    gateway.answers["GetStatistics"] = answered_in_turn(answer(1, *names(40)))
    shown = terminal(columns, "top", "--admin", gateway.address, "--interval", "0.1", lines=lines, status=1)
    screen = without_colours(shown.partition("\x1b[?1049l")[0]).splitlines()
    assert len(screen) <= lines
    assert all(len(line.rstrip()) <= columns for line in screen)
    assert [" ".join(line.split()) for line in screen if "MODEL" in line] == headers
    rows = [line.split() for line in screen if "breast" in line or "bre" in line]
    assert len(rows) >= lines - 9
    if columns >= 60:
        assert all(row[0].startswith("breast_cancer") for row in rows)
        assert all(row[1] == "2" for row in rows)
    assert "more rows" in screen[-1] or "more rows" in screen[-2]


def test_once_at_a_narrow_terminal_shows_the_same_columns(gateway: CannedGateway, terminal: Callable[..., str]) -> None:
    gateway.answers["GetStatistics"] = answer(1, *names(40))
    shown = without_colours(terminal(60, "top", "--once", "--admin", gateway.address, lines=20)).splitlines()
    assert sum("breast_cancer" in line for line in shown) == 80
    assert all(len(line) <= 60 for line in shown)


def test_a_terminal_that_cannot_be_redrawn_gets_one_look(gateway: CannedGateway, terminal: Callable[..., str]) -> None:
    gateway.answers["GetStatistics"] = FIRST
    shown = terminal(80, "top", "--admin", gateway.address, term="dumb")
    assert "\x1b" not in shown
    assert [line.rstrip() for line in shown.splitlines()][:2] == LINES[:2]
    assert len(gateway.asked) == 1


OVERFLOWED = {"model": "", "version": 0, "variant": "overflow"}


def test_what_found_no_room_is_no_version_and_its_refusals_are_errors(
    gateway: CannedGateway, driftgate: Driftgate
) -> None:
    gateway.answers["GetStatistics"] = answer(
        10, series(0.001, 0.001, **OVERFLOWED), series(0.5, **OVERFLOWED | {"code": "UNKNOWN"}),
        series(0.0001, **REFUSED),
    )  # fmt: skip
    lines = [line.split() for line in driftgate("top").stdout.splitlines()]
    assert ["(overflow)", "-", "0.3", "0.1", *["998", "µs"] * 3, "-", "3", "1"] in lines
    assert ["-", "-", "0.1", "0.1", "-", "-", "-", "-", "1", "1"] in lines
    assert ["(overflow)", "-", "-", "-", "0.1", "1"] in lines
    assert [each["is_overflow"] for each in json.loads(driftgate("top", "--json").stdout)["versions"]] == [False, True]


def test_ctrl_c_is_a_good_end(gateway: CannedGateway) -> None:
    gateway.answers["GetStatistics"] = FIRST
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "top", "--interval", "30", "--admin", gateway.address],
        stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=os.environ | {"TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    try:
        shown = b""
        while b"MODEL_NOT_FOUND" not in shown:
            shown += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, b"")
    finally:
        process.kill()
        process.communicate()
        os.close(ours)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"), (0.0, "0.00 µs"), (9.9e-7, "0.99 µs"), (0.000412, "412 µs"), (0.00123, "1.23 ms"),
        (0.0123, "12.3 ms"), (0.1234, "123 ms"), (0.99949, "999 ms"), (0.9996, "1.00 s"), (12.34, "12.3 s"),
        (4096, "4,096 s"),
    ],
)  # fmt: skip
def test_latencies_have_three_digits(seconds: float | None, shown: str) -> None:
    assert _latency(seconds) == shown
