"""Hashing of texts, and counting of hashed values. keys.py, frequent.py and categories.py say what they promise."""

from __future__ import annotations

import numpy as np
from numba import int64, types, uint8, uint64, void

from runtime.kernels import inline, kernel

BYTES_IN = types.Array(uint8, 1, "C", readonly=True)
TEXTS = types.Array(uint8, 2, "C")
WORDS = types.Array(int64, 1, "C")
HASHES = types.Array(uint64, 1, "C")

TOTAL, OFFSET, USED = range(3)
"""Words of the head of frequent values."""

TEXT_BYTES = 64
TEXT_LENGTH, TEXT_CUT, TEXT_AT = 0, 1, 2
"""Of a kept text: its length, whether it was longer, and where it begins."""
MOST_TEXT_BYTES = TEXT_BYTES - TEXT_AT

_M = uint64(0xC6A4A7935BD1E995)
_R = uint64(47)


@kernel(void(BYTES_IN, WORDS, HASHES))
def hash_texts(data, ends, hashes):  # type: ignore[no-untyped-def]
    """MurmurHash64A (Austin Appleby, public domain) with seed 0 of each text; data holds one after the other."""
    start = 0
    for i in range(len(ends)):
        length = ends[i] - start
        hashed = uint64(length) * _M
        whole = start + (length & ~7)
        for at in range(start, whole, 8):
            word = uint64(0)
            for byte in range(8):
                word |= uint64(data[at + byte]) << uint64(8 * byte)
            word *= _M
            word ^= word >> _R
            hashed = (hashed ^ (word * _M)) * _M
        if length & 7:
            word = uint64(0)
            for byte in range(length & 7):
                word |= uint64(data[whole + byte]) << uint64(8 * byte)
            hashed = (hashed ^ word) * _M
        hashed ^= hashed >> _R
        hashed *= _M
        hashes[i] = hashed ^ (hashed >> _R)
        start = ends[i]


@inline
def _find(hashes, counts, hashed):  # type: ignore[no-untyped-def]
    """The slot of a value, or the free one where it belongs: counts are 0 in free slots, and some always are."""
    mask = uint64(len(hashes) - 1)
    slot = hashed & mask
    while counts[slot] and hashes[slot] != hashed:
        slot = (slot + uint64(1)) & mask
    return slot


@kernel(void(WORDS, HASHES, WORDS, TEXTS))
def _purge(head, hashes, counts, texts):  # type: ignore[no-untyped-def]
    """Takes the count of the one after the first half of all slots, by rank, from all: the half at most is left."""
    less = np.sort(counts)[len(counts) // 2 - 1]
    old_hashes, old_counts, old_texts = hashes.copy(), counts.copy(), texts.copy()
    counts[:] = 0
    hashes[:] = 0
    texts[:] = 0
    used = 0
    for old in range(len(old_counts)):
        if old_counts[old] > less:
            slot = _find(hashes, counts, old_hashes[old])
            hashes[slot] = old_hashes[old]
            counts[slot] = old_counts[old] - less
            texts[slot] = old_texts[old]
            used += 1
    head[OFFSET] += less
    head[USED] = used


@inline
def _limit(slots):  # type: ignore[no-untyped-def]
    return slots - slots // 4


@kernel(void(BYTES_IN, WORDS, HASHES, WORDS, HASHES, WORDS, TEXTS))
def add_keys(data, ends, new, head, hashes, counts, texts):  # type: ignore[no-untyped-def]
    """Counts values by their hashes `new`, and keeps the beginnings of their texts."""
    for i in range(len(new)):
        head[TOTAL] += 1
        slot = _find(hashes, counts, new[i])
        if counts[slot]:
            counts[slot] += 1
            continue
        if head[USED] >= _limit(len(hashes)):
            _purge(head, hashes, counts, texts)
            slot = _find(hashes, counts, new[i])
        start = ends[i - 1] if i else 0
        length = ends[i] - start
        kept = min(length, MOST_TEXT_BYTES)
        hashes[slot] = new[i]
        counts[slot] = 1
        texts[slot, TEXT_LENGTH] = kept
        texts[slot, TEXT_CUT] = length > kept
        for byte in range(kept):
            texts[slot, TEXT_AT + byte] = data[start + byte]
        head[USED] += 1


@kernel(void(WORDS, HASHES, WORDS, TEXTS, WORDS, HASHES, WORDS, TEXTS))
def merge_keys(head, hashes, counts, texts, other_head, other_hashes, other_counts, other_texts):  # type: ignore[no-untyped-def]
    for other in range(len(other_counts)):
        if not other_counts[other]:
            continue
        slot = _find(hashes, counts, other_hashes[other])
        if not counts[slot]:
            if head[USED] >= _limit(len(hashes)):
                _purge(head, hashes, counts, texts)
                slot = _find(hashes, counts, other_hashes[other])
            hashes[slot] = other_hashes[other]
            texts[slot] = other_texts[other]
            head[USED] += 1
        counts[slot] += other_counts[other]
    head[TOTAL] += other_head[TOTAL]
    head[OFFSET] += other_head[OFFSET]


@kernel(void(HASHES, HASHES, WORDS, WORDS))
def count_declared(new, declared, places, counts):  # type: ignore[no-untyped-def]
    """Counts values that are declared at their places, others at the place after all declared ones.

    declared: ascending hashes; places: where each counts.
    """
    for i in range(len(new)):
        at = np.searchsorted(declared, new[i])
        if at < len(declared) and declared[at] == new[i]:
            counts[places[at]] += 1
        else:
            counts[len(declared)] += 1
