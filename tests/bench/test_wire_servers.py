"""The generator against real gRPC servers: the C-core's HTTP/2, not ours."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.gateway import Gateway

from bench import cores, model
from bench.catalogue import SERVERS, Site
from bench.generator import WireGenerator
from bench.process import free_ports, running
from bench.sample import Load
from bench.servers import HOST, METHOD, SERVICE, STREAM_PATH

REQUESTS = tuple(b"%d" % number * 146 for number in range(20))
SECONDS = 0.3
LOADS = [Load(1, 1), Load(4, 16), Load(3, 4, rate=300.0)]
ECHOES = [spec for spec in SERVERS if spec.echoes]
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
Answer = Callable[[bytes, grpc.ServicerContext], bytes]


def echoed(index: int, reply: bytes) -> str | None:
    return None if reply == REQUESTS[index] else "not the request"


@contextmanager
def served(answer: Answer, *options: tuple[str, Any], threads: int = 4) -> Iterator[int]:
    """The port of a `grpc.server` that gives these answers."""
    server = grpc.server(ThreadPoolExecutor(threads), options=options)
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


@pytest.mark.process
@pytest.mark.parametrize("spec", ECHOES, ids=lambda spec: spec.key)
def test_every_echo_is_counted(spec, tmp_path: Path) -> None:
    port, http_port, admin_port = free_ports(3)
    generator = WireGenerator(REQUESTS, echoed)
    with running(spec, Site(port, http_port, admin_port, tmp_path, tmp_path, tmp_path), cores.choose().server):
        bursts = [generator(port, load, SECONDS) for load in LOADS]

    for burst in bursts:
        assert burst.requests == burst.offered > 0
        assert (burst.failed, burst.notes) == (0, ())
        assert burst.statuses == {0: burst.requests}
        assert burst.reply_bytes >= burst.requests * 5
        assert 0 < burst.p50_ms <= burst.p90_ms <= burst.p99_ms <= burst.p999_ms
    assert bursts[1].distinct_replies == len(REQUESTS)


def test_refusals_and_wrong_answers_are_counted_apart() -> None:
    numbers = count(1)
    lock = threading.Lock()
    given = {"refused": 0, "wrong": 0, "right": 0}

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        with lock:
            number = next(numbers)
            kind = "refused" if number % 7 == 0 else "wrong" if number % 5 == 0 else "right"
            given[kind] += 1
        if kind == "refused":
            context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        return request if kind == "right" else request[::-1] + b"!"

    generator = WireGenerator(REQUESTS, echoed)
    with served(answer) as port:
        burst = generator(port, Load(2, 4), SECONDS)

    assert burst.requests == given["right"]
    assert burst.failed == given["refused"] + given["wrong"]
    assert burst.statuses == {0: given["right"] + given["wrong"], 14: given["refused"]}


def test_metadata_that_differs_with_every_request_is_no_trouble() -> None:
    numbers = count()

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        number = next(numbers)
        several = [(f"x-{number * place % 97}", f"value {number} {place}" * 3) for place in range(40)]
        context.send_initial_metadata([("traceparent", f"00-{number:032x}-{number:016x}-01"), *several])
        context.set_trailing_metadata([*several, ("x-last", str(number))])
        return request

    generator = WireGenerator(REQUESTS, echoed)
    with served(answer) as port:
        burst = generator(port, Load(2, 4), SECONDS)

    assert burst.requests == burst.offered > 0
    assert burst.failed == 0


def test_messages_of_20_megabytes_go_there_and_back() -> None:
    requests = tuple(bytes([number]) * 20_000_000 for number in range(3))
    generator = WireGenerator(requests, lambda index, reply: None if reply == requests[index] else "wrong")
    with served(lambda request, _context: request, *UNLIMITED) as port:
        burst = generator(port, Load(2, 2), SECONDS)

    assert burst.requests == burst.offered >= 4
    assert burst.failed == 0
    assert burst.reply_bytes == burst.requests * 20_000_005


def test_a_request_that_is_too_long_for_the_server_fails() -> None:
    requests = (b"short", b"x" * 8_000_000)
    generator = WireGenerator(requests, lambda index, reply: None if reply == requests[index] else "wrong")
    with served(lambda request, _context: request) as port:
        burst = generator(port, Load(1, 2), SECONDS)

    assert burst.statuses == {0: burst.requests, 8: burst.failed}
    assert burst.failed > 0


def test_a_call_that_is_never_answered_fails_and_the_others_go_on() -> None:
    numbers = count(1)
    ended = threading.Event()

    def answer(request: bytes, _context: grpc.ServicerContext) -> bytes:
        if next(numbers) == 3:
            ended.wait()
        return request

    generator = WireGenerator(REQUESTS, echoed, grace_seconds=0.2)
    with served(answer) as port:
        burst = generator(port, Load(1, 4), SECONDS)
        ended.set()

    assert (burst.failed, burst.statuses[-1]) == (1, 1)
    assert burst.requests == burst.offered - 1 > 1


def test_connections_that_the_server_lets_grow_old_are_replaced_without_a_failure() -> None:
    with served(
        lambda request, _context: request,
        ("grpc.max_connection_age_ms", 100),
        ("grpc.max_connection_age_grace_ms", 5_000),
    ) as port:
        burst = WireGenerator(REQUESTS, echoed)(port, Load(2, 4), 1.0)

    assert burst.requests == burst.offered > 0
    assert burst.failed == 0
    assert any("GOAWAY" in note for note in burst.notes)


@pytest.mark.process
def test_a_gateway_answers_calls_and_streams(tmp_path: Path) -> None:
    """Real rows; a canary, whose versions answer with their own names; every reply is the model's, in its order."""
    workload = model.build(tmp_path / "models")
    unary = WireGenerator(workload.requests, workload.objection)
    stream = WireGenerator(workload.requests, workload.stream_objection, STREAM_PATH)
    with Gateway(workload.canary_repository, tmp_path / "state") as gateway:
        port = int(gateway.grpc.rpartition(":")[2])
        called, streamed = unary(port, Load(2, 8), SECONDS), stream(port, Load(2, 8, streaming=True), SECONDS)
        due = stream(port, Load(2, 8, streaming=True, rate=300.0), SECONDS)
        recorded = gateway.metric("driftgate_requests_total")

    for burst in (called, streamed, due):
        assert burst.requests == burst.offered > 0
        assert (burst.failed, burst.notes) == (0, ())
    assert called.distinct_replies > len(workload.requests) or called.requests < 3 * len(workload.requests)
    assert recorded >= called.requests
