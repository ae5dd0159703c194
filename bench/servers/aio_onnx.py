"""What a team writes in an afternoon: `grpc.aio`, one ONNX Runtime run for each request.

Usage: python -m bench.servers.aio_onnx PORT MODEL.onnx
"""

import asyncio
import sys

import grpc.aio

from bench.servers import HOST, METHOD, ONE_PROCESS, SERVICE
from bench.servers.predictor import Predictor
from gateway.wire.pb.inference import grpc_service_pb2 as pb


async def serve(port: int, model_file: str) -> None:
    predictor = Predictor(model_file)

    async def infer(request: pb.ModelInferRequest, _context: object) -> pb.ModelInferResponse:
        return predictor.infer(request)

    server = grpc.aio.server(options=ONE_PROCESS)
    handler = grpc.unary_unary_rpc_method_handler(
        infer,
        request_deserializer=pb.ModelInferRequest.FromString,
        response_serializer=pb.ModelInferResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    server.add_insecure_port(f"{HOST}:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
