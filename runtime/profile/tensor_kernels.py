"""What is made of a row before it is measured: sums of dense rows; the greatest of scores, and its distance."""

from __future__ import annotations

import math

import numpy as np
from numba import float32, float64, int8, int16, int32, int64, types, uint8, uint16, uint32, uint64, void

from runtime.kernels import kernel

NORM, MEAN, ZEROS, FIRST_PROJECTION = range(4)

_PLACES = types.Array(int64, 2, "C")
_SIGNS = types.Array(float64, 2, "C")
_SUMS = types.Array(float64, 2, "C")
_COUNTS = types.Array(int64, 1, "C")


def _sum_up(values, places, signs, sums):  # type: ignore[no-untyped-def]
    """values: [rows, width]; sums: float64[rows, 3 + projections], where places: int64[projections, terms]."""
    rows, width = values.shape
    for row in range(rows):
        squares, total = 0.0, 0.0
        zeros = 0
        for column in range(width):
            value = float64(values[row, column])
            squares += value * value
            total += value
            zeros += value == 0.0
        sums[row, NORM] = math.sqrt(squares)
        sums[row, MEAN] = total / width
        sums[row, ZEROS] = zeros / width
        for projection in range(places.shape[0]):
            projected = 0.0
            for term in range(places.shape[1]):
                projected += signs[projection, term] * float64(values[row, places[projection, term]])
            sums[row, FIRST_PROJECTION + projection] = projected


def _signature(element):  # type: ignore[no-untyped-def]
    return void(types.Array(element, 2, "C", readonly=True), _PLACES, _SIGNS, _SUMS)


_ELEMENTS = (float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64)
sum_up = kernel(*map(_signature, _ELEMENTS), nogil=True, allocates=False)(_sum_up)


@kernel(
    *(
        void(types.Array(element, 2, "C", readonly=True), float64, _SUMS, _COUNTS, _COUNTS)
        for element in (float32, float64)
    ),
    nogil=True,
    allocates=False,
)
def judge(scores, reject_below, judged, classes, rejected):  # type: ignore[no-untyped-def]
    """scores: [rows, classes]. judged: float64[rows, n + 2], where n is 0 or the number of classes: the scores, the
    greatest, and how far it is from the second greatest. classes: int64[classes + 2] as in CategoryCounts; of equal
    scores the first is the class. Of a row with NaN there is no class: it counts as missing, and is NaN.
    rejected: int64[2], hits and rows.
    """
    rows, count = scores.shape
    each = judged.shape[1] - 2
    for row in range(rows):
        first, second = -np.inf, -np.inf
        at = 0
        whole = True
        for column in range(count):
            score = float64(scores[row, column])
            if each:
                judged[row, column] = score
            whole &= score == score  # noqa: PLR0124
            if score > first:
                second = first
                first = score
                at = column
            elif score > second:
                second = score
        if whole:
            judged[row, each] = first
            judged[row, each + 1] = first - second
            classes[at] += 1
            rejected[0] += first < reject_below
        else:
            judged[row, each] = np.nan
            judged[row, each + 1] = np.nan
            classes[count + 1] += 1
        rejected[1] += 1
