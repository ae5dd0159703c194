"""Counting into exponential histograms. runtime/sketch/exponential.py says what they promise, layout.py where they lie.

Values come as the bits of float64, in int64, a tile of one column at a time: finite, in range, and zero as +0.0.
Magnitudes order as their bits do.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, int64, types, uint32, void

from runtime.kernels import inline, kernel
from runtime.sketch.buckets import CELL_BITS, CELLS, MANTISSA_BITS, MAX_SCALE, MIN_SCALE
from runtime.sketch.layout import (
    BUCKETS,
    COARSENING,
    MOST_COUNTED,
    NEGATIVE,
    NEGATIVE_GREATEST,
    NEGATIVE_LEAST,
    POSITIVE,
    POSITIVE_GREATEST,
    POSITIVE_LEAST,
    ZERO,
)

WORDS = types.Array(int64, 1, "C")
HEADS = types.Array(int64, 2, "C")
COUNTS = types.Array(uint32, 3, "C")

_SIGN = int(np.int64(-(1 << 63)))
_MAGNITUDE = (1 << 63) - 1
_MANTISSA = (1 << MANTISSA_BITS) - 1
_LEAST_NORMAL = 1 << MANTISSA_BITS
_CELL_SHIFT = MANTISSA_BITS - CELL_BITS
_CELL_MASK = (1 << CELL_BITS) - 1
_CELLS = CELLS.view(np.int64)
_BIAS = (1023 << MAX_SCALE) + 1
_MASK = BUCKETS - 1
_COARSEST = MAX_SCALE - MIN_SCALE
_FULL = uint32(MOST_COUNTED)
_ONE = uint32(1)


@inline
def _index_of_normal(magnitude):  # type: ignore[no-untyped-def]
    """The bucket at MAX_SCALE of a normal float64, from its bits without the sign."""
    mantissa = magnitude & _MANTISSA
    below = (mantissa + _CELLS[(magnitude >> _CELL_SHIFT) & _CELL_MASK]) >> MANTISSA_BITS
    return ((magnitude >> MANTISSA_BITS) << MAX_SCALE) + below - _BIAS


@kernel(int64(int64))
def index_of(magnitude):  # type: ignore[no-untyped-def]
    """The same for any float64 above 0: a subnormal one is made normal first."""
    octaves = 0
    while magnitude < _LEAST_NORMAL:
        magnitude <<= 1
        octaves += 1
        if magnitude >= _LEAST_NORMAL:
            break
    return _index_of_normal(magnitude) - (octaves << MAX_SCALE)


@kernel(boolean(int64, int64, int64))
def _fits(least, greatest, coarsening):  # type: ignore[no-untyped-def]
    return (index_of(greatest) >> coarsening) - (index_of(least) >> coarsening) < BUCKETS


@inline
def _added(count, more):  # type: ignore[no-untyped-def]
    """Without wrapping."""
    room = _FULL - count
    return count + more if more < room else _FULL


@kernel(void(COUNTS, int64, int64, int64, int64, int64, int64))
def _collapse(counts, sign, feature, least, greatest, coarsening, by):  # type: ignore[no-untyped-def]
    """Makes one bucket of each 2^by. least and greatest: extremes of what the buckets hold."""
    collapsed = np.zeros(BUCKETS, np.uint32)
    for index in range(index_of(least) >> coarsening, (index_of(greatest) >> coarsening) + 1):
        place = (index >> by) & _MASK
        collapsed[place] = _added(collapsed[place], counts[sign, feature, index & _MASK])
    counts[sign, feature, :] = collapsed


@kernel(int64(HEADS, COUNTS, int64, int64, int64, int64, int64, int64))
def make_room(heads, counts, feature, at_least, p_least, p_greatest, n_least, n_greatest):  # type: ignore[no-untyped-def]
    """Coarsens until the extremes of either sign fit beside what is there; returns the coarsening.

    Extremes are bits of magnitudes, of what is there and what comes; a sign of which nothing comes has a greatest of 0.
    """
    before = heads[feature, COARSENING]
    after = max(before, at_least)
    while after < _COARSEST and p_greatest and not _fits(p_least, p_greatest, after):
        after += 1
    while after < _COARSEST and n_greatest and not _fits(n_least, n_greatest, after):
        after += 1
    if after > before:
        if heads[feature, POSITIVE]:
            least, greatest = heads[feature, POSITIVE_LEAST], heads[feature, POSITIVE_GREATEST]
            _collapse(counts, 0, feature, least, greatest, before, after - before)
        if heads[feature, NEGATIVE]:
            least, greatest = heads[feature, NEGATIVE_LEAST], heads[feature, NEGATIVE_GREATEST]
            _collapse(counts, 1, feature, least, greatest, before, after - before)
        heads[feature, COARSENING] = after
    return after


@inline
def _count_words(words, count, slots, heads, counts, feature, least):  # type: ignore[no-untyped-def]
    """Counts values by their bits, none of them zero. least: of their magnitudes. slots may be the same memory."""
    coarsening = heads[feature, COARSENING]
    start, to_negative = feature * BUCKETS, len(heads) * BUCKETS
    if least >= _LEAST_NORMAL and heads[feature, POSITIVE] + heads[feature, NEGATIVE] < MOST_COUNTED:
        for i in range(count):  # apart from the counting, so that the compiler makes vectors of it
            index = _index_of_normal(words[i] & _MAGNITUDE) >> coarsening
            slots[i] = start + ((words[i] >> 63) & to_negative) + (index & _MASK)
        for i in range(count):
            counts[0, 0, slots[i]] += _ONE  # no bucket can be full
    else:
        for i in range(count):
            index = index_of(words[i] & _MAGNITUDE) >> coarsening
            place = start + ((words[i] >> 63) & to_negative) + (index & _MASK)
            counts[0, 0, place] = _added(counts[0, 0, place], _ONE)


@inline
def count_column(words, count, slots, heads, counts, feature):  # type: ignore[no-untyped-def]
    """Counts values into the histogram `feature`. words: their bits, int64[>= count]; slots: as many, overwritten."""
    p_least, p_greatest = _MAGNITUDE, 0
    n_least, n_greatest = _MAGNITUDE, 0
    positive = 0
    zero = 0
    for i in range(count):  # without branches, so that the compiler makes vectors of it
        word = words[i]
        turned = word ^ _SIGN
        p_least = min(p_least, word if word > 0 else _MAGNITUDE)
        n_least = min(n_least, turned if turned > 0 else _MAGNITUDE)
        p_greatest = max(p_greatest, word)
        n_greatest = max(n_greatest, turned)
        positive += word > 0
        zero += word == 0
    least = min(p_least, n_least)
    negative = count - positive - zero
    before_p, before_n = heads[feature, POSITIVE], heads[feature, NEGATIVE]
    known_p_least = heads[feature, POSITIVE_LEAST] if before_p else _MAGNITUDE
    known_n_least = heads[feature, NEGATIVE_LEAST] if before_n else _MAGNITUDE
    known_p_greatest, known_n_greatest = heads[feature, POSITIVE_GREATEST], heads[feature, NEGATIVE_GREATEST]
    if (
        p_least < known_p_least
        or n_least < known_n_least
        or p_greatest > known_p_greatest
        or n_greatest > known_n_greatest
    ):
        p_least, n_least = min(p_least, known_p_least), min(n_least, known_n_least)
        p_greatest, n_greatest = max(p_greatest, known_p_greatest), max(n_greatest, known_n_greatest)
        make_room(heads, counts, feature, 0, p_least, p_greatest, n_least, n_greatest)
        if p_greatest:
            heads[feature, POSITIVE_LEAST], heads[feature, POSITIVE_GREATEST] = p_least, p_greatest
        if n_greatest:
            heads[feature, NEGATIVE_LEAST], heads[feature, NEGATIVE_GREATEST] = n_least, n_greatest
    heads[feature, POSITIVE] += positive
    heads[feature, NEGATIVE] += negative
    heads[feature, ZERO] += zero
    if zero:
        kept = 0
        for i in range(count):
            slots[kept] = words[i]
            kept += words[i] != 0
        _count_words(slots, kept, slots, heads, counts, feature, least)
    else:
        _count_words(words, count, slots, heads, counts, feature, least)


@kernel(void(HEADS, COUNTS, int64, HEADS, COUNTS, int64))
def merge_histogram(heads, counts, feature, other_heads, other_counts, other):  # type: ignore[no-untyped-def]
    """Adds the histogram `other` of the second arrays to `feature` of the first."""
    head = heads[feature]
    theirs = other_heads[other]
    extremes = np.zeros((2, 2), np.int64)
    for sign in range(2):
        counted, least, greatest = POSITIVE + sign, POSITIVE_LEAST + 2 * sign, POSITIVE_GREATEST + 2 * sign
        extremes[sign, 0] = _MAGNITUDE
        for each in (head, theirs):
            if each[counted]:
                extremes[sign, 0] = min(extremes[sign, 0], each[least])
                extremes[sign, 1] = max(extremes[sign, 1], each[greatest])
    after = make_room(
        heads, counts, feature, theirs[COARSENING], extremes[0, 0], extremes[0, 1], extremes[1, 0], extremes[1, 1]
    )
    for sign in range(2):
        if not theirs[POSITIVE + sign]:
            continue
        coarsening = theirs[COARSENING]
        least = index_of(theirs[POSITIVE_LEAST + 2 * sign]) >> coarsening
        greatest = index_of(theirs[POSITIVE_GREATEST + 2 * sign]) >> coarsening
        for index in range(least, greatest + 1):
            place = (index >> (after - coarsening)) & _MASK
            more = other_counts[sign, other, index & _MASK]
            counts[sign, feature, place] = _added(counts[sign, feature, place], more)
    for sign in range(2):
        if extremes[sign, 1]:
            head[POSITIVE_LEAST + 2 * sign] = extremes[sign, 0]
            head[POSITIVE_GREATEST + 2 * sign] = extremes[sign, 1]
    for field in range(COARSENING):
        head[field] += theirs[field]


@kernel(void(HEADS, COUNTS, int64, int64))
def coarsen(heads, counts, feature, coarsening):  # type: ignore[no-untyped-def]
    """Brings the histogram to a coarser scale; one that is as coarse stays as it is."""
    make_room(heads, counts, feature, min(coarsening, _COARSEST), 0, 0, 0, 0)
