"""Which columns of the data are which input, and as which datatype: what a client would send of the same rows."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.onnx.dtypes import BY_NAME
from runtime.onnx.signature import show_shape
from runtime.profile.build_data import VARIES, Array, Column, DataProblem, Rows, Wanted
from runtime.types import ANY, Signature, TensorSpec

SHOWN = 8
"""Names in one message."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """An input's columns: one that has its shape, or `stacked` ones, side by side.

    missing: by column, the number that stands for a missing value in what clients send, or None.
    """

    spec: TensorSpec
    columns: tuple[str, ...]
    stacked: bool
    missing: tuple[float | None, ...]

    @property
    def wanted(self) -> Wanted:
        datatype = self.spec.datatype
        if datatype == "BYTES":
            return Wanted.TEXT
        if datatype == "BOOL":
            return Wanted.BOOLEAN
        # Shorter integers are exact as float64, and 3.0 is one.
        return {"INT64": Wanted.INTEGER, "UINT64": Wanted.UNSIGNED}.get(datatype, Wanted.NUMBER)

    def tensor(self, rows: Rows, first_row: int) -> Array:
        """[rows, ...], C-contiguous, of the datatype's numpy dtype. first_row: of the data, for messages."""
        if not self.stacked:
            name = self.columns[0]
            values = _converted(rows[name], self.spec, name, first_row, self.missing[0])
            try:
                return np.ascontiguousarray(values.reshape(len(values), *self._row_shape(values)))
            except ValueError:
                raise DataProblem(
                    f"column {name!r}: expected rows of shape {show_shape(self.spec.shape[1:])}, "
                    f"got {show_shape(values.shape[1:])}"
                ) from None
        count = len(rows[self.columns[0]].values)
        dtype = BY_NAME[self.spec.datatype].numpy
        table: Array = np.empty((count, len(self.columns)), dtype)
        for at, (name, missing) in enumerate(zip(self.columns, self.missing, strict=True)):
            table[:, at] = _converted(rows[name], self.spec, name, first_row, missing)
        return table.reshape(count, *self._row_shape(table))

    def _row_shape(self, values: Array) -> tuple[int, ...]:
        declared = self.spec.shape[1:]
        if self.spec.any_rank or not self.spec.shape:
            return values.shape[1:] if self.spec.any_rank else ()
        return declared if ANY not in declared else _with_any(declared, values.shape[1:])


def assign(
    signature: Signature,
    columns: Mapping[str, tuple[int, ...]],
    *,
    target: str,
    names: Mapping[str, Sequence[str]],
    missing: Mapping[tuple[str, int], float],
) -> tuple[Assignment, ...]:
    """names: of an input's columns, by input. missing: by input and column. Raises DataProblem where they do not fit.

    An input is filled from the column of its own name; else from the columns of its names; else, if it is the only
    one, from all columns but the target, in the data's order.
    """
    if target and target not in columns:
        raise DataProblem(f"the data has no column {target!r} for the target{_close([target], columns)}")
    found = []
    for spec in signature.inputs:
        own = names.get(spec.name)
        if spec.name in columns and spec.name != target and (own is None or _takes(spec, columns[spec.name])):
            found.append(_single(spec, columns[spec.name], missing))
            continue
        if own is None:
            if len(signature.inputs) > 1:
                raise DataProblem(
                    f"input {spec.name!r}: the data has no column of this name{_close([spec.name], columns)}; "
                    f"it has {_list(columns)}"
                )
            own = [name for name in columns if name != target]
        if absent := [name for name in own if name not in columns]:
            extra = [name for name in columns if name not in own and name != target]
            raise DataProblem(
                f"input {spec.name!r}: expected {len(own)} columns, of which the data lacks {_list(absent)}; "
                f"it has {_list(extra) if extra else 'no others'}{_close(absent, extra)}"
            )
        found.append(_stacked(spec, own, columns, missing, by_order=names.get(spec.name) is None, target=target))
    return tuple(found)


def _single(
    spec: TensorSpec, shape: tuple[int, ...], missing: Mapping[tuple[str, int], float]
) -> Assignment:  # fmt: skip
    if not _takes(spec, shape):
        raise DataProblem(
            f"input {spec.name!r}: expected rows of shape {show_shape(spec.shape[1:])}, got {show_shape(shape)}"
        )
    return Assignment(spec, (spec.name,), stacked=False, missing=(missing.get((spec.name, 0)) if not shape else None,))


def _stacked(
    spec: TensorSpec,
    own: Sequence[str],
    columns: Mapping[str, tuple[int, ...]],
    missing: Mapping[tuple[str, int], float],
    *,
    by_order: bool,
    target: str,
) -> Assignment:
    if wide := [name for name in own if columns[name]]:
        raise DataProblem(
            f"column {wide[0]!r}: expected single values, got lists; if it is the whole input, call it {spec.name!r}"
        )
    width = 1 if not spec.shape else math.prod(spec.shape[1:])
    varies = spec.any_rank or ANY in spec.shape[1:]
    if not varies and width != len(own):
        hint = ""
        if by_order:
            hint = "; name those that are meant by --names" + ("" if target else ", and the label by --target")
        raise DataProblem(
            f"input {spec.name!r}: expected {width} columns, got {len(own)}: {_list(own)}{hint}"
        )  # fmt: skip
    given = tuple(missing.get((spec.name, at)) for at in range(len(own)))
    return Assignment(spec, tuple(own), stacked=True, missing=given)


