"""The same with `grpc.server` and its threads.  Usage: python -m bench.servers.sync_onnx PORT MODEL.onnx"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

from bench.servers import HOST, METHOD, ONE_PROCESS, SERVICE
from bench.servers.predictor import Predictor
from bench.servers.sync_echo import THREADS
from gateway.wire.pb.inference import grpc_service_pb2 as pb


def serve(port: int, model_file: str) -> None:
    server = grpc.server(ThreadPoolExecutor(THREADS), options=ONE_PROCESS)
    handler = grpc.unary_unary_rpc_method_handler(
        Predictor(model_file).infer,
        request_deserializer=pb.ModelInferRequest.FromString,
        response_serializer=pb.ModelInferResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    server.add_insecure_port(f"{HOST}:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
