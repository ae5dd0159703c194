"""A loaded model. The only importer of onnxruntime: its types, threads and errors stop here."""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from runtime.errors import LoadError, RunError
from runtime.onnx.dtypes import BY_NAME
from runtime.onnx.rank import without_rank
from runtime.onnx.signature import read_signature
from runtime.repository.manifest import SessionSettings
from runtime.types import Signature

Array = npt.NDArray[Any]

ort.set_default_logger_severity(4)  # its errors come as exceptions, and are logged where they are handled
ort.disable_telemetry_events()

OPTIMIZATION = {
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
EXECUTION = {"sequential": ort.ExecutionMode.ORT_SEQUENTIAL, "parallel": ort.ExecutionMode.ORT_PARALLEL}
"""File, line and C++ function of ONNX Runtime, which it puts into its messages."""
SOURCE_PLACE = re.compile(  # file:line and the C++ function, as ONNX Runtime's checks put before their words
    r"/\S+\.(?:cc|h|hpp|cpp):\d+ .*?\)(?:::<lambda\([^)]*\)>)?(?: const)?(?: \[with [^\]]*\])? "
)
BROKEN_FILE = (ort_errors.InvalidProtobuf, ort_errors.InvalidGraph, ort_errors.NoSuchFile, ort_errors.NotFound)


class Session:
    """Runs one model; `run` may be called from several threads at once and releases the GIL while it computes.

    Loading and dropping a session release the GIL too, so neither stalls requests to other models.
    Raises LoadError from the constructor and RunError from `run`.
    """

    def __init__(self, model_file: Path, settings: SessionSettings) -> None:
        asked = [name for name, _ in settings.execution_providers]
        present = ort.get_available_providers()
        usable = [(name, dict(options)) for name, options in settings.execution_providers if name in present]
        if not usable:
            raise LoadError(
                f"none of the execution providers {', '.join(asked)} is in this build of ONNX Runtime, "
                f"which has {', '.join(present)}: install the matching onnxruntime package or change "
                "session.execution_providers"
            )
        try:
            self._session = ort.InferenceSession(str(model_file), _options(settings), providers=usable)
        except BROKEN_FILE as error:
            raise LoadError(
                f"{model_file.name} is not a valid ONNX model, or a file that it names is missing: "
                f"{_first_line(error, model_file)}",
                detail=str(error),
            ) from None
        except Exception as error:
            raise LoadError(
                f"ONNX Runtime cannot load {model_file.name}: {_first_line(error, model_file)}{_hint(str(error))}",
                detail=str(error),
            ) from None
        self.execution_providers: tuple[str, ...] = tuple(self._session.get_providers())
        self.warnings = tuple(
            f"execution provider {name} was asked for but is not in use; running on {self.execution_providers[0]}"
            for name in asked
            if name not in self.execution_providers
        )
        metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        # ONNX Runtime shows an undeclared rank like a scalar's; only then is the file itself asked.
        unclear = any(not arg.shape for arg in (*inputs, *outputs))
        unranked = without_rank(model_file) if unclear else frozenset()
        self.signature: Signature = read_signature(inputs, outputs, metadata, unranked)
        tensors = (*self.signature.inputs, *self.signature.outputs)
        self._by_value = any(spec.datatype == "BF16" for spec in tensors)
        self._output_names = [spec.name for spec in self.signature.outputs]

    def run(
        self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None, stop: RunStop | None = None
    ) -> list[Array]:
        """`feeds`: one array per input, of the datatype's numpy dtype; answers arrays in the order of `outputs`."""
        names = self._output_names if outputs is None else list(outputs)
        options = stop.options if stop is not None else None
        try:
            if self._by_value:
                return self._run_by_value(feeds, names, options)
            answers: list[Array] = self._session.run(names, feeds, options)
        except Exception as error:
            raise RunError("model failed", detail=str(error)) from None
        return answers

    def _run_by_value(
        self, feeds: Mapping[str, Array], names: list[str], options: ort.RunOptions | None
    ) -> list[Array]:
        """For BF16, which ONNX Runtime takes from Python only as OrtValue and gives back only by address."""
        values = {
            spec.name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(
                np.ascontiguousarray(feeds[spec.name]), BY_NAME["BF16"].element_type
            )
            if spec.datatype == "BF16"
            else ort.OrtValue.ortvalue_from_numpy(feeds[spec.name])
            for spec in self.signature.inputs
        }
        datatypes = {spec.name: spec.datatype for spec in self.signature.outputs}
        answers = self._session.run_with_ort_values(names, values, options)
        return [_read_value(value, datatypes[name]) for name, value in zip(names, answers, strict=True)]


class RunStop:
    """Ends one run between two of its nodes, from another thread."""

    __slots__ = ("options",)

    def __init__(self) -> None:
        self.options = ort.RunOptions()

    def stop(self) -> None:
        self.options.terminate = True

    def after(self, seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, self.stop)
        timer.daemon = True
        timer.start()
        return timer


def _options(settings: SessionSettings) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.intra_op_threads
    options.inter_op_num_threads = settings.inter_op_threads
    options.execution_mode = EXECUTION[settings.execution]
    options.graph_optimization_level = OPTIMIZATION[settings.graph_optimization]
    options.enable_cpu_mem_arena = settings.memory_arena
    spinning = "1" if settings.spinning else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    options.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    for key, value in settings.config.items():
        options.add_session_config_entry(key, value)
    return options


def _read_value(value: Any, datatype: str) -> Array:
    if datatype != "BF16":
        return np.asarray(value.numpy())
    shape = tuple(value.shape())
    count = int(np.prod(shape, dtype=np.int64))
    raw = ctypes.string_at(value.data_ptr(), 2 * count) if count else b""
    return np.frombuffer(raw, np.uint16).reshape(shape)


def _first_line(error: Exception, model_file: Path) -> str:
    """ONNX Runtime's own words without the server's paths."""
    text = str(error) or type(error).__name__
    for folder in (*model_file.parents, *model_file.resolve().parents):
        if len(folder.parts) > 1:
            text = text.replace(f"{folder}/", "")
    return plain_words(text.replace(str(model_file.parent), ""))


def plain_words(text: str) -> str:
    """The first line of ONNX Runtime's message without its bracketed prefix and the places in its source."""
    lines = text.strip().splitlines()
    line = lines[0] if lines else ""
    if line.startswith("[ONNXRuntimeError]"):
        line = line.split(" : ", 3)[-1]
    return SOURCE_PLACE.sub("", line)[:500]


def _hint(text: str) -> str:
    if "locale" in text.lower():
        return (
            ": the model normalizes text in a locale that this system lacks; install it (on Debian: the package "
            "locales-all) or export the model without a locale"
        )
    if "opset" in text.lower() or "ir_version" in text.lower():
        return f": export for an opset that ONNX Runtime {ort.__version__} knows, or upgrade onnxruntime"
    return ""
