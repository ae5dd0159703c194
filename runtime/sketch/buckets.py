"""Buckets of a base-2 exponential histogram: exact, from a float's bits.

At scale s, bucket i holds the magnitudes in (2^(i / 2^s), 2^((i + 1) / 2^s)], as in OpenTelemetry's data model
("Exponential Histogram"). A magnitude read from its bucket as `representatives` gives it is within `relative_error(s)`
of the true one. A bucket at scale s - 1 is two of scale s: i >> 1 (ibid., "perfect subsetting").

At MAX_SCALE there are 32 buckets an octave. The bounds are no powers of two (but the first), so no float lies on one,
and the comparison of 52 bits of mantissa with a bound's first 52 bits is exact. The narrowest bucket is wider than
1/64 of an octave's base, so each of 64 cells of the mantissa holds at most one bound: the first 6 bits find it.
"""

from __future__ import annotations

import math
from math import isqrt

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MAX_SCALE = 5
"""Relative error 1.083 %."""

MIN_SCALE = -3
"""Here all of float64's 2,098 octaves lie in 264 buckets; no coarser scale is ever needed."""

PER_OCTAVE = 1 << MAX_SCALE
MANTISSA_BITS = 52
CELL_BITS = 6


def _first_bits(bound: int) -> int:
    """Of 2^(bound / 32) - 1, the first 52 bits: the 32nd root is five square roots, and isqrt rounds down."""
    root: int = 1 << (bound + MANTISSA_BITS * PER_OCTAVE)
    for _ in range(MAX_SCALE):
        root = isqrt(root)
    return root - (1 << MANTISSA_BITS)


def _cells() -> npt.NDArray[np.uint64]:
    """For each cell of the mantissa what makes `(mantissa + cell) >> 52` the number of bounds below the value.

    That is the number of bounds below the cell, in the upper bits, and a summand that carries into them where the
    mantissa is above the bound within the cell.
    """
    one = 1 << MANTISSA_BITS
    bounds = [_first_bits(bound) for bound in range(PER_OCTAVE)]
    cells = []
    for cell in range(1 << CELL_BITS):
        start = cell << (MANTISSA_BITS - CELL_BITS)
        end = start + (1 << (MANTISSA_BITS - CELL_BITS))
        below = sum(bound < start for bound in bounds)
        within = [bound for bound in bounds if start <= bound < end]
        cells.append((below << MANTISSA_BITS) + sum(one - 1 - bound for bound in within))
    return np.array(cells, np.uint64)


CELLS = _cells()
_OCTAVE = np.array([((1 << MANTISSA_BITS) + _first_bits(k)) / (1 << MANTISSA_BITS) for k in range(PER_OCTAVE)])


def bounds(indices: Ints, scale: int) -> Floats:
    """Lower bounds of the buckets, to float64's precision: 0 or infinity where they are beyond its range.

    indices: int64[n].
    """
    return _within(indices, scale, 1.0)


def representatives(indices: Ints, scale: int) -> Floats:
    """The magnitudes that stand for the buckets: 2 low high / (low + high), equally far from both in relative terms.

    As in DDSketch (Masson, Rim, Lee, PVLDB 12(12), 2019, lemma 2). indices: int64[n].
    """
    base = _base(scale)
    return _within(indices, scale, 2 * base / (1 + base))


def _within(indices: Ints, scale: int, factor: float) -> Floats:
    """Lower bounds times a factor, rounded once where the result is subnormal."""
    if scale < 0:
        values, octaves = np.full(len(indices), factor), indices << -scale
    else:
        part = (indices & ((1 << scale) - 1)) << (MAX_SCALE - scale)
        values, octaves = _OCTAVE[part] * factor, indices >> scale
    with np.errstate(over="ignore", under="ignore"):
        scaled: Floats = np.ldexp(values, octaves.astype(np.int32))
    return scaled


def relative_error(scale: int) -> float:
    """The most by which a representative differs from a magnitude of its bucket, as a share of it."""
    base = _base(scale)
    return (base - 1) / (base + 1)


def _base(scale: int) -> float:
    return math.exp2(math.exp2(-scale))
