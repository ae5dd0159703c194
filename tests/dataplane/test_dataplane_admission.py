"""A small gateway: the limit of requests in flight, who may load and unload, and the end by SIGTERM."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from dataplane_client import TIMEOUT_SECONDS, Client, answers, channel_to, make_request, refused
from support.gateway import Gateway

from gateway.wire.pb.inference import grpc_service_pb2 as pb

POLL_SECONDS = 0.01
MAX_IN_FLIGHT = 3
TOKEN = "a-token-of-many-characters"
X = np.zeros((1, 4), dtype=np.float32)
LOAD = pb.RepositoryModelLoadRequest(model_name="add_const")


@pytest.fixture(scope="module")
def narrow_gateway(
    transport: str, small_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("narrow")
    (folder / "token").write_text(TOKEN)
    config = {
        "transport": transport,
        "limits": {"max_in_flight": MAX_IN_FLIGHT},
        "repository_control": "token",
        "admin_token_file": str(folder / "token"),
    }
    with Gateway(small_repository, folder / "state", config=config) as running:
        yield running


@pytest.fixture
def client(narrow_gateway: Gateway) -> Iterator[Client]:
    with channel_to(narrow_gateway.grpc) as channel:
        yield Client(channel)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(POLL_SECONDS)


def in_flight(gateway: Gateway) -> float:
    return gateway.metric("driftgate_request_in_flight")


def crawl(client: Client) -> Any:
    return client.stub.ModelInfer.future(
        make_request("crawl", {"x": np.zeros((1, 64), dtype=np.float32)}), timeout=TIMEOUT_SECONDS
    )


def quick() -> pb.ModelInferRequest:
    return make_request("add_const", {"x": X})


def test_beyond_the_limit_requests_are_refused_and_those_in_flight_are_answered(
    narrow_gateway: Gateway, client: Client
) -> None:
    futures = [crawl(client) for _ in range(MAX_IN_FLIGHT)]
    wait_until(lambda: in_flight(narrow_gateway) == MAX_IN_FLIGHT, "the limit to be reached")
    for _ in range(5):
        refusal = client.refused(quick())
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"{MAX_IN_FLIGHT} requests are in flight in this worker, which is its limit" in refusal.message
        assert "limits.max_in_flight" in refusal.message
        assert refusal.reason == "OVERLOADED"
        assert 0 < refusal.details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() < 10
    assert client.stub.ServerReady(pb.ServerReadyRequest(), timeout=TIMEOUT_SECONDS).ready, "only inference is bounded"
    (message,) = client.stub.ModelStreamInfer(iter([quick()]), timeout=TIMEOUT_SECONDS)
    assert "limits.max_in_flight" in message.error_message
    for future in futures[1:]:
        future.cancel()
    assert answers(futures[0].result())["y"].shape == (1, 64)
    wait_until(lambda: in_flight(narrow_gateway) == 0, "room")
    assert client.infer(quick())["y"][0, 0] == 1


def test_refused_requests_leave_the_count_in_flight_as_it_was(narrow_gateway: Gateway, client: Client) -> None:
    for _ in range(10 * MAX_IN_FLIGHT):
        assert client.refused(make_request("nowhere", {"x": X})).code is grpc.StatusCode.NOT_FOUND
        assert client.refused(make_request("add_const", {"z": X})).code is grpc.StatusCode.INVALID_ARGUMENT
        client.payload(b"\xff")
    assert client.infer(quick())["y"][0, 0] == 1
    assert in_flight(narrow_gateway) == 0


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param((), id="nothing"),
        pytest.param((("authorization", "Bearer a-token-of-another"),), id="another token"),
        pytest.param((("authorization", f"Basic {TOKEN}"),), id="another scheme"),
        pytest.param((("authorization", "Bearer "),), id="no token"),
    ],
)
def test_load_and_unload_need_the_token(client: Client, metadata: Any) -> None:
    unload = pb.RepositoryModelUnloadRequest(model_name="add_const")
    for verb, call in (
        ("load", lambda: client.stub.RepositoryModelLoad(LOAD, timeout=TIMEOUT_SECONDS, metadata=metadata)),
        ("unload", lambda: client.stub.RepositoryModelUnload(unload, timeout=TIMEOUT_SECONDS, metadata=metadata)),
    ):
        refusal = refused(call)
        assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
        assert refusal.message.startswith(verb)
        assert "token-of" not in refusal.message
        assert refusal.reason == "UNAUTHENTICATED"
    assert client.infer(quick())["y"][0, 0] == 1


def test_with_the_token_a_load_is_done(client: Client) -> None:
    metadata = (("authorization", f"Bearer {TOKEN}"),)
    client.stub.RepositoryModelLoad(LOAD, timeout=TIMEOUT_SECONDS, metadata=metadata)


def test_sigterm_lets_requests_in_flight_finish_and_takes_no_new_ones(
    transport: str, small_repository: Path, tmp_path: Path
) -> None:
    with (
        Gateway(small_repository, tmp_path / "state", config={"transport": transport}) as running,
        channel_to(running.grpc) as channel,
        channel_to(running.grpc) as other,
    ):
        client, late = Client(channel), Client(other)
        assert late.infer(quick())["y"][0, 0] == 1
        busy = crawl(client)
        wait_until(lambda: in_flight(running) == 1, "the request to be in flight")
        running.supervisor.send_signal(signal.SIGTERM)
        codes = set()
        while grpc.StatusCode.UNAVAILABLE not in codes:
            try:
                late.infer(quick())
            except grpc.RpcError as error:
                codes.add(error.code())
        assert codes == {grpc.StatusCode.UNAVAILABLE}
        assert answers(busy.result())["y"].shape == (1, 64)
