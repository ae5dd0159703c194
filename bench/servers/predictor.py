"""What one writes around a model without a gateway: decode, one ONNX Runtime run a request, encode."""

import onnxruntime

from bench.tensors import PROTOCOL_NAMES, decoded, encoded
from gateway.wire.pb.inference import grpc_service_pb2 as pb


class Predictor:
    def __init__(self, model_file: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model_file, options, providers=["CPUExecutionProvider"])
        self._output_names = [output.name for output in self._session.get_outputs()]

    def infer(self, request: pb.ModelInferRequest, _context: object = None) -> pb.ModelInferResponse:
        feeds = {
            tensor.name: decoded(tensor.datatype, tuple(tensor.shape), raw)
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        response = pb.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        for name, value in zip(self._output_names, self._session.run(self._output_names, feeds), strict=True):
            response.outputs.add(name=name, datatype=PROTOCOL_NAMES[value.dtype.name], shape=value.shape)
            response.raw_output_contents.append(encoded(value))
        return response
