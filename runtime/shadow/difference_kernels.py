"""Two answers to the same rows, number by number, and the class of each row's scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, float64, int64, types, uint8, uint32, uint64, void

from runtime.kernels import kernel

DIFFERENCES, NOT_FINITE = range(2)

_FLAGS = types.Array(uint8, 1, "C")
_FLOATS = types.Array(float64, 1, "C")
_PAIRS = types.Array(float64, 2, "C")
_COUNTS = types.Array(int64, 1, "C")


def _in(element: Any) -> Any:
    return types.Array(element, 2, "C", readonly=True)


@kernel(
    *(
        void(
            _in(element), _in(element), _in(word), _in(word), float64, float64, _FLAGS, _FLAGS, _FLOATS, _PAIRS, _COUNTS
        )
        for element, word in ((float32, uint32), (float64, uint64))
    ),
    nogil=True,
    allocates=False,
)  # fmt: skip
def differ(first, second, first_bits, second_bits, absolute, relative, equal, close, worst, differences, counts):  # type: ignore[no-untyped-def]
    """first, second: float32 or float64[rows, width], of the primary and of the shadow; their bits beside them.

    Fills, of each row, equal (bit for bit), close, worst (the greatest relative difference of what is not close;
    infinite where one number is not finite, or the first is 0), and differences: float64[rows * width, 2], absolute and
    relative, of numbers that are finite in both. counts: int64[2], how many of these there are, and how many numbers
    differ where one is not finite.
    """
    rows, width = first.shape
    count, not_finite = 0, 0
    for row in range(rows):
        same, near = True, True
        greatest = 0.0
        for column in range(width):
            a, b = float64(first[row, column]), float64(second[row, column])
            same &= first_bits[row, column] == second_bits[row, column]
            if np.isfinite(a) and np.isfinite(b):
                difference = abs(a - b)
                share = 0.0 if difference == 0.0 else difference / abs(a)
                differences[count, 0] = difference
                differences[count, 1] = share
                count += 1
                if not difference <= absolute + relative * abs(a):
                    near = False
                    greatest = max(greatest, share)
            elif not (a == b or (np.isnan(a) and np.isnan(b))):
                not_finite += 1
                near = False
                greatest = np.inf
        equal[row] = same
        close[row] = near
        worst[row] = greatest
    counts[DIFFERENCES] = count
    counts[NOT_FINITE] = not_finite


@kernel(
    *(void(_in(element), _COUNTS, _FLOATS) for element in (float32, float64)),
    nogil=True,
    allocates=False,
)
def pick(scores, classes, margins):  # type: ignore[no-untyped-def]
    """scores: [rows, classes]. classes: the column of the greatest, of equal ones the first; -1 of a row with NaN.

    margins: how far the second greatest is below it; 0 of a row with NaN.
    """
    rows, count = scores.shape
    for row in range(rows):
        first, second = -np.inf, -np.inf
        at = 0
        whole = True
        for column in range(count):
            score = float64(scores[row, column])
            whole &= score == score  # noqa: PLR0124
            if score > first:
                second = first
                first = score
                at = column
            elif score > second:
                second = score
        classes[row] = at if whole else -1
        margins[row] = first - second if whole and first > second else 0.0


_CLASSES = types.Array(int64, 1, "C", readonly=True)
_COUNTED = types.Array(int64, 2, "C")


@kernel(int64(_CLASSES, _CLASSES, _COUNTED), nogil=True, allocates=False)
def pair_up(first, second, pairs):  # type: ignore[no-untyped-def]
    """first, second: int64[rows]. Fills pairs, int64[most, 3], with each pair of classes and the number of its rows.

    Returns how many pairs there are; -1 where they are more than there is room for.
    """
    distinct = 0
    for row in range(len(first)):
        x, y = first[row], second[row]
        at = 0
        while at < distinct and not (pairs[at, 0] == x and pairs[at, 1] == y):
            at += 1
        if at == distinct:
            if distinct == len(pairs):
                return -1
            pairs[at, 0], pairs[at, 1], pairs[at, 2] = x, y, 0
            distinct += 1
        pairs[at, 2] += 1
    return distinct
