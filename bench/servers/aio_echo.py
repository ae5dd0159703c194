"""`grpc.aio` at its cheapest: bytes in, the same bytes out.  Usage: python -m bench.servers.aio_echo PORT"""

import asyncio
import sys

import grpc.aio

from bench.servers import HOST, METHOD, ONE_PROCESS, SERVICE


async def echo(request: bytes, _context: object) -> bytes:
    return request


async def serve(port: int) -> None:
    server = grpc.aio.server(options=ONE_PROCESS)
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {METHOD: grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"{HOST}:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
