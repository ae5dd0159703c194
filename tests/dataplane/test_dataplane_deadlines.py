"""Deadlines, cancellation and queues: who waits in vain is told so, and is not computed for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from dataplane_client import INFER_PATH, TIMEOUT_SECONDS, Client, Refusal, answers, channel_to, make_request, refused
from dataplane_repository import QUEUE_REQUESTS
from support.gateway import Gateway

from gateway.wire.pb.inference import grpc_service_pb2 as pb

POLL_SECONDS = 0.01
SHORT_SECONDS = 0.05
"""Well below one run of `crawl`."""
UPLOAD_SECONDS = 0.5
TRIES = 10
ROW = np.zeros((1, 64), dtype=np.float32)
X = np.zeros((1, 4), dtype=np.float32)


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    """Begins and ends idle, and in health."""
    with channel_to(gateway.grpc) as channel:
        wait_until_in_flight(gateway, 0)
        client = Client(channel)
        yield client
        wait_until_in_flight(gateway, 0)
        assert client.infer(quick())["y"][0, 0] == 1


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(POLL_SECONDS)


def wait_until_in_flight(gateway: Gateway, count: int) -> None:
    wait_until(lambda: gateway.metric("driftgate_request_in_flight") == count, f"{count} requests to be in flight")


def quick() -> pb.ModelInferRequest:
    return make_request("add_const", {"x": X})


def crawl(timeout_microseconds: int = 0) -> pb.ModelInferRequest:
    request = make_request("crawl", {"x": ROW})
    if timeout_microseconds:
        request.parameters["timeout"].int64_param = timeout_microseconds
    return request


def endless() -> pb.ModelInferRequest:
    return make_request("endless", {"x": ROW[0]})


def counts(client: Client, model: str) -> tuple[int, int]:
    """Runs, and requests that failed."""
    (row,) = client.stub.ModelStatistics(pb.ModelStatisticsRequest(name=model), timeout=TIMEOUT_SECONDS).model_stats
    return row.execution_count, row.inference_stats.fail.count


def refusals(gateway: Gateway, model: str, code: str) -> float:
    return gateway.metric("driftgate_request_refused_total", driftgate_model_name=model, rpc_response_status_code=code)


def start(client: Client, request: pb.ModelInferRequest, timeout: float = TIMEOUT_SECONDS) -> Any:
    return client.stub.ModelInfer.future(request, timeout=timeout)


def test_a_request_whose_deadline_passes_in_the_queue_is_never_run(gateway: Gateway, client: Client) -> None:
    runs, failures = counts(client, "crawl")
    running = start(client, crawl())
    wait_until_in_flight(gateway, 1)
    late = [start(client, crawl(), SHORT_SECONDS) for _ in range(3)]
    for future in late:
        assert refused(future.result).code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert answers(running.result())["y"].shape == (1, 64)
    wait_until_in_flight(gateway, 0)
    wait_until(lambda: counts(client, "crawl") == (runs + 1, failures + 3), "one run and three refusals")


def test_the_timeout_parameter_is_a_deadline_that_the_server_keeps(gateway: Gateway, client: Client) -> None:
    """It is in microseconds; the call itself has time enough, so the refusal is the server's own."""
    running = start(client, crawl())
    wait_until_in_flight(gateway, 1)
    refusal = client.refused(crawl(timeout_microseconds=20_000))
    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "ms in the queue of crawl/1, before the run" in refusal.message
    assert refusal.reason == "DEADLINE_EXCEEDED"
    assert answers(running.result())["y"].shape == (1, 64)


def test_a_timeout_that_leaves_time_enough_changes_nothing(client: Client) -> None:
    for microseconds in (0, int(TIMEOUT_SECONDS * 1e6), 2**63 - 1):
        request = quick()
        request.parameters["timeout"].int64_param = microseconds
        assert client.infer(request)["y"][0, 0] == 1


def test_a_timeout_that_passes_during_the_run_is_a_deadline_too(client: Client) -> None:
    """The run, which has no end of its own, is stopped, and the refusal does not blame the model."""
    request = endless()
    request.parameters["timeout"].int64_param = 50_000
    refusal = client.refused(request)
    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "the deadline passed during the run of endless/1" in refusal.message


def test_a_run_is_stopped_when_the_clients_deadline_has_passed(gateway: Gateway, client: Client) -> None:
    refusal = client.refused(endless(), timeout=0.1)
    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until_in_flight(gateway, 0)


def test_a_run_is_stopped_when_its_client_cancels(gateway: Gateway, client: Client) -> None:
    """And it counts as the client's doing, not as a fault of the server."""
    cancelled, expired = (refusals(gateway, "endless", code) for code in ("CANCELLED", "DEADLINE_EXCEEDED"))
    future = start(client, endless())
    wait_until_in_flight(gateway, 1)
    assert future.cancel()
    wait_until_in_flight(gateway, 0)
    wait_until(lambda: refusals(gateway, "endless", "CANCELLED") == cancelled + 1, "the cancelled request to count")
    assert refusals(gateway, "endless", "DEADLINE_EXCEEDED") == expired


