"""A graph's inputs and outputs ↔ Signature, and what the protocol cannot carry."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from runtime.errors import InvalidRequest, LoadError
from runtime.onnx.dtypes import BY_ONNX, DATATYPES
from runtime.types import ANY, Signature, TensorSpec


def read_signature(
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    metadata: dict[str, str],
    without_rank: Collection[str] = (),
) -> Signature:
    """Reads ONNX Runtime's NodeArgs (name, type, shape); every tensor that cannot be served is named at once.

    Raises LoadError for sequences, maps, optionals and element types outside the protocol.
    """
    problems: list[str] = []
    specs = [
        [_spec(role, arg, arg.name in without_rank, problems) for arg in args]
        for role, args in (("input", inputs), ("output", outputs))
    ]
    if not outputs:
        problems.append("the graph has no outputs, so there is nothing to answer")
    if problems:
        raise LoadError("the model cannot be served over the protocol: " + "; ".join(problems))
    return Signature(tuple(s for s in specs[0] if s), tuple(s for s in specs[1] if s), metadata)


def _spec(role: str, arg: Any, any_rank: bool, problems: list[str]) -> TensorSpec | None:
    datatype = BY_ONNX.get(arg.type)
    if datatype is None:
        problems.append(f"{role} {arg.name!r} is {arg.type}; {_remedy(arg.type)}")
        return None
    shape, axes = [], []
    for axis in arg.shape:
        fixed = isinstance(axis, int) and axis >= 0
        shape.append(axis if fixed else ANY)
        axes.append(axis if isinstance(axis, str) else "")
    return TensorSpec(arg.name, datatype.name, tuple(shape), tuple(axes), any_rank)


def _remedy(onnx_type: str) -> str:
    if "map(" in onnx_type:
        return (
            "the protocol carries tensors only: export scikit-learn classifiers without ZipMap, "
            "skl2onnx.to_onnx(model, X, options={'zipmap': False}), and the probabilities become one float tensor"
        )
    if onnx_type.startswith(("seq(", "optional(")):
        return "the protocol carries tensors only: end the graph in tensors, for example by ConcatFromSequence"
    return "the protocol carries " + ", ".join(datatype.name for datatype in DATATYPES) + ": add a Cast to the graph"


def show_shape(shape: Sequence[int]) -> str:
    """[-1,30]: as error messages and listings write a shape."""
    return "[" + ",".join(str(axis) for axis in shape) + "]"


def batch_axis(signature: Signature) -> bool:
    """True if axis 0 of every input and output is of any size, so that it may be the axis of rows."""
    tensors = (*signature.inputs, *signature.outputs)
    return bool(signature.inputs) and all(spec.shape and spec.shape[0] == ANY for spec in tensors)


def axis_conflict(signature: Signature, shapes: Sequence[Sequence[int]]) -> InvalidRequest | None:
    """The first axis whose symbolic name stands for two sizes in the inputs' `shapes`.

    It explains a run that failed. It does not forbid one: exporters name axes carelessly, and models broadcast.
    """
    seen: dict[str, tuple[int, str]] = {}
    for spec, shape in zip(signature.inputs, shapes, strict=True):
        for position, (axis, size) in enumerate(zip(spec.axes, shape, strict=False)):
            first, where = seen.setdefault(axis, (size, spec.name)) if axis else (size, "")
            if size != first:
                return InvalidRequest(
                    f"input {spec.name!r}: expected {first} at axis {position} ({axis!r}), as in input {where!r}, "
                    f"got {size}",
                    field=spec.name,
                )
    return None
