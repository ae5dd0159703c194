"""One call for all values of a block: sorted out, then into histogram, distinct count and moments.

One kernel for each dtype takes a column's values out of the block, a tile of rows at a time; what follows is shared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import (
    boolean,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    types,
    uint8,
    uint16,
    uint32,
    uint64,
    void,
)

from runtime.kernels import inline, kernel
from runtime.sketch.distinct_kernels import REGISTERS, add_words, merge_registers
from runtime.sketch.exponential_kernels import COUNTS, HEADS, WORDS, count_column, merge_histogram
from runtime.sketch.layout import (
    ABOVE,
    BELOW,
    HIGH,
    LOW,
    MINUS_INFINITY,
    MISSING,
    NAN,
    PLUS_INFINITY,
    SENTINEL,
    SETTING_WORDS,
)
from runtime.sketch.moments_kernels import FLOATS, MOMENTS, add_column, merge_moments

MASK_IN = types.Array(uint8, 2, "C", readonly=True)
FLOATS_IN = types.Array(float64, 1, "C", readonly=True)
SETTINGS = types.Array(float64, 2, "C")

TILE_ROWS = 256
"""Rows that are taken at once: their columns stay in the first-level cache from one feature to the next."""

MAGNITUDE = (1 << 63) - 1
INFINITE = int(np.float64(np.inf).view(np.int64))
GREATEST = float(np.finfo(np.float64).max)


@inline
def _sort_out(value, masked, low, high, sentinel, head):  # type: ignore[no-untyped-def]
    """Counts a value that goes into no bucket."""
    if masked or value == sentinel:
        head[MISSING] += 1
    elif value != value:  # noqa: PLR0124
        head[NAN] += 1
    elif value == np.inf:
        head[PLUS_INFINITY] += 1
    elif value == -np.inf:
        head[MINUS_INFINITY] += 1
    elif value < low:
        head[BELOW] += 1
    elif value > high:
        head[ABOVE] += 1


@kernel(
    void(
        FLOATS, WORDS, WORDS, FLOATS, int64, boolean, boolean, WORDS, HEADS, COUNTS, MOMENTS, REGISTERS, uint64, int64
    ),
    allocates=False,
)
def _add_tile(  # type: ignore[no-untyped-def]
    column, bits, words, others, count, paired, complete, slots, heads, counts, moments, registers, lg_k, feature
):
    count_column(bits, count, slots, heads, counts, feature)
    if lg_k:
        add_words(words, count, registers, feature, lg_k)
    if len(moments):
        add_column(column, others, count, paired, complete, moments, feature)


@kernel(boolean(FLOATS_IN, int64, int64, FLOATS), allocates=False)
def _take_others(prediction, start, end, others):  # type: ignore[no-untyped-def]
    """The tile's predictions; whether all of them are finite."""
    complete = True
    for row in range(start, end):
        others[row - start] = prediction[row]
        complete &= np.isfinite(prediction[row])
    return complete


@kernel(boolean(FLOATS, WORDS, int64, float64, float64, float64), allocates=False)
def _all_within(column, bits, count, low, high, sentinel):  # type: ignore[no-untyped-def]
    """Without branches, so that the compiler makes vectors of it. False for NaN."""
    within = np.int64(0)
    if low == -GREATEST and high == GREATEST and sentinel != sentinel:  # noqa: PLR0124  # no settings: the quick way
        for i in range(count):
            within += np.int64((bits[i] & MAGNITUDE) < INFINITE)
        return within == count
    for i in range(count):
        value = column[i]
        within += np.int64(value >= low) & np.int64(value <= high) & np.int64(value != sentinel)
    return within == count


@kernel(int64(FLOATS, WORDS, FLOATS, int64, MASK_IN, int64, int64, float64, float64, float64, HEADS), allocates=False)
def _keep(column, words, others, count, missing, start, feature, low, high, sentinel, heads):  # type: ignore[no-untyped-def]
    """Moves what goes into buckets to the front, and counts what does not; returns how many do.

    words may be the same memory as column.
    """
    masked = missing.shape[0] > 0
    kept = 0
    for i in range(count):
        value, word, other = column[i], words[i], others[i]
        hidden = masked and missing[start + i, feature] != 0
        column[kept] = value
        words[kept] = word
        others[kept] = other
        if not hidden and value >= low and value <= high and value != sentinel:
            kept += 1
        else:
            _sort_out(value, hidden, low, high, sentinel, heads[feature])
    return kept


