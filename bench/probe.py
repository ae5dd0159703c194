"""One question by a real gRPC client, before and after each load: is the answer right, and how long is it?"""

from __future__ import annotations

from collections.abc import Callable

import grpc

from bench.process import ServerFailed
from bench.servers import HOST, PATH

TIMEOUT_SECONDS = 10.0
REPEATS = 3
OWN_CONNECTION = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


def reply_bytes(port: int, request: bytes, objection: Callable[[bytes], str | None]) -> int:
    """The length of the server's reply to `request`, without its prefix.

    Raises ServerFailed if a reply is an error, wrong, or not always as long: lengths are what a load is checked by.
    """
    with grpc.insecure_channel(f"{HOST}:{port}", options=OWN_CONNECTION) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PATH)
        try:
            replies = [call(request, timeout=TIMEOUT_SECONDS, wait_for_ready=True) for _ in range(REPEATS)]
        except grpc.RpcError as error:
            raise ServerFailed(f"refused the request: {error.code().name}: {error.details()}") from error
    for reply in replies:
        if (complaint := objection(reply)) is not None:
            raise ServerFailed(f"answered wrongly: {complaint}")
    if len({len(reply) for reply in replies}) != 1:
        raise ServerFailed(f"replies to one request differ in length: {[len(reply) for reply in replies]}")
    return len(replies[0])
