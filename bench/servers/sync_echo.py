"""`grpc.server` at its cheapest: bytes in, the same bytes out.  Usage: python -m bench.servers.sync_echo PORT"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

from bench.servers import HOST, METHOD, ONE_PROCESS, SERVICE

THREADS = 4
"""On one core 1 thread and 64 threads are both slower."""


def echo(request: bytes, _context: object) -> bytes:
    return request


def serve(port: int) -> None:
    server = grpc.server(ThreadPoolExecutor(THREADS), options=ONE_PROCESS)
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {METHOD: grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"{HOST}:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
