"""Rows that were kept of a version's inputs, as one uniform sample, and as tensors that it can be asked again with.

Each pane keeps the rows of its least random keys (`runtime.sketch.rows`). Of all rows of several panes those are kept
whose key is below every full pane's greatest: as uniform as the sample of one pane, and larger, for panes of like size
all keep their part. Values are float32; what that cannot hold as it was makes the rows unfit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.onnx.dtypes import BY_NAME
from runtime.onnx.signature import show_shape
from runtime.profile.schema import Columns, Schema
from runtime.profile.summary import Summary
from runtime.types import ANY, TensorSpec

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint64]

WHOLE_LIMIT = float(1 << 24)
"""From here on float32 does not tell whole numbers apart."""

SHOWN = 5


class NotReplayable(ValueError):
    """Why the rows of a version cannot be asked again."""


@dataclass(frozen=True, eq=False)
class KeptRows:
    """values: float32[n, columns], keys: uint64[n], ascending: an order that says nothing of the rows."""

    keys: Words
    values: Floats

    @staticmethod
    def of(panes: Iterable[Summary], most: int) -> KeptRows:
        """Of panes of one schema, at most `most` rows."""
        keys: list[Words] = []
        values: list[Floats] = []
        bound = np.uint64(0xFFFFFFFFFFFFFFFF)
        for pane in panes:
            sample = pane.sampled
            if sample is None or not sample.filled:
                continue
            own = sample.keys[: sample.filled].copy()
            if sample.seen > sample.filled:
                bound = min(bound, own.max())
            keys.append(own)
            values.append(sample.values[: sample.filled].copy())
        if not keys:
            return KeptRows(np.empty(0, np.uint64), np.empty((0, 0), np.float32))
        together = np.concatenate(keys)
        order = np.argsort(together, kind="stable")
        order = order[together[order] < bound][:most]
        return KeptRows(together[order], np.concatenate(values)[order])

    def __len__(self) -> int:
        return len(self.keys)


def unkept(schema: Schema) -> str:
    """Why a version's rows are not kept whole; "" if they may be. `tensors_of` says the rest."""
    if not schema.sample.rows:
        return "no rows are kept: statistics.sample_rows is 0, or no input has columns of numbers"
    others = [part for part in schema.parts if not isinstance(part, Columns) and _is_input(part)]
    if others:
        names = sorted({feature.name for part in others for feature in part.features})
        return f"of {_listed(names)} the values are not kept: only numbers are that are measured column by column"
    columns = sum(len(part.names) for part in schema.parts if isinstance(part, Columns) and _is_input(part))
    if columns > len(schema.sample.names):
        return f"rows are kept of {len(schema.sample.names)} of {columns:,} columns"
    return ""


def tensors_of(schema: Schema, inputs: Sequence[TensorSpec], values: Floats) -> dict[str, Array]:
    """By name, [rows, ...] of the datatype of `inputs`, C-contiguous. FP64 is as float32 has rounded it.

    Raises NotReplayable where a column was not kept, or a value not as it was.
    """
    if why := unkept(schema):
        raise NotReplayable(why)
    places = {place: at for at, place in enumerate(_places(schema))}
    found = {}
    for spec in inputs:
        shape = _shape(spec, len(values))
        width = int(np.prod(shape[1:], dtype=np.int64))
        lacking = [column for column in range(width) if (spec.name, column) not in places]
        if lacking:
            raise NotReplayable(f"input {spec.name!r}: {len(lacking)} of its {width} columns are not kept")
        columns = values[:, [places[spec.name, column] for column in range(width)]]
        found[spec.name] = _as_datatype(spec, columns).reshape(shape)
    return found


def _places(schema: Schema) -> list[tuple[str, int]]:
    """Of each column of the sample: the tensor, and the column there."""
    wanted = set(schema.sample.names)
    return [
        (feature.tensor, feature.column)
        for part in schema.parts
        if isinstance(part, Columns) and _is_input(part)
        for feature in part.features
        if feature.name in wanted
    ]


def _shape(spec: TensorSpec, rows: int) -> tuple[int, ...]:
    if not spec.shape or spec.any_rank or spec.shape[0] not in (ANY, 1) or ANY in spec.shape[1:]:
        raise NotReplayable(f"input {spec.name!r} of shape {show_shape(spec.shape)} has no axis of rows to put them on")
    return (rows, *spec.shape[1:])


def _as_datatype(spec: TensorSpec, columns: Floats) -> Array:
    datatype = BY_NAME[spec.datatype]
    dtype = datatype.numpy
    if spec.datatype == "BF16":
        return np.ascontiguousarray((columns.view(np.uint32) >> np.uint32(16)).astype(np.uint16))
    if dtype.kind in "iub":
        bad = ~np.isfinite(columns) | (np.abs(columns) >= WHOLE_LIMIT)
        if bad.any():
            raise NotReplayable(
                f"input {spec.name!r}: {int(bad.any(axis=1).sum()):,} of {len(columns):,} rows have whole numbers "
                f"beyond 2^24, which are not kept as they were"
            )
    elif spec.datatype == "FP64" and np.isinf(columns).any():
        raise NotReplayable(f"input {spec.name!r} has numbers beyond those of float32, which are not kept as they were")
    return np.ascontiguousarray(columns.astype(dtype))


def _is_input(part: Any) -> bool:
    return getattr(part, "role", "output") == "input"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