def _floats(values, missing, prediction, settings, heads, counts, moments, registers, lg_k):  # type: ignore[no-untyped-def]
    rows, features = values.shape
    masked = missing.shape[0] > 0
    paired = prediction.shape[0] > 0
    column, others = np.empty(TILE_ROWS), np.empty(TILE_ROWS)
    bits, slots = column.view(np.int64), np.empty(TILE_ROWS, np.int64)
    words = bits
    bounds, flat = np.empty(SETTING_WORDS, values.dtype), values.reshape(-1)
    complete = True
    for start in range(0, rows, TILE_ROWS):
        end = min(start + TILE_ROWS, rows)
        fresh = False
        for feature in range(features):
            if paired and not fresh:
                complete = _take_others(prediction, start, end, others)
                fresh = complete
            for setting in range(SETTING_WORDS):  # to the precision of the values: a float32 .1 is not above .1
                bounds[setting] = settings[feature, setting]
            sentinel = float64(bounds[SENTINEL])
            low, high = max(float64(bounds[LOW]), -GREATEST), min(float64(bounds[HIGH]), GREATEST)
            kept = end - start
            if features == 1:  # next to each other, which the compiler makes use of
                for i in range(kept):
                    column[i] = float64(flat[start + i]) + 0.0  # -0.0 is 0.0
            else:
                for i in range(kept):
                    column[i] = float64(values[start + i, feature]) + 0.0
            if masked or not _all_within(column, bits, kept, low, high, sentinel):
                kept = _keep(column, words, others, kept, missing, start, feature, low, high, sentinel, heads)
                fresh = False
            _add_tile(
                column,
                bits,
                words,
                others,
                kept,
                paired,
                complete,
                slots,
                heads,
                counts,
                moments,
                registers,
                lg_k,
                feature,
            )


def _integers(values, missing, prediction, settings, heads, counts, moments, registers, lg_k):  # type: ignore[no-untyped-def]
    rows, features = values.shape
    masked = missing.shape[0] > 0
    paired = prediction.shape[0] > 0
    column, others = np.empty(TILE_ROWS), np.empty(TILE_ROWS)
    bits, slots, words = column.view(np.int64), np.empty(TILE_ROWS, np.int64), np.empty(TILE_ROWS, np.int64)
    complete = True
    for start in range(0, rows, TILE_ROWS):
        end = min(start + TILE_ROWS, rows)
        fresh = False
        for feature in range(features):
            if paired and not fresh:
                complete = _take_others(prediction, start, end, others)
                fresh = complete
            low, high, sentinel = settings[feature, LOW], settings[feature, HIGH], settings[feature, SENTINEL]
            kept = end - start
            for i in range(kept):
                column[i] = float64(values[start + i, feature])
                words[i] = np.int64(values[start + i, feature])
            if masked or not _all_within(column, bits, kept, low, high, sentinel):
                kept = _keep(column, words, others, kept, missing, start, feature, low, high, sentinel, heads)
                fresh = False
            _add_tile(
                column,
                bits,
                words,
                others,
                kept,
                paired,
                complete,
                slots,
                heads,
                counts,
                moments,
                registers,
                lg_k,
                feature,
            )


def _signature(element: Any) -> Any:
    values = types.Array(element, 2, "C", readonly=True)
    return void(values, MASK_IN, FLOATS_IN, SETTINGS, HEADS, COUNTS, MOMENTS, REGISTERS, uint64)


_INTEGERS = (int8, int16, int32, int64, uint8, uint16, uint32, uint64)
observe_floats = kernel(*map(_signature, (float32, float64)), nogil=True)(_floats)
observe_integers = kernel(*map(_signature, _INTEGERS), nogil=True)(_integers)


@kernel(void(HEADS, COUNTS, MOMENTS, REGISTERS, HEADS, COUNTS, MOMENTS, REGISTERS), nogil=True)
def merge_blocks(heads, counts, moments, registers, other_heads, other_counts, other_moments, other_registers):  # type: ignore[no-untyped-def]
    for feature in range(len(heads)):
        merge_histogram(heads, counts, feature, other_heads, other_counts, feature)
        merge_moments(moments, feature, other_moments, feature)
        merge_registers(registers, feature, other_registers, feature)
