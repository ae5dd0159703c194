"""Requests ↔ arrays: rows are joined for one run and cut apart again by position alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.batching.request import Request
from runtime.onnx.dtypes import BY_NAME
from runtime.types import Signature

Array = npt.NDArray[Any]


def gather(requests: Sequence[Request], signature: Signature) -> dict[str, Array]:
    """One array per input; the rows of `requests` one after another along axis 0.

    All requests have the same key, so their shapes differ in axis 0 at most. A single request is not copied.
    """
    feeds: dict[str, Array] = {}
    single = len(requests) == 1
    first = requests[0]
    for index, spec in enumerate(signature.inputs):
        shape = first.shapes[index]
        if not single:
            shape = (sum(request.shapes[index][0] for request in requests), *shape[1:])
        if spec.datatype == "BYTES":
            elements: list[str] = []
            for request in requests:
                elements.extend(request.inputs[index])  # type: ignore[arg-type]  # BYTES inputs are lists of str
            array = np.empty(len(elements), object)
            array[:] = elements
        else:
            data = first.inputs[index] if single else b"".join([r.inputs[index] for r in requests])  # type: ignore[misc]
            array = np.frombuffer(data, BY_NAME[spec.datatype].numpy)  # type: ignore[arg-type]
        feeds[spec.name] = array.reshape(shape)
    return feeds


def unmergeable(requests: Sequence[Request], answers: Sequence[Array]) -> str:
    """Why `answers` cannot be cut apart by rows; "" if they can."""
    rows = sum(request.rows for request in requests)
    for answer in answers:
        if answer.ndim == 0 or answer.shape[0] != rows:
            return f"{rows} rows went in and an output of shape {list(answer.shape)} came out"
    return ""
