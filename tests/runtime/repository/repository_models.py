"""ONNX models for the repository's tests: as small as they can be, real enough for onnx.checker."""

import os
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def small_model(scale: float = 2.0) -> onnx.ModelProto:
    """y = x * scale, with an If whose branches hold initializers of their own."""
    then_branch = helper.make_graph(
        [helper.make_node("Identity", ["inner"], ["chosen"])],
        "then",
        [],
        [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, [4])],
        [numpy_helper.from_array(np.arange(4, dtype=np.float32), "inner")],
    )
    constant = numpy_helper.from_array(np.ones(4, np.float32), "constant")
    else_branch = helper.make_graph(
        [helper.make_node("Constant", [], ["chosen"], value=constant)],
        "else",
        [],
        [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, [4])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "scale"], ["scaled"]),
            helper.make_node("If", ["flag"], ["branch"], then_branch=then_branch, else_branch=else_branch),
            helper.make_node("Add", ["scaled", "branch"], ["y"]),
        ],
        "small",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(np.full(4, scale, np.float32), "scale")],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])


def save_external(folder: Path, model: onnx.ModelProto, location: str = "weights.bin") -> None:
    """The model with every tensor, constants in branches too, in `location`."""
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(
        model,
        str(folder / "model.onnx"),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=location,
        size_threshold=0,
        convert_attribute=True,
    )


def write_version(root: Path, model: str, version: int = 1, *, scale: float = 2.0, age_seconds: float = 60) -> Path:
    """A complete version, last written `age_seconds` ago."""
    folder = root / model / str(version)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(small_model(scale).SerializeToString())
    age(folder, age_seconds)
    return folder


def age(folder: Path, seconds: float) -> None:
    """Makes every file under `folder` look last written `seconds` ago."""
    for path in folder.rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime - seconds
            os.utime(path, (then, then))


class ManualClock:
    """Unix time that passes only in `sleep`; `on_sleep` is what the world does meanwhile."""

    def __init__(self, now: float, on_sleep=lambda: None):
        self.now = now
        self.slept: list[float] = []
        self.on_sleep = on_sleep

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self.on_sleep()
