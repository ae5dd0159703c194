"""The ceiling: a bare loop on the C-core's completion queue, bytes in, the same bytes out.

No routing, no shutdown, no refusals: it shows what is left for Python to lose.
Usage: python -m bench.servers.queue_echo PORT
"""

import sys
from typing import Any, NoReturn

from grpc._cython import cygrpc  # type: ignore[attr-defined]

from bench.servers import HOST, ONE_PROCESS, PATH

POSTED_CALLS = 2048
"""Twice the heaviest load in flight, so that a new call never waits to be asked for."""

EMPTY_LOOKS = 2
"""In a row, as the gateway does: one look reads what a connection has received, and finds it only at the next look."""

ARRIVED, REPLIED = "arrived", "replied"


def reply(call: Any, payload: bytes) -> None:
    operations = (
        cygrpc.SendInitialMetadataOperation(None, 0),
        cygrpc.SendMessageOperation(payload, 0),
        cygrpc.SendStatusFromServerOperation(None, cygrpc.StatusCode.ok, b"", 0),
        cygrpc.ReceiveCloseOnServerOperation(0),
    )
    call.start_server_batch(operations, REPLIED)


def serve(port: int) -> NoReturn:
    queue = cygrpc.CompletionQueue()
    server = cygrpc.Server(ONE_PROCESS, False)
    server.register_completion_queue(queue)
    server.register_method(PATH)
    server.add_http2_port(f"{HOST}:{port}".encode())
    server.start()
    for _ in range(POSTED_CALLS):
        server.request_registered_call(queue, queue, PATH, ARRIVED)
    while True:
        event = queue.poll()
        ready: list[tuple[Any, bytes | None]] = []
        looked = 0
        while True:
            if event.tag is None:
                looked += 1
                if looked == EMPTY_LOOKS or not ready:
                    break
            else:
                looked = 0
                if event.tag is ARRIVED:
                    server.request_registered_call(queue, queue, PATH, ARRIVED)
                    event.call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), event.call)
                elif event.tag is not REPLIED:  # a message: its tag is the call
                    ready.append((event.tag, event.batch_operations[0].message()))
            event = queue.poll(0.0)  # a deadline in the past: only what is ready now
        # Replying after the drain lets the C-core write the answers of one connection together.
        for call, payload in ready:
            if payload is not None:  # None: the client went away
                reply(call, payload)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
