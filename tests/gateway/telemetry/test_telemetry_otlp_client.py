"""The OTLP client against a real receiver, over gRPC and HTTP: every kind of answer, and none at all."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from support.received import OK, SIGNALS, UNAVAILABLE, Fault
from support.receiver import OtlpReceiver

from gateway.telemetry.otlp.client import OtlpClient, Outcome
from gateway.telemetry.otlp.retry import Backoff
from gateway.telemetry.signal_settings import SignalSettings

WAIT_SECONDS = 20.0
NAMES = ("traces", "metrics", "logs")
AT_ONCE = Backoff(initial_seconds=0.0)
OFTEN = Backoff(initial_seconds=0.05, factor=1.0)

MakeClient = Callable[..., OtlpClient]


@pytest.fixture(params=["grpc", "http/protobuf"])
def protocol(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    before = set(threading.enumerate())
    with OtlpReceiver() as running:
        yield running
    assert set(threading.enumerate()) <= before


def settings_for(receiver: OtlpReceiver, protocol: Any, signal: str = "traces") -> SignalSettings:
    endpoint = receiver.grpc if protocol == "grpc" else f"{receiver.http}/v1/{signal}"
    return SignalSettings(endpoint=endpoint, protocol=protocol, timeout_seconds=WAIT_SECONDS)


@pytest.fixture
def make_client(receiver: OtlpReceiver, protocol: Any) -> Iterator[MakeClient]:
    """Of the receiver, by default with retries at once; keywords other than the client's own are of the settings."""
    clients: list[OtlpClient] = []

    def make(signal: Any = "traces", **options: Any) -> OtlpClient:
        own = {
            key: options.pop(key) for key in ("backoff", "wait", "clock", "random_part", "user_agent") if key in options
        }
        settings = replace(settings_for(receiver, protocol, signal), **options)
        clients.append(OtlpClient(settings, signal, **({"backoff": AT_ONCE} | own)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def payload_of(signal: str, count: int, name: str = "x") -> bytes:
    """`count` spans, data points or log records."""
    request = SIGNALS[signal].request()
    for number in range(count):
        match signal:
            case "traces":
                scope = (request.resource_spans or [request.resource_spans.add()])[0].scope_spans
                (scope or [scope.add()])[0].spans.add(name=name, start_time_unix_nano=number)
            case "metrics":
                scope = (request.resource_metrics or [request.resource_metrics.add()])[0].scope_metrics
                (scope or [scope.add()])[0].metrics.add(name=name).gauge.data_points.add(as_int=number)
            case _:
                scope = (request.resource_logs or [request.resource_logs.add()])[0].scope_logs
                (scope or [scope.add()])[0].log_records.add(event_name=name, time_unix_nano=number)
    return bytes(request.SerializeToString())


TEN = payload_of("traces", 10)


class Waits:
    """Stands for the client's waiting: takes no time, and keeps what was asked for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        return False


@pytest.mark.parametrize("signal", NAMES)
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_each_signal_arrives_as_the_bytes_that_were_given(
    receiver: OtlpReceiver, make_client: MakeClient, signal: str, compression: str
) -> None:
    """At the signal's own path, with the headers of the settings, compressed where they say so."""
    client = make_client(
        signal, compression=compression, headers=(("api-key", "a b"), ("tenant", "t")), user_agent="driftgate/1"
    )
    payload = payload_of(signal, 500)
    assert client.export(payload, 500) == Outcome(500, 0, 0, 1, "")
    (received,) = receiver.taken
    assert (received.signal, received.count, received.payload) == (signal, 500, payload)
    assert received.compression == compression
    assert (received.wire_bytes < len(payload)) == (compression == "gzip")
    assert (received.headers["api-key"], received.headers["tenant"]) == ("a b", "t")
    assert received.headers["user-agent"].startswith("driftgate/1")
    assert "cookie" not in received.headers
    assert receiver.counts[signal] == 500
    assert len({"traces": receiver.spans, "metrics": receiver.metrics, "logs": receiver.log_records}[signal]) == 500


def test_a_payload_far_over_grpcs_usual_limit_is_sent(receiver: OtlpReceiver, make_client: MakeClient) -> None:
    payload = payload_of("traces", 1, name="x" * 6_000_000)
    assert make_client().export(payload, 1).accepted == 1
    assert receiver.taken[0].wire_bytes == len(payload)


@pytest.mark.parametrize("signal", NAMES)
def test_partial_success_is_counted_and_never_tried_again(
    receiver: OtlpReceiver, make_client: MakeClient, signal: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer_always(Fault(rejected=3, message="no\nroom"))
    client = make_client(signal)
    for _ in range(3):
        assert client.export(payload_of(signal, 10), 10) == Outcome(7, 3, 0, 1, "rejected")
    assert receiver.counts[signal] == 21
    assert receiver.counts["rejected"] == 9
    (line,) = [record.getMessage() for record in caplog.records]  # and not three
    items = {"traces": "spans", "metrics": "data points", "logs": "log records"}[signal]
    assert f"rejected 3 {items}: no room; they are lost" in line


def test_a_remark_without_rejections_is_logged_and_all_is_accepted(
    receiver: OtlpReceiver, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer_with(Fault(message="please send less"))
    assert make_client().export(TEN, 10) == Outcome(10, 0, 0, 1, "")
    assert "took spans and remarks: please send less" in caplog.text


@pytest.mark.parametrize("rejected", [11, -4])
def test_a_receiver_cannot_reject_more_than_it_got_or_less_than_nothing(
    receiver: OtlpReceiver, make_client: MakeClient, rejected: int
) -> None:
    receiver.answer_with(Fault(rejected=rejected))
    outcome = make_client().export(TEN, 10)
    assert (outcome.accepted, outcome.rejected) == ((0, 10) if rejected > 0 else (10, 0))


def test_an_answer_that_cannot_be_understood_has_taken_the_request_and_is_remarked_by_us_alone(
    receiver: OtlpReceiver, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A line of gRPC's own would be exported as a warning of the gateway, and make the next export."""
    receiver.answer_with(Fault(body=b"\xff\xff\xff"))
    assert make_client("logs").export(payload_of("logs", 5), 5) == Outcome(5, 0, 0, 1, "")
    (record,) = caplog.records
    assert record.name == "gateway.telemetry.otlp.export_log"
    assert record.getMessage().endswith("remarks: expected ExportLogsServiceResponse, got 3 bytes that are none")


@pytest.mark.parametrize(
    ("code", "status"),
    [("UNAVAILABLE", 503), ("CANCELLED", 502), ("DEADLINE_EXCEEDED", 504), ("ABORTED", 429), ("DATA_LOSS", 503)],
)
def test_what_may_be_tried_again_is_until_it_is_taken(
    receiver: OtlpReceiver, make_client: MakeClient, code: str, status: int
) -> None:
    """With the same bytes each time."""
    receiver.answer_with(*[Fault(code=code, status=status)] * 3, OK)
    assert make_client(compression="gzip").export(TEN, 10) == Outcome(10, 0, 0, 4, "")
    assert {received.payload for received in receiver.attempts} == {TEN}
    assert [received.taken for received in receiver.attempts] == [False, False, False, True]


@pytest.mark.parametrize(
    ("code", "status"),
    [("INVALID_ARGUMENT", 400), ("UNAUTHENTICATED", 401), ("RESOURCE_EXHAUSTED", 413), ("INTERNAL", 500)],
)
def test_what_may_not_be_tried_again_is_dropped_at_once(
    receiver: OtlpReceiver,
    make_client: MakeClient,
    protocol: str,
    code: str,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.answer_with(Fault(code=code, status=status, message="what was wrong"))
    outcome = make_client().export(TEN, 10)
    assert outcome == Outcome(0, 0, 10, 1, code if protocol == "grpc" else str(status))
    assert receiver.counts["refused"] == 1
    assert (
        f"{outcome.reason}: what was wrong; since the last such line 1 tries failed, 10 spans were dropped"
        in caplog.text
    )


def test_resource_exhausted_is_tried_again_only_if_the_receiver_says_when(
    receiver: OtlpReceiver, make_client: MakeClient
) -> None:
    """What it says is the least wait; the backoff's own may be longer."""
    waits = Waits()
    client = make_client(backoff=Backoff(), wait=waits, random_part=lambda: 0.5)
    receiver.answer_with(
        Fault(code="RESOURCE_EXHAUSTED", status=429, told_seconds=3),
        Fault(code="UNAVAILABLE", status=503, told_seconds=0),
        Fault(code="UNAVAILABLE", status=503, told_seconds=7),
    )
    assert client.export(TEN, 10) == Outcome(10, 0, 0, 4, "")
    assert waits.seconds == [3, 0.75, 7]


def test_waits_grow_with_full_jitter_up_to_the_bound(receiver: OtlpReceiver, make_client: MakeClient) -> None:
    waits = Waits()
    receiver.answer_with(*[UNAVAILABLE] * 6)
    assert make_client(backoff=Backoff(), wait=waits, random_part=lambda: 1.0).export(TEN, 10).attempts == 7
    assert waits.seconds == [1, 1.5, 2.25, 3.375, 5, 5]


def test_a_wait_that_would_pass_the_time_of_the_export_ends_it_at_once(
    receiver: OtlpReceiver, make_client: MakeClient, protocol: str
) -> None:
    waits = Waits()
    receiver.answer_with(Fault(code="UNAVAILABLE", status=503, told_seconds=3600))
    outcome = make_client(wait=waits).export(TEN, 10)
    assert outcome == Outcome(0, 0, 10, 1, "UNAVAILABLE" if protocol == "grpc" else "503")
    assert waits.seconds == []


def test_tries_and_waits_together_take_no_longer_than_the_timeout(
    receiver: OtlpReceiver, make_client: MakeClient
) -> None:
    """By a clock that only the waits move on."""
    now = [0.0]

    def wait(seconds: float) -> bool:
        now[0] += seconds
        return False

    receiver.answer_always(UNAVAILABLE)
    client = make_client(
        timeout_seconds=10.0, backoff=Backoff(), wait=wait, clock=lambda: now[0], random_part=lambda: 1.0
    )
    outcome = client.export(TEN, 10)
    assert (outcome.dropped, outcome.attempts) == (
        10,
        5,
    )  # after 0, 1, 2.5, 4.75 and 8.125 s; the next would be at 13.125
    assert now[0] == 8.125


def test_a_slow_receiver_is_left_when_the_timeout_ends(
    receiver: OtlpReceiver, make_client: MakeClient, protocol: str
) -> None:
    receiver.answer_with(Fault(seconds=600))
    outcome = make_client(timeout_seconds=0.3).export(TEN, 10)
    assert outcome == Outcome(0, 0, 10, 1, "DEADLINE_EXCEEDED" if protocol == "grpc" else "timeout")
    receiver.wait_for(lambda: receiver.counts["refused"] == 1)  # it was not taken


def test_a_receiver_that_is_slow_but_in_time_takes_it(receiver: OtlpReceiver, make_client: MakeClient) -> None:
    receiver.answer_with(Fault(seconds=0.2))
    assert make_client().export(TEN, 10) == Outcome(10, 0, 0, 1, "")


def test_several_exports_run_at_once(receiver: OtlpReceiver, make_client: MakeClient) -> None:
    """Eight that all wait for their answers at the same time are all answered, and no item is counted twice."""
    entered = threading.Barrier(8)
    client = make_client()
    receiver.answer_with(*[Fault(seconds=0.2)] * 8)

    def export() -> int:
        entered.wait(WAIT_SECONDS)
        return sum(client.export(TEN, 10).accepted for _ in range(5))

    with ThreadPoolExecutor(8) as pool:
        assert [future.result() for future in [pool.submit(export) for _ in range(8)]] == [50] * 8
    assert receiver.counts["traces"] == 400


def in_thread(client: OtlpClient) -> tuple[threading.Thread, Future[Outcome]]:
    done: Future[Outcome] = Future()
    thread = threading.Thread(target=lambda: done.set_result(client.export(TEN, 10)))
    thread.start()
    return thread, done


def test_stop_ends_waiting_retries_at_once(receiver: OtlpReceiver, make_client: MakeClient) -> None:
    """They are dropped; an export after it has one try."""
    receiver.answer_always(Fault(code="UNAVAILABLE", status=503, told_seconds=WAIT_SECONDS - 1))
    client = make_client()
    thread, done = in_thread(client)
    receiver.wait_for(lambda: receiver.counts["refused"] == 1)
    client.stop()
    outcome = done.result(WAIT_SECONDS / 2)
    assert (outcome.dropped, outcome.attempts) == (10, 1)
    assert client.export(TEN, 10).attempts == 1
    receiver.answer_always(OK)
    assert client.export(TEN, 10) == Outcome(10, 0, 0, 1, "")
    thread.join()


def test_close_ends_what_waits_for_its_answer(receiver: OtlpReceiver, make_client: MakeClient) -> None:
    """And whatever is exported later is dropped without a try that reaches anybody."""
    receiver.answer_with(Fault(seconds=600))
    client = make_client(timeout_seconds=600)
    thread, done = in_thread(client)
    receiver.wait_for(lambda: receiver.waiting == 1)
    client.close()
    assert done.result(WAIT_SECONDS) == Outcome(0, 0, 10, 1, "stopped")
    assert client.export(TEN, 10) == Outcome(0, 0, 10, 1, "stopped")
    receiver.wait_for(lambda: receiver.counts["refused"] == 1)
    assert receiver.counts["requests"] == 0
    client.close()
    thread.join()


def test_a_receiver_that_was_away_gets_the_next_exports(
    receiver: OtlpReceiver, make_client: MakeClient, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed, then back on the same port: what was sent in between is dropped, with one line for all of it."""
    caplog.set_level(logging.INFO)
    client = make_client(timeout_seconds=0.2, backoff=OFTEN)
    assert client.export(TEN, 10).accepted == 10
    receiver.stop_listening()
    reason = {"UNAVAILABLE", "DEADLINE_EXCEEDED"} if protocol == "grpc" else {"connection"}
    outcomes = [client.export(TEN, 10) for _ in range(4)]
    assert {outcome.dropped for outcome in outcomes} == {10}
    assert {outcome.reason for outcome in outcomes} <= reason
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    receiver.listen()
    patient = make_client(backoff=OFTEN)  # has as long as gRPC takes to look for it again
    assert patient.export(TEN, 10).accepted == 10
    while client.export(TEN, 10).dropped:
        pass
    assert [record.levelname for record in caplog.records if "again after" in record.message][:1] == ["INFO"]


def test_a_receiver_that_comes_up_during_the_export_gets_it(receiver: OtlpReceiver, make_client: MakeClient) -> None:
    receiver.stop_listening()
    waited = threading.Event()

    def wait(seconds: float) -> bool:
        waited.set()
        return threading.Event().wait(min(seconds, 0.05))

    thread, done = in_thread(make_client(wait=wait, backoff=Backoff()))
    assert waited.wait(WAIT_SECONDS)
    receiver.listen()
    outcome = done.result(WAIT_SECONDS)
    assert outcome.accepted == 10
    assert outcome.attempts > 1
    thread.join()


def test_a_long_outage_is_told_first_then_now_and_then_then_that_it_is_over(
    receiver: OtlpReceiver, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """100 s with an export each second, none with time to retry: a line at 0, 30, 60 and 90 s, and one at the end."""
    caplog.set_level(logging.INFO)
    now = [0.0]
    client = make_client(
        clock=lambda: now[0], backoff=Backoff(initial_seconds=60, most_seconds=60), random_part=lambda: 1.0
    )
    receiver.answer_always(UNAVAILABLE)
    for _ in range(100):
        assert client.export(TEN, 10).dropped == 10
        now[0] += 1
    receiver.answer_always(OK)
    for _ in range(3):
        assert client.export(TEN, 10).accepted == 10
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition("since the last such line ")[2] for line in lines[:4]] == [
        "1 tries failed, 10 spans were dropped",
        *["30 tries failed, 300 spans were dropped"] * 3,
    ]
    assert lines[4].endswith("takes spans again after 100.0 s; 1000 were dropped in that time")
    assert len(lines) == 5
