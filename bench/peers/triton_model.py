"""Triton's side of the model, copied into its repository as model.py: one ONNX Runtime run for all requests of a batch.

Runs in Triton's own Python, which has `triton_python_backend_utils`.
"""

import json
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as backend


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model_file = json.loads(args["model_config"])["parameters"]["model_file"]["string_value"]
        self.session = onnxruntime.InferenceSession(model_file, options, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        inputs = [backend.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        rows = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        label, probabilities = self.session.run(self.names, {"X": rows})
        label = label.reshape(-1, 1)
        answers, begin = [], 0
        for each in inputs:
            end = begin + len(each)
            tensors = [
                backend.Tensor(name, value[begin:end])
                for name, value in zip(self.names, (label, probabilities), strict=True)
            ]
            answers.append(backend.InferenceResponse(tensors))
            begin = end
        return answers
