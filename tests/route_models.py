"""Versions of one model that take the same messages, and read them in different ways."""

from __future__ import annotations

import onnx
import onnx.helper as make

TEN = 10.0


def ten_times(name: str) -> bytes:
    """y = 10 * (the input `name`), of the inputs x and z, the one that answers first in the signature."""
    nodes = [
        make.make_node("Constant", [], ["ten"], value_float=TEN),
        make.make_node("Mul", [name, "ten"], ["y"]),
    ]
    order = ("x", "z") if name == "x" else ("z", "x")
    inputs = [make.make_tensor_value_info(each, onnx.TensorProto.FLOAT, ["n", 4]) for each in order]
    outputs = [make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4])]
    graph = make.make_graph(nodes, "ten_times", inputs, outputs)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=9)
    return bytes(model.SerializeToString())
