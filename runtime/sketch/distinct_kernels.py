"""Hashing values into the registers of HyperLogLog. runtime/sketch/distinct.py says what it promises."""

from __future__ import annotations

from numba import int64, types, uint8, uint64, void

from runtime.kernels import inline, kernel, leading_zeros
from runtime.sketch.exponential_kernels import WORDS

REGISTERS = types.Array(uint8, 2, "C")
HASHES = types.Array(uint64, 1, "C")

_ONE = uint64(1)


@inline
def mixed(word):  # type: ignore[no-untyped-def]
    """The finalizer of splitmix64 (Steele, Lea, Flood, OOPSLA 2014; Stafford's variant 13): a bijection of uint64."""
    word = (word + uint64(0x9E3779B97F4A7C15)) & uint64(0xFFFFFFFFFFFFFFFF)
    word = (word ^ (word >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> uint64(27))) * uint64(0x94D049BB133111EB)
    return word ^ (word >> uint64(31))


@inline
def _raise(registers, feature, lg_k, hashed):  # type: ignore[no-untyped-def]
    """The first lg_k bits choose the register; it keeps the greatest rank of a first 1 among the others.

    The added bit ends the search: the rank is at most 65 - lg_k.
    """
    place = hashed >> (uint64(64) - lg_k)
    rank = leading_zeros((hashed << lg_k) | (_ONE << (lg_k - _ONE))) + _ONE
    registers[feature, place] = max(registers[feature, place], uint8(rank))


@kernel(void(WORDS, int64, REGISTERS, int64, uint64), allocates=False)
def add_words(words, count, registers, feature, lg_k):  # type: ignore[no-untyped-def]
    """Counts the values whose canonical bits are words[:count]."""
    for i in range(count):
        _raise(registers, feature, lg_k, mixed(uint64(words[i])))


@kernel(void(HASHES, REGISTERS, int64, uint64))
def add_hashes(hashes, registers, feature, lg_k):  # type: ignore[no-untyped-def]
    """Counts values by hashes that are already well mixed."""
    for i in range(len(hashes)):
        _raise(registers, feature, lg_k, hashes[i])


@kernel(void(REGISTERS, int64, REGISTERS, int64))
def merge_registers(registers, feature, other_registers, other):  # type: ignore[no-untyped-def]
    for place in range(registers.shape[1]):
        registers[feature, place] = max(registers[feature, place], other_registers[other, place])