def _takes(spec: TensorSpec, shape: tuple[int, ...]) -> bool:
    """Whether rows of this shape may be an input's."""
    return spec.any_rank or VARIES in shape or _fits(spec.shape[1:], shape)


def _fits(declared: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    if len(declared) == len(shape):
        return all(axis in (ANY, size) for axis, size in zip(declared, shape, strict=True))
    return (ANY not in declared and math.prod(declared) == math.prod(shape)) or (declared == (ANY,) and shape == ())


def _with_any(declared: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The declared shape of a row with sizes for ANY; as it is where it does not fit, for ONNX Runtime to refuse."""
    if len(declared) == len(shape):
        return shape
    return (math.prod(shape),) if len(declared) == 1 else shape


def _converted(column: Column, spec: TensorSpec, name: str, first_row: int, missing: float | None) -> Array:
    """[rows, ...] of the input's datatype."""
    values, nulls, datatype = column.values, column.nulls, spec.datatype
    if datatype == "BYTES":
        return _texts(values, nulls)
    if values.dtype.kind in "OUS":
        raise DataProblem(
            f"column {name!r} holds texts, but input {spec.name!r} takes {datatype}: convert it as clients do"
        )
    if values.dtype.kind == "V" and values.dtype.itemsize == 2 and datatype == "BF16":
        return values.view("<u2")
    if values.dtype.kind not in "biuf":
        raise DataProblem(f"column {name!r} is of {values.dtype}; input {spec.name!r} takes {datatype}")
    floats = datatype in ("FP16", "BF16", "FP32", "FP64")
    if nulls is not None and nulls.any():
        if missing is None and not floats:
            raise DataProblem(
                f"column {name!r}: there is no value in row {first_row + int(np.argmax(nulls)) + 1}, and no {datatype} "
                "stands for that: fill it as clients do, or set `missing` of the feature, under statistics.features in "
                "model.yaml, to the number that clients send"
            )
        values = _filled(values, nulls, np.nan if missing is None else missing)
    if datatype == "BF16":
        return values if values.dtype == np.uint16 else _bf16(values)
    dtype = BY_NAME[datatype].numpy
    if values.dtype == dtype:
        return values
    if floats:
        with np.errstate(over="ignore"):  # beyond the datatype's range is infinite, as in the clients
            return values.astype(dtype)
    return _whole(values, spec, name, first_row)


def _filled(values: Array, nulls: Array, missing: float) -> Array:
    if values.dtype.kind in "iu" and float(missing).is_integer():
        limits = np.iinfo(values.dtype)
        if limits.min <= missing <= limits.max:  # by way of floats, large integers would be rounded
            return np.where(nulls, np.array(int(missing), values.dtype), values)
    return np.where(nulls, missing, values)


def _texts(values: Array, nulls: Array | None) -> Array:
    """object[rows, ...] of str: bytes are UTF-8, what is missing is the empty text, numbers are as Python has them."""
    texts = [_text(value) for value in values.ravel().tolist()]
    if nulls is not None:
        texts = ["" if null else text for text, null in zip(texts, nulls.tolist(), strict=True)]
    made: Array = np.empty(len(texts), object)
    made[:] = texts
    return made.reshape(values.shape)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _bf16(values: Array) -> Array:
    """The upper halves of float32, to the nearest, ties to even."""
    with np.errstate(over="ignore"):
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded.astype(np.uint16))


def _whole(values: Array, spec: TensorSpec, name: str, first_row: int) -> Array:
    """As integers or booleans, if that changes no value."""
    dtype = BY_NAME[spec.datatype].numpy
    with np.errstate(invalid="ignore"):
        converted = values.astype(dtype)
        # float64 rounds integers from 2^53 on, so the way back must be to the values' own dtype
        wrong = converted.astype(values.dtype) != values
        if values.dtype.kind in "iuf" and dtype.kind in "iu":
            limits = np.iinfo(dtype)
            wrong |= (values < limits.min) | (values > limits.max)
    if wrong.any():
        row = int(np.argmax(wrong.reshape(len(wrong), -1).any(axis=1)))
        raise DataProblem(
            f"column {name!r}: {values[row].tolist()!r} in row {first_row + row + 1} is no {spec.datatype}, which "
            f"input {spec.name!r} takes"
        )
    return converted


def _list(names: Iterable[str]) -> str:
    every = [repr(name[:80]) for name in names]
    return ", ".join(every[:SHOWN]) + (f" and {len(every) - SHOWN} more" if len(every) > SHOWN else "")


def _close(absent: Sequence[str], there: Iterable[str]) -> str:
    known = list(there)
    close = [match for name in absent[:1] for match in difflib.get_close_matches(name, known, 1)]
    return f"; did you mean {close[0]!r}?" if close else ""
