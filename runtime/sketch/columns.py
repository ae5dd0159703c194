"""Checks what comes to a sketch, and hands it to the kernel of its dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.sketch.block_kernels import observe_floats, observe_integers
from runtime.sketch.errors import BadValues
from runtime.sketch.layout import MOMENT_WORDS

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_] | npt.NDArray[np.uint8]

NO_MOMENTS: npt.NDArray[np.float64] = np.zeros((0, MOMENT_WORDS))
NO_REGISTERS: npt.NDArray[np.uint8] = np.zeros((0, 0), np.uint8)
NO_LG_K = np.uint64(0)
NO_SETTINGS: npt.NDArray[np.float64] = np.array([[-np.inf, np.inf, np.nan]])
"""Any finite value is in range, and none stands for a missing one."""

_NO_MASK: npt.NDArray[np.uint8] = np.zeros((0, 0), np.uint8)
_NO_PREDICTION: npt.NDArray[np.float64] = np.zeros(0)
_BYTE = np.dtype(np.uint8)
_DOUBLE = np.dtype(np.float64)

_KERNELS = dict.fromkeys("fd", observe_floats) | dict.fromkeys("bhilqBHILQ", observe_integers)
"""By the dtype's character; booleans are seen as uint8, halves widened to float32."""


def observe_columns(
    values: Array,
    prediction: Array | None,
    missing: Mask | None,
    state: tuple[Array, Array, Array, Array, Array, np.uint64],
) -> None:
    """Adds a block to state: settings, heads, counts, moments, registers, lg_k.

    values: [rows, features], C-contiguous, of the machine's byte order. Raises BadValues for another.
    """
    dtype = values.dtype
    kernel = _KERNELS.get(dtype.char)
    features = len(state[1])
    if values.ndim != 2 or values.shape[1] != features:
        raise BadValues(f"expected values of shape [rows, {features}], got {list(values.shape)}")
    if not values.flags.c_contiguous:
        raise BadValues("expected C-contiguous values, got strided ones: use np.ascontiguousarray")
    if kernel is None or not dtype.isnative:
        values, kernel = _converted(values)
    if missing is None:
        mask: Array = _NO_MASK
    else:
        mask = _mask(missing, values.shape)
    others = _NO_PREDICTION if prediction is None else _prediction(prediction, len(values))
    kernel(values, mask, others, *state)


def _converted(values: Array) -> tuple[Array, Any]:
    if values.dtype.char == "?":
        return values.view(_BYTE), observe_integers
    if values.dtype.char == "e" and values.dtype.isnative:
        return values.astype(np.float32), observe_floats
    raise BadValues(f"expected floats, integers or booleans in the machine's byte order, got {values.dtype}")


def _mask(missing: Mask, shape: tuple[int, ...]) -> Array:
    if missing.shape != shape or missing.dtype.char not in "?B":
        raise BadValues(
            f"expected a mask of bool or uint8 and shape {list(shape)}, got {missing.dtype} {list(missing.shape)}"
        )
    return np.ascontiguousarray(missing).view(_BYTE)


def _prediction(prediction: Array, rows: int) -> Array:
    if prediction.shape != (rows,) or prediction.dtype.kind not in "fiub":
        raise BadValues(f"expected {rows} numbers as prediction, got {prediction.dtype} {list(prediction.shape)}")
    if prediction.dtype == _DOUBLE and prediction.flags.c_contiguous:
        return prediction
    return np.ascontiguousarray(prediction, np.float64)
