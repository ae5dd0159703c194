"""The nouns that every part of the runtime shares."""

from __future__ import annotations

from dataclasses import dataclass, field

ANY = -1
"""An axis of any size in a shape."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    `datatype` is the protocol's name ("FP32", "BYTES", ...); `shape` has ANY for an axis of any size and is () for a
    scalar; `axes` holds the graph's symbolic name of each axis ("" where it has none). `any_rank`: the graph declares
    no shape at all, so any will do.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    axes: tuple[str, ...] = ()
    any_rank: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives, read from its graph."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Artifact:
    """One version's files, complete, on local disk, under the digest of their content.

    `folder` is in the local content-addressed cache: nothing rewrites it while the version is served. The graph is
    `folder`/`model_filename`.
    """

    model: str
    version: int
    digest: str
    folder: str
    file_bytes: int
    model_filename: str = "model.onnx"
