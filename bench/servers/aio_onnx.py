"""What a team writes in an afternoon: `grpc.aio`, one ONNX Runtime run for each request.

Usage: python -m bench.servers.aio_onnx PORT MODEL.onnx
"""

import asyncio
import sys

import grpc.aio
import numpy as np
import onnxruntime

from bench.servers import HOST, METHOD, ONE_PROCESS, SERVICE
from gateway.wire.pb.inference import grpc_service_pb2 as pb

PROTOCOL_NAMES = {np.dtype(np.float32): "FP32", np.dtype(np.int64): "INT64"}


class Predictor:
    def __init__(self, model_file: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model_file, options, providers=["CPUExecutionProvider"])
        self._output_names = [output.name for output in self._session.get_outputs()]

    async def infer(self, request: pb.ModelInferRequest, _context: object) -> pb.ModelInferResponse:
        feeds = {
            tensor.name: np.frombuffer(raw, np.float32).reshape(tensor.shape)
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        response = pb.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        for name, value in zip(self._output_names, self._session.run(self._output_names, feeds), strict=True):
            response.outputs.add(name=name, datatype=PROTOCOL_NAMES[value.dtype], shape=value.shape)
            response.raw_output_contents.append(value.tobytes())
        return response


async def serve(port: int, model_file: str) -> None:
    server = grpc.aio.server(options=ONE_PROCESS)
    handler = grpc.unary_unary_rpc_method_handler(
        Predictor(model_file).infer,
        request_deserializer=pb.ModelInferRequest.FromString,
        response_serializer=pb.ModelInferResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    server.add_insecure_port(f"{HOST}:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
