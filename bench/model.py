"""The model and the requests that every server is measured with: 30 float32 features, logistic regression."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from skl2onnx import to_onnx  # type: ignore[import-untyped]
from sklearn.datasets import load_breast_cancer  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

from gateway.wire.pb.inference import grpc_service_pb2 as pb
from runtime.onnx.signature import read_signature
from runtime.profile.of_signature import schema_of
from runtime.profile.reference import Profile
from runtime.profile.summary import Summary
from runtime.repository.statistics_settings import StatisticsSettings

MODEL_NAME = "tabular"
CANARY = "versions: all\nroute: {split: {stable: {to: 1, weight: 90}, canary: {to: 2, weight: 10}}}\n"
"""Requests have no key and are drawn: a load of equal requests with one key would all be one variant's."""

POOL_REQUESTS = 256
"""Rows of the data that are sent in turn, all different: enough to reach all that a server keeps of each feature."""

DTYPES = {"FP32": np.float32, "INT64": np.int64}


@dataclass(frozen=True, slots=True)
class Workload:
    """`requests`: serialised ModelInferRequests of a row each; `expected`: ONNX Runtime's outputs, of all, by name.

    `canary_repository` has the same model as versions 1 and 2, and a route that shares requests out between them.
    """

    repository: Path
    canary_repository: Path
    model_file: Path
    requests: tuple[bytes, ...]
    expected: dict[str, np.ndarray]

    @property
    def request(self) -> bytes:
        """The first, for who sends only one."""
        return self.requests[0]

    def objection(self, index: int, reply: bytes) -> str | None:
        """Why `reply`, a serialised ModelInferResponse, is not the model's answer to a request; None if it is."""
        response = pb.ModelInferResponse.FromString(reply)
        if [output.name for output in response.outputs] != list(self.expected):
            return f"outputs {[output.name for output in response.outputs]}, expected {list(self.expected)}"
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
            expected = self.expected[output.name][index : index + 1]
            value = np.frombuffer(raw, DTYPES[output.datatype]).reshape(output.shape)
            if value.shape == (*expected.shape, 1):  # how Triton and MLServer give one value a row
                value = value.reshape(expected.shape)
            # A batch of another size may round the last bits of a float another way, and the smaller of two
            # probabilities is what the larger leaves of 1: its bits are those of 1.
            if value.shape != expected.shape or not np.allclose(value, expected, rtol=1e-5, atol=1e-6):
                return f"{output.name} is {value.tolist()}, expected {expected.tolist()}"
        return None

    def stream_objection(self, index: int, reply: bytes) -> str | None:
        """The same of a serialised ModelStreamInferResponse."""
        response = pb.ModelStreamInferResponse.FromString(reply)
        if response.error_message:
            return f"an error in place of an answer: {response.error_message}"
        return self.objection(index, response.infer_response.SerializeToString())


def _request(row: np.ndarray) -> bytes:
    """row: float32[1, 30]."""
    request = pb.ModelInferRequest(model_name=MODEL_NAME)
    request.inputs.add(name="X", datatype="FP32", shape=row.shape)
    request.raw_input_contents.append(row.tobytes())
    return request.SerializeToString()


def _write_profile(file: Path, session: onnxruntime.InferenceSession, features: np.ndarray) -> None:
    """What live rows are compared with: looking for drift is a part of what is measured."""
    names = [output.name for output in session.get_outputs()]
    signature = read_signature(session.get_inputs(), session.get_outputs(), {}, frozenset())
    summary = Summary.create(schema_of(signature, StatisticsSettings()))
    summary.observe({"X": features}, dict(zip(names, session.run(names, {"X": features}), strict=True)), len(features))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(Profile.of_data(summary, {"data": "load_breast_cancer"}, 0.0, {}).encode())


def build(folder: Path) -> Workload:
    """Train the model and write it as `<folder>/models/tabular/1/model.onnx`, with a profile of its data beside it.

    `<folder>/canary` has it as versions 1 and 2.
    """
    features, labels = load_breast_cancer(return_X_y=True)
    features = features.astype(np.float32)
    classifier = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, labels)
    graph = to_onnx(classifier, features[:1], options={"zipmap": False})
    model_file = folder / "models" / MODEL_NAME / "1" / "model.onnx"
    model_file.parent.mkdir(parents=True)
    model_file.write_bytes(graph.SerializeToString())

    session = onnxruntime.InferenceSession(str(model_file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    _write_profile(folder / "models" / MODEL_NAME / "profiles" / "1.profile", session, features)
    canary = folder / "canary" / MODEL_NAME
    for version in ("1", "2"):
        shutil.copytree(model_file.parent, canary / version)
        _write_profile(canary / "profiles" / f"{version}.profile", session, features)
    (canary / "model.yaml").write_text(CANARY)
    rows = features[:POOL_REQUESTS]
    return Workload(
        repository=folder / "models",
        canary_repository=folder / "canary",
        model_file=model_file,
        requests=tuple(_request(rows[index : index + 1]) for index in range(len(rows))),
        expected=dict(zip(names, session.run(names, {"X": rows}), strict=True)),
    )
