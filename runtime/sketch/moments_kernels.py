"""Adding columns to moments and co-moments. runtime/sketch/moments.py says what they promise."""

from __future__ import annotations

import numpy as np
from numba import boolean, float64, int64, types, void

from runtime.kernels import inline, kernel
from runtime.sketch.layout import C_XY, COUNT, M2, M2_X, M2_Y, MEAN, MEAN_X, MEAN_Y, PAIRS

FLOATS = types.Array(float64, 1, "C")
MOMENTS = types.Array(float64, 2, "C")


@kernel(float64(FLOATS, int64), allocates=False)
def _mean(values, count):  # type: ignore[no-untyped-def]
    """In four sums: quicker than one, and as exact or more."""
    a = b = c = d = 0.0
    whole = count - count % 4
    for i in range(0, whole, 4):
        a += values[i]
        b += values[i + 1]
        c += values[i + 2]
        d += values[i + 3]
    for i in range(whole, count):
        a += values[i]
    return ((a + b) + (c + d)) / count


@kernel(float64(FLOATS, float64, FLOATS, float64, int64), allocates=False)
def _products(left, left_mean, right, right_mean, count):  # type: ignore[no-untyped-def]
    """The sum of products of deviations from means, with the rounding of the means taken out.

    Chan, Golub, LeVeque, "Algorithms for computing the sample variance", 1983, equation 1.7.
    """
    a = b = c = d = 0.0
    left_rest = right_rest = 0.0
    whole = count - count % 4
    for i in range(0, whole, 4):
        a += (left[i] - left_mean) * (right[i] - right_mean)
        b += (left[i + 1] - left_mean) * (right[i + 1] - right_mean)
        c += (left[i + 2] - left_mean) * (right[i + 2] - right_mean)
        d += (left[i + 3] - left_mean) * (right[i + 3] - right_mean)
        left_rest += (left[i] - left_mean + (left[i + 1] - left_mean)) + (
            left[i + 2] - left_mean + (left[i + 3] - left_mean)
        )
        right_rest += (right[i] - right_mean + (right[i + 1] - right_mean)) + (
            right[i + 2] - right_mean + (right[i + 3] - right_mean)
        )
    for i in range(whole, count):
        a += (left[i] - left_mean) * (right[i] - right_mean)
        left_rest += left[i] - left_mean
        right_rest += right[i] - right_mean
    return ((a + b) + (c + d)) - left_rest * right_rest / count


@inline
def _add(row, count, mean, m2):  # type: ignore[no-untyped-def]
    """Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm", 1979."""
    total = row[COUNT] + count
    delta = mean - row[MEAN]
    row[MEAN] += delta * (count / total)
    row[M2] += m2 + delta * delta * (row[COUNT] * (count / total))
    row[COUNT] = total


@inline
def _add_pairs(row, pairs, mean_x, mean_y, m2_x, m2_y, c_xy):  # type: ignore[no-untyped-def]
    total = row[PAIRS] + pairs
    weight = row[PAIRS] * (pairs / total)
    x, y = mean_x - row[MEAN_X], mean_y - row[MEAN_Y]
    row[MEAN_X] += x * (pairs / total)
    row[MEAN_Y] += y * (pairs / total)
    row[M2_X] += m2_x + x * x * weight
    row[M2_Y] += m2_y + y * y * weight
    row[C_XY] += c_xy + x * y * weight
    row[PAIRS] = total


@kernel(void(FLOATS, FLOATS, int64, boolean, boolean, MOMENTS, int64), allocates=False)
def add_column(values, others, count, paired, complete, moments, feature):  # type: ignore[no-untyped-def]
    """Adds values[:count] and, where `paired`, the pairs with others[:count] to the moments `feature`.

    `complete`: all of `others` are finite; else values and others are overwritten by the pairs that are.
    """
    if not count:
        return
    row = moments[feature]
    mean = _mean(values, count)
    m2 = max(_products(values, mean, values, mean, count), 0.0)
    _add(row, float64(count), mean, m2)
    if not paired:
        return
    if not complete:
        kept = 0
        for i in range(count):
            values[kept] = values[i]
            others[kept] = others[i]
            kept += np.isfinite(others[i])
        count = kept
        if not count:
            return
        mean = _mean(values, count)
        m2 = max(_products(values, mean, values, mean, count), 0.0)
    other_mean = _mean(others, count)
    other_m2 = max(_products(others, other_mean, others, other_mean, count), 0.0)
    product = _products(values, mean, others, other_mean, count)
    _add_pairs(row, float64(count), mean, other_mean, m2, other_m2, product)


@kernel(void(MOMENTS, int64, MOMENTS, int64))
def merge_moments(moments, feature, other_moments, other):  # type: ignore[no-untyped-def]
    row, theirs = moments[feature], other_moments[other]
    if theirs[COUNT]:
        _add(row, theirs[COUNT], theirs[MEAN], theirs[M2])
    if theirs[PAIRS]:
        _add_pairs(
            row, theirs[PAIRS], theirs[MEAN_X], theirs[MEAN_Y], theirs[M2_X], theirs[M2_Y], theirs[C_XY]
        )  # fmt: skip
