"""MLServer's side of the model, copied beside its settings as bench_runtime.py. Runs in MLServer's own Python.

Leaner than its NumPy codec, which looks for NaN and validates what we have just made. Inference is on the event loop's
thread: it takes microseconds, and handing it to another thread takes more.
"""

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, Parameters, ResponseOutput, TensorData

DATATYPES = {np.dtype(np.float32): "FP32", np.dtype(np.int64): "INT64"}
PARAMETERS = Parameters(content_type="np")
"""Of each output: MLServer's batching cannot part outputs that have none."""


class OnnxRuntime(MLModel):  # type: ignore[misc]  # untyped here: it is not in this environment
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        self.names = [output.name for output in self.session.get_outputs()]
        self.parameters = PARAMETERS if self.settings.max_batch_size > 1 else None
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds = {each.name: np.array(each.data.root, np.float32).reshape(each.shape) for each in payload.inputs}
        outputs = [self._output(*each) for each in zip(self.names, self.session.run(self.names, feeds), strict=True)]
        return InferenceResponse.model_construct(model_name=self.name, model_version=self.version, outputs=outputs)

    def _output(self, name: str, value: np.ndarray) -> ResponseOutput:
        return ResponseOutput.model_construct(
            name=name,
            shape=[len(value), value.size // len(value)],
            datatype=DATATYPES[value.dtype],
            parameters=self.parameters,
            data=TensorData.model_construct(root=value.ravel().tolist()),
        )
