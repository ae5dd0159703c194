"""A server that is fast because it does not answer must not win: real servers, real calls."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count

import grpc
import pytest

from bench.probe import reply_bytes
from bench.process import ServerFailed
from bench.servers import HOST, METHOD, SERVICE

REQUEST = b"x" * 146


class Answers:
    """Echoes, except every `refuse_every`-th request, which it refuses."""

    def __init__(self, refuse_every: int | None) -> None:
        self._refuse_every = refuse_every
        self._requests = count(1)

    def __call__(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if self._refuse_every and next(self._requests) % self._refuse_every == 0:
            context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        return request


@contextmanager
def served(*, refuse_every: int | None = None) -> Iterator[int]:
    """The port of a server that gives Answers."""
    server = grpc.server(ThreadPoolExecutor(2))
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(Answers(refuse_every))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def accept(_reply: bytes) -> None:
    return None


def test_the_probe_measures_a_right_answer() -> None:
    with served() as port:
        assert reply_bytes(port, REQUEST, accept) == len(REQUEST)


def test_the_probe_reports_a_wrong_answer() -> None:
    with served() as port, pytest.raises(ServerFailed, match="answered wrongly: not the model's"):
        reply_bytes(port, REQUEST, lambda _reply: "not the model's")


def test_the_probe_reports_a_refusal() -> None:
    with served(refuse_every=2) as port, pytest.raises(ServerFailed, match="refused the request"):
        reply_bytes(port, REQUEST, accept)
