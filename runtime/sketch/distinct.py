"""How many different values: HyperLogLog.

Guarantee: relative standard error 1.04 / sqrt(2^lg_k), 1.62 % at lg_k 12, unbiased from 0 to 2^58 values.
Memory: 2^lg_k bytes: 4,096 at lg_k 12, 256 at lg_k 8 (6.5 %).
Merge: the greater of each two registers. The state depends only on which values were seen: any order and any tree of
merges gives the same bytes.

Values are hashed by their bits in a canonical form: floats of any width as float64, with -0.0 as 0.0; integers and
booleans of any width as int64 (so a uint64 from 2^63 is the negative integer with its bits); strings and bytes by their
UTF-8. Equal floats hash alike and equal integers do; an integer and a float do not. Only values that the histogram has
in its buckets or as zero are counted: no NaN, no infinity, nothing missing or out of range.

Flajolet, Fusy, Gandouet, Meunier, "HyperLogLog", AofA 2007; the estimator is Ertl's improved raw one ("New cardinality
estimation algorithms for HyperLogLog sketches", 2017, algorithm 6), which needs no special case for small counts.
"""

from __future__ import annotations

import math
from typing import Self

import numpy as np
import numpy.typing as npt

from runtime.sketch.distinct_kernels import add_hashes, add_words, merge_registers
from runtime.sketch.errors import BadValues, Malformed, NotMergeable
from runtime.sketch.layout import DEFAULT_LG_K, GREATEST_LG_K, LEAST_LG_K

Registers = npt.NDArray[np.uint8]

HASH_BITS = 64


def greatest_rank(lg_k: int) -> int:
    """The most that a register can hold."""
    return HASH_BITS - lg_k + 1


def relative_standard_error(lg_k: int) -> float:
    return 1.04 / math.sqrt(1 << lg_k)


class DistinctCount:
    """registers: uint8[1, 2^lg_k], in the caller's memory where a buffer is given; it holds zeros or registers.

    Raises ValueError for an lg_k outside of 4 to 16, Malformed for too small a buffer. One writer at a time.
    """

    def __init__(self, lg_k: int = DEFAULT_LG_K, buffer: bytearray | memoryview | None = None) -> None:
        if not LEAST_LG_K <= lg_k <= GREATEST_LG_K:
            raise ValueError(f"expected an lg_k of {LEAST_LG_K} to {GREATEST_LG_K}, got {lg_k}")
        size = 1 << lg_k
        memory = bytearray(size) if buffer is None else buffer
        if len(memory) < size:
            raise Malformed(f"expected {size} bytes or more for the registers, got {len(memory)}")
        self.lg_k = lg_k
        self.registers: Registers = np.frombuffer(memory, np.uint8, size).reshape(1, size)

    @classmethod
    def from_array(cls, registers: Registers) -> Self:
        """A copy of uint8[2^lg_k], as they lie in a block."""
        count = cls(len(registers).bit_length() - 1)
        count.registers[0] = registers
        return count

    def observe(self, values: npt.NDArray[np.generic]) -> None:
        """values: finite floats, integers or booleans of any shape; what is not finite is passed over.

        Raises BadValues for other dtypes.
        """
        if values.dtype.kind == "f":
            floats = values.astype(np.float64).ravel() + 0.0  # -0.0 is 0.0
            words = floats[np.isfinite(floats)].view(np.int64)
        elif values.dtype.kind in "iub":
            words = values.astype(np.int64).ravel()
        else:
            raise BadValues(f"expected floats, integers or booleans, got {values.dtype}")
        add_words(words, len(words), self.registers, 0, np.uint64(self.lg_k))

    def observe_hashes(self, hashes: npt.NDArray[np.uint64]) -> None:
        """hashes: uint64[n], well mixed: from runtime.sketch.texts."""
        add_hashes(hashes, self.registers, 0, np.uint64(self.lg_k))

    def merge(self, other: DistinctCount) -> None:
        """Adds what `other` has seen. Raises NotMergeable for another lg_k."""
        if other.lg_k != self.lg_k:
            raise NotMergeable(f"expected a distinct count of lg_k {self.lg_k}, got {other.lg_k}")
        merge_registers(self.registers, 0, other.registers, 0)

    def copy(self) -> DistinctCount:
        return DistinctCount.from_array(self.registers[0])

    def estimate(self) -> float:
        size, top = 1 << self.lg_k, greatest_rank(self.lg_k)
        multiplicities = np.bincount(self.registers[0], minlength=top + 1).tolist()
        estimate = size * _tau(1 - multiplicities[top] / size)
        for rank in range(top - 1, 0, -1):
            estimate = (estimate + multiplicities[rank]) / 2
        estimate += size * _sigma(multiplicities[0] / size)
        return size * size / (2 * math.log(2)) / estimate if math.isfinite(estimate) else 0.0

    def __repr__(self) -> str:
        return f"DistinctCount(lg_k={self.lg_k}, estimate={self.estimate():.1f})"


def _sigma(x: float) -> float:
    """X + the sum over k >= 1 of x^(2^k) 2^(k-1)."""
    if x == 1:
        return math.inf
    total, weight = x, 1.0
    while True:
        x *= x
        before = total
        total += x * weight
        weight += weight
        if total == before:
            return total


def _tau(x: float) -> float:
    """A third of 1 - x - the sum over k >= 1 of (1 - x^(2^-k))^2 2^-k."""
    if x in (0.0, 1.0):
        return 0.0
    total, weight = 1 - x, 1.0
    while True:
        x = math.sqrt(x)
        before = total
        weight /= 2
        total -= (1 - x) ** 2 * weight
        if total == before:
            return total / 3
