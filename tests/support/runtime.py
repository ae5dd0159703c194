"""What tests of the runtime share: requests made from arrays, and a record of what became of each."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.batching.request import Refusal, Request
from runtime.batching.runner import RunTimes
from runtime.errors import ServingError
from runtime.onnx.dtypes import BY_NAME
from runtime.onnx.session import Session
from runtime.repository.manifest import Manifest, SessionSettings
from runtime.types import Artifact, Signature
from runtime.versions.manager import VersionTarget

Array = NDArray[Any]
WAIT_SECONDS = 30.0


def session_of(folder: Path, model: bytes) -> Session:
    """Writes the model to `folder`/model.onnx and loads it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    return Session(folder / "model.onnx", SessionSettings())


def target_of(
    folder: Path,
    model: str,
    version: int,
    manifest: Manifest | None = None,
    generation: int = 1,
    digest: str = "sha256:0",
) -> VersionTarget:
    """The version whose files are in `folder`."""
    artifact = Artifact(model=model, version=version, digest=digest, folder=str(folder), file_bytes=0)
    return VersionTarget(artifact, manifest or Manifest(), generation)


def request_of(
    signature: Signature, feeds: Mapping[str, Array], *, merges: bool = True, outputs: tuple[int, ...] | None = None
) -> Request:
    """As the decoder makes it: bytes, or lists of str, in the order of the signature."""
    arrays = [np.asarray(feeds[spec.name]) for spec in signature.inputs]
    values: list[bytes | list[str]] = [
        array.ravel().tolist() if spec.datatype == "BYTES" else array.astype(BY_NAME[spec.datatype].numpy).tobytes()
        for spec, array in zip(signature.inputs, arrays, strict=True)
    ]
    shapes = [array.shape for array in arrays]
    chosen = tuple(range(len(signature.outputs))) if outputs is None else outputs
    rows = shapes[0][0] if merges else 1
    key = (chosen, *(shape[1:] for shape in shapes)) if merges else None
    return Request(values, shapes, chosen, rows, key)


class Deliveries:
    """A Delivery that keeps, per request, every answer (its rows of each output) and every refusal that it got."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._answers: dict[int, list[Array]] = {}
        self._errors: dict[int, ServingError] = {}
        self._kept: list[Request] = []  # so that no two have the same id()
        self.counts: Counter[int] = Counter()
        self.batches: list[int] = []  # requests of each run that was answered
        self.times: list[RunTimes] = []

    def answered(self, requests: Sequence[Request], answers: Sequence[Array], times: RunTimes) -> None:
        with self._changed:
            self.batches.append(len(requests))
            self.times.append(times)
            start = 0
            self._kept += requests
            for request in requests:
                stop = start + request.rows
                self._answers[id(request)] = [a if len(requests) == 1 else a[start:stop] for a in answers]
                self.counts[id(request)] += 1
                start = stop
            self._changed.notify_all()

    def refused(self, refusals: Sequence[Refusal]) -> None:
        with self._changed:
            for refusal in refusals:
                self._kept.append(refusal.request)
                self._errors[id(refusal.request)] = refusal.error
                self.counts[id(refusal.request)] += 1
            self._changed.notify_all()

    def wait(self, requests: Sequence[Request]) -> None:
        """Until each has got something."""
        with self._changed:
            done = self._changed.wait_for(lambda: all(id(r) in self.counts for r in requests), WAIT_SECONDS)
        assert done, f"{sum(id(r) not in self.counts for r in requests)} of {len(requests)} requests got nothing"

    def answer(self, request: Request) -> list[Array]:
        self.wait([request])
        assert id(request) in self._answers, f"refused: {self._errors.get(id(request))!r}"
        return self._answers[id(request)]

    def error(self, request: Request) -> ServingError:
        self.wait([request])
        assert id(request) in self._errors, "it was answered"
        return self._errors[id(request)]