def test_a_run_is_stopped_when_its_client_is_gone(gateway: Gateway, client: Client) -> None:
    with channel_to(gateway.grpc) as channel:
        future = start(Client(channel), endless())
        wait_until_in_flight(gateway, 1)
    assert future.code() is grpc.StatusCode.CANCELLED
    wait_until_in_flight(gateway, 0)
    assert client.infer(quick())["y"][0, 0] == 1


def test_an_expired_deadline_does_not_reach_the_model(client: Client) -> None:
    runs, failures = counts(client, "add_const")
    request = quick()
    request.parameters["timeout"].int64_param = 1
    outcomes = [client.payload(request.SerializeToString()) for _ in range(20)]
    refusals = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    assert {refusal.code for refusal in refusals} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    answered = len(outcomes) - len(refusals)
    wait_until(lambda: counts(client, "add_const") == (runs + answered, failures + len(refusals)), "the counts")


def test_a_cancelled_request_in_the_queue_is_never_run(gateway: Gateway, client: Client) -> None:
    for _ in range(TRIES):
        runs, failures = counts(client, "crawl")
        cancelled = refusals(gateway, "crawl", "CANCELLED")
        running = start(client, crawl())
        wait_until_in_flight(gateway, 1)
        waiting = [start(client, crawl()) for _ in range(3)]
        wait_until(
            lambda: running.done() or gateway.metric("driftgate_request_in_flight") == 4,  # noqa: B023  (within the turn)
            "3 requests to wait for a run",
        )
        all_wait = not running.done()
        gone = [future.cancel() for future in waiting]
        assert answers(running.result())["y"].shape == (1, 64)
        wait_until_in_flight(gateway, 0)
        if all_wait and all(gone):
            break  # else a busy machine took longer to tell of them than the run lasted, and some have run
    else:
        pytest.fail(f"of {TRIES} runs each had ended before it was known that others wait for it")
    wait_until(lambda: counts(client, "crawl") == (runs + 1, failures + 3), "one run and three that were dropped")
    wait_until(lambda: refusals(gateway, "crawl", "CANCELLED") == cancelled + 3, "the cancelled requests to count")


def test_a_full_queue_refuses_with_the_limit_and_a_time_to_retry(gateway: Gateway, client: Client) -> None:
    running = start(client, endless())
    wait_until_in_flight(gateway, 1)
    waiting = [start(client, endless()) for _ in range(QUEUE_REQUESTS)]
    wait_until_in_flight(gateway, 1 + QUEUE_REQUESTS)
    for _ in range(3):
        refusal = client.refused(endless())
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"the queue of endless/1 is full: at most {QUEUE_REQUESTS} requests wait" in refusal.message
        assert refusal.reason == "OVERLOADED"
        assert refusal.details["RetryInfo"].retry_delay.ToNanoseconds() > 0
    for future in (running, *waiting):
        assert not future.done()
        future.cancel()


def test_other_models_answer_while_one_is_busy(gateway: Gateway, client: Client) -> None:
    busy = [start(client, endless()) for _ in range(QUEUE_REQUESTS)]
    wait_until_in_flight(gateway, QUEUE_REQUESTS)
    for _ in range(20):
        assert client.infer(quick())["y"][0, 0] == 1
    for future in busy:
        assert not future.done()
        future.cancel()


def test_a_request_counts_from_its_message_on_and_not_from_its_headers(gateway: Gateway, client: Client) -> None:
    """A slow upload is not the gateway's time."""
    seconds = gateway.metric("rpc_server_call_duration_seconds_sum", driftgate_model_name="add_const")
    headers_first = client.channel.stream_unary(INFER_PATH)

    def message() -> Iterator[bytes]:
        time.sleep(UPLOAD_SECONDS)  # the upload
        yield quick().SerializeToString()

    assert pb.ModelInferResponse.FromString(headers_first(message(), timeout=TIMEOUT_SECONDS)).model_name == "add_const"

    def more() -> float:
        return gateway.metric("rpc_server_call_duration_seconds_sum", driftgate_model_name="add_const") - seconds

    wait_until(lambda: more() > 0, "the request to count")
    assert more() < UPLOAD_SECONDS


def test_a_call_without_a_message_is_refused_and_counts(gateway: Gateway, client: Client, transport: str) -> None:
    """On the public transport grpc.aio keeps it to itself until its deadline."""
    if transport == "public":
        with pytest.raises(grpc.RpcError) as never:
            client.channel.stream_unary(INFER_PATH)(iter(()), timeout=SHORT_SECONDS)
        assert never.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        return
    before = gateway.metric("driftgate_request_refused_total", rpc_response_status_code="INVALID_ARGUMENT")
    refusal = refused(lambda: client.channel.stream_unary(INFER_PATH)(iter(()), timeout=TIMEOUT_SECONDS))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.message == "the call ended without a request message: send one"
    after = gateway.metric("driftgate_request_refused_total", rpc_response_status_code="INVALID_ARGUMENT")
    assert after == before + 1
