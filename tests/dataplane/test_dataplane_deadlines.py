"""Deadlines, cancellation and queues: who waits in vain is told so, and is not computed for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from dataplane_client import TIMEOUT_SECONDS, Client, Refusal, answers, channel_to, make_request, refused
from dataplane_repository import CRAWL_QUEUE
from support.gateway import Gateway

from gateway.wire.pb.inference import grpc_service_pb2 as pb

POLL_SECONDS = 0.01
SHORT_SECONDS = 0.03
"""Well below one run of `crawl`."""
ROW = np.zeros((1, 64), dtype=np.float32)


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    """Begins and ends idle, and in health."""
    with channel_to(gateway.grpc) as channel:
        wait_until(lambda: in_flight(gateway) == 0, "the gateway to be idle")
        client = Client(channel)
        client.infer(crawl())
        yield client
        wait_until(lambda: in_flight(gateway) == 0, "what was in flight to end")
        assert client.infer(crawl())["y"].shape == (1, 64)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(POLL_SECONDS)


def in_flight(gateway: Gateway) -> float:
    (line,) = [x for x in gateway.get("/metrics")[1].splitlines() if x.startswith("driftgate_requests_in_flight ")]
    return float(line.split()[1])


def crawl(**parameters: int) -> pb.ModelInferRequest:
    request = make_request("crawl", {"x": ROW})
    for name, value in parameters.items():
        request.parameters[name].int64_param = value
    return request


def counts(client: Client, model: str = "crawl") -> tuple[int, int]:
    """Runs and failed requests."""
    (row,) = client.stub.ModelStatistics(pb.ModelStatisticsRequest(name=model), timeout=TIMEOUT_SECONDS).model_stats
    return row.execution_count, row.inference_stats.fail.count


def start(client: Client, request: pb.ModelInferRequest, timeout: float = TIMEOUT_SECONDS) -> Any:
    return client.stub.ModelInfer.future(request, timeout=timeout)


def test_a_request_whose_deadline_passes_in_the_queue_is_never_run(gateway: Gateway, client: Client) -> None:
    settled_counts = counts(client)
    running = start(client, crawl())
    wait_until(lambda: in_flight(gateway) == 1, "the first request to be running")
    late = [start(client, crawl(), SHORT_SECONDS) for _ in range(3)]
    for future in late:
        assert refused(future.result).code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert answers(running.result())["y"].shape == (1, 64)
    wait_until(lambda: counts(client) == (settled_counts[0] + 1, settled_counts[1] + 3), "one run and three refusals")


def test_the_timeout_parameter_is_a_deadline_that_the_server_keeps(gateway: Gateway, client: Client) -> None:
    """It is in microseconds; the call itself has time enough, so the refusal is the server's own."""
    running = start(client, crawl())
    wait_until(lambda: in_flight(gateway) == 1, "the first request to be running")
    refusal = client.refused(crawl(timeout=20_000))
    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "ms in the queue of crawl/1, before the run" in refusal.message
    assert refusal.reason == "DEADLINE_EXCEEDED"
    running.result()
    assert client.infer(crawl(timeout=int(TIMEOUT_SECONDS * 1e6)))["y"].shape == (1, 64)
    assert client.infer(crawl(timeout=0))["y"].shape == (1, 64), "0 means none"


def test_a_timeout_that_passes_during_the_run_is_a_deadline_too(client: Client) -> None:
    """`endless` never ends by itself: the run is stopped, and the refusal does not blame the model."""
    started = time.monotonic()
    request = make_request("endless", {"x": ROW[0]})
    request.parameters["timeout"].int64_param = 50_000
    refusal = client.refused(request)
    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "endless/1" in refusal.message
    assert time.monotonic() - started < 5


def test_a_run_that_nobody_waits_for_is_stopped(gateway: Gateway, client: Client) -> None:
    """The client's deadline passes in the middle of a run that would last for ever."""
    refusal = client.refused(make_request("endless", {"x": ROW[0]}), timeout=0.1)
    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: in_flight(gateway) == 0, "the endless run to be stopped")


def test_an_expired_deadline_does_not_reach_the_model(client: Client) -> None:
    before = counts(client, "add_const")
    request = make_request("add_const", {"x": np.zeros((1, 4), dtype=np.float32)})
    request.parameters["timeout"].int64_param = 1
    codes = [outcome.code for _ in range(20) if isinstance(outcome := attempt(client, request), Refusal)]
    assert set(codes) <= {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert codes, "a microsecond is over before any run"
    wait_until(lambda: counts(client, "add_const")[1] - before[1] == len(codes), "each to be counted as failed")
    assert counts(client, "add_const")[0] - before[0] == 20 - len(codes)


def attempt(client: Client, request: pb.ModelInferRequest) -> Refusal | pb.ModelInferResponse:
    return client.payload(request.SerializeToString())


def test_a_cancelled_request_in_the_queue_is_never_run(gateway: Gateway, client: Client) -> None:
    before = counts(client)
    running = start(client, crawl())
    wait_until(lambda: in_flight(gateway) == 1, "the first request to be running")
    waiting = [start(client, crawl()) for _ in range(3)]
    wait_until(lambda: in_flight(gateway) == 4, "the others to wait")
    for future in waiting:
        assert future.cancel()
    running.result()
    wait_until(lambda: in_flight(gateway) == 0, "the cancelled ones to be dropped")
    wait_until(lambda: counts(client) == (before[0] + 1, before[1] + 3), "one run and three that were dropped")


def test_cancelling_stops_the_run_itself(gateway: Gateway, client: Client) -> None:
    futures = [start(client, crawl()) for _ in range(4)]
    wait_until(lambda: in_flight(gateway) == 4, "the requests to be in flight")
    started = time.monotonic()
    for future in futures:
        assert future.cancel()
    wait_until(lambda: in_flight(gateway) == 0, "the requests to be given up")
    assert time.monotonic() - started < 2


def test_a_full_queue_refuses_with_the_limit_and_a_time_to_retry(gateway: Gateway, client: Client) -> None:
    futures = [start(client, crawl()) for _ in range(CRAWL_QUEUE + 8)]
    outcomes: list[Refusal] = []
    done = 0
    for future in futures:
        try:
            future.result()
            done += 1
        except grpc.RpcError:
            outcomes.append(refused(future.result))
    assert CRAWL_QUEUE <= done <= CRAWL_QUEUE + 2
    for refusal in outcomes:
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"at most {CRAWL_QUEUE} requests wait" in refusal.message
        assert refusal.reason == "OVERLOADED"
        assert refusal.details["RetryInfo"].retry_delay.ToNanoseconds() > 0


def test_other_models_answer_while_one_is_busy(gateway: Gateway, client: Client) -> None:
    busy = [start(client, crawl()) for _ in range(CRAWL_QUEUE)]
    wait_until(lambda: in_flight(gateway) == CRAWL_QUEUE, "the slow model to be busy")
    started = time.monotonic()
    quick = make_request("add_const", {"x": np.zeros((1, 4), dtype=np.float32)})
    for _ in range(20):
        assert client.infer(quick)["y"][0, 0] == 1
    assert time.monotonic() - started < 0.4, "twenty quick requests took as long as several slow runs"
    for future in busy:
        future.result()
