"""Whether a shadow version can be asked what a primary was asked: pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from runtime.onnx.signature import show_shape
from runtime.shadow.copied_pair import CopiedPair
from runtime.shadow.pair import Copy
from runtime.types import ANY, Signature


def misfit(described: CopiedPair, shadow: Signature) -> str:
    """Why no copy of the pair can be run by a version of signature `shadow`; "" if they can.

    It takes the same inputs, by name and datatype, and has all outputs of the primary.
    """
    given = dict(described.inputs)
    taken = {spec.name: spec.datatype for spec in shadow.inputs}
    answered = {spec.name: spec.datatype for spec in shadow.outputs}
    problems = [f"it takes input {name!r}, which the other does not" for name in taken if name not in given]
    for name, datatype in described.inputs:
        if taken.get(name) != datatype:
            problems.append(f"expected input {name!r} of {datatype}, its own is {taken.get(name, 'not there')}")
    for name, datatype in described.outputs:
        if answered.get(name) != datatype:
            problems.append(f"expected output {name!r} of {datatype}, its own is {answered.get(name, 'not there')}")
    return "; ".join(problems[:10])


def misshapen(copy: Copy, shadow: Signature) -> str:
    """Why this copy's inputs are not of the shapes that the version declares; "" if they are."""
    for spec in shadow.inputs:
        shape = copy.inputs[spec.name].shape
        fits = len(shape) == len(spec.shape) and all(
            expected in (ANY, size) for expected, size in zip(spec.shape, shape, strict=True)
        )
        if not fits and not spec.any_rank:
            return f"input {spec.name!r}: expected shape {show_shape(spec.shape)}, the copy has {show_shape(shape)}"
    return ""


def by_request(copy: Copy) -> Iterator[Copy]:
    """The requests of a run one by one; a run of one, or of tensors without rows, is what it was."""
    if len(copy.rows) == 1 or not copy.batched:
        yield copy
        return
    begin = 0
    for rows, request_id in zip(copy.rows, copy.request_ids, strict=True):
        part = slice(begin, begin + rows)
        begin += rows
        yield replace(
            copy,
            inputs={name: array[part] for name, array in copy.inputs.items()},
            outputs={name: array[part] for name, array in copy.outputs.items()},
            rows=(rows,),
            request_ids=(request_id,),
        )
