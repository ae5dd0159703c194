"""A subject in a repository, requests of its rows, and what ONNX Runtime answers to each."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bench.matrix.subject import Subject
from bench.tensors import PROTOCOL_NAMES, decoded, encoded
from gateway.wire.pb.inference import grpc_service_pb2 as pb
from runtime.onnx.signature import read_signature
from runtime.profile.of_signature import schema_of
from runtime.profile.reference import Profile
from runtime.profile.summary import Summary
from runtime.repository.statistics_settings import StatisticsSettings

POOL_BYTES = 64 << 20
POOL = 64
"""Requests that differ, as many as fit into POOL_BYTES."""


@dataclass(frozen=True, slots=True)
class Workload:
    """`requests`: serialised ModelInferRequests; `expected`: ONNX Runtime's outputs for each, by name."""

    name: str
    rows: int
    requests: tuple[bytes, ...]
    expected: tuple[dict[str, np.ndarray], ...]

    @property
    def request_bytes(self) -> int:
        return len(self.requests[0])

    def streamed_objection(self, index: int, reply: bytes) -> str | None:
        """The same of a serialised ModelStreamInferResponse."""
        response = pb.ModelStreamInferResponse.FromString(reply)
        if response.error_message:
            return f"request {index}: {response.error_message}"
        return self.objection(index, response.infer_response.SerializeToString())

    def objection(self, index: int, reply: bytes) -> str | None:
        """Why `reply`, a serialised ModelInferResponse, is not the answer to request `index`; None if it is."""
        response, expected = pb.ModelInferResponse.FromString(reply), self.expected[index]
        if [output.name for output in response.outputs] != list(expected):
            return f"outputs {[output.name for output in response.outputs]}, expected {list(expected)}"
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
            wanted = expected[output.name]
            value = decoded(output.datatype, tuple(output.shape), raw)
            # A batch of another size may round the last bits of a float another way.
            if value.shape != wanted.shape or not _close(value, wanted):
                return f"{output.name} of request {index} is {_start(value)}, expected {_start(wanted)}"
        return None


def _close(value: np.ndarray, wanted: np.ndarray) -> bool:
    if wanted.dtype.kind == "f":
        return bool(np.allclose(value, wanted, rtol=1e-4, atol=1e-6))
    return bool(np.array_equal(value, wanted))


def _start(value: np.ndarray) -> str:
    return f"{list(value.shape)} {value.ravel()[:8].tolist()}"


def request(model: str, tensors: dict[str, np.ndarray]) -> bytes:
    message = pb.ModelInferRequest(model_name=model)
    for name, value in tensors.items():
        message.inputs.add(name=name, datatype=PROTOCOL_NAMES[value.dtype.name], shape=value.shape)
        message.raw_input_contents.append(encoded(value))
    return message.SerializeToString()


def feeds_of(request: bytes) -> dict[str, np.ndarray]:
    """The tensors of a serialised request, by name."""
    message = pb.ModelInferRequest.FromString(request)
    return {
        tensor.name: decoded(tensor.datatype, tuple(tensor.shape), raw)
        for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True)
    }


def session_of(graph: bytes | str) -> onnxruntime.InferenceSession:
    """On one thread, as every server has it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def workload(subject: Subject, rows: int, model: str | None = None) -> Workload:
    """Requests of `rows` rows to the model called `model`, by default as the subject."""
    session = session_of(subject.graph)
    names = [output.name for output in session.get_outputs()]
    size = len(request(subject.name, subject.take(0, rows)))
    pool = max(2, min(POOL, POOL_BYTES // size, -(-subject.count // rows)))
    taken = [subject.take(index * rows, rows) for index in range(pool)]
    return Workload(
        name=model or subject.name,
        rows=rows,
        requests=tuple(request(model or subject.name, tensors) for tensors in taken),
        expected=tuple(dict(zip(names, session.run(names, tensors), strict=True)) for tensors in taken),
    )


def write(subject: Subject, root: Path, model: str | None = None, versions: int = 1, settings: str = "") -> Path:
    """`<root>/<model>` with so many equal versions, each with a profile of the rows. Returns the first one's graph."""
    folder = root / (model or subject.name)
    first = folder / "1"
    first.mkdir(parents=True)
    graph = first / "model.onnx"
    graph.write_bytes(subject.graph)
    save(first / "warmup.npz", subject.take(0, 3))
    profile = _profile(subject) if subject.profile else None
    for version in range(1, versions + 1):
        if version > 1:
            shutil.copytree(first, folder / str(version))
        if profile is not None:
            (folder / "profiles").mkdir(exist_ok=True)
            (folder / "profiles" / f"{version}.profile").write_bytes(profile)
    if settings:
        (folder / "model.yaml").write_text(settings)
    return graph


def save(file: Path, tensors: dict[str, np.ndarray]) -> None:
    """As an npz file, by name; strings as numpy's `str`."""
    plain: dict[str, Any] = {name: _plain(values) for name, values in tensors.items()}
    np.savez(file, **plain)


def _plain(values: np.ndarray) -> np.ndarray:
    return values.astype(str) if values.dtype == object else values


def _profile(subject: Subject) -> bytes:
    """What live rows are compared with: looking for drift is a part of what is measured."""
    session = session_of(subject.graph)
    names = [output.name for output in session.get_outputs()]
    signature = read_signature(session.get_inputs(), session.get_outputs(), {}, frozenset())
    summary = Summary.create(schema_of(signature, StatisticsSettings()))
    outputs = dict(zip(names, session.run(names, subject.rows), strict=True))
    summary.observe(subject.rows, outputs, subject.count)
    return Profile.of_data(summary, {"data": subject.title}, 0.0, {}).encode()
