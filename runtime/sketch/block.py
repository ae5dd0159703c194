"""Statistics of many numeric features, updated in one call: histogram, distinct count, moments of each.

Guarantee, memory and merge rule are those of the parts: `exponential`, `distinct`, `moments`. A feature takes 8,416
bytes with lg_k 12, and 4,576 with lg_k 8 (layout.py has the sum); a block 64 more.
Speed: python -m bench.sketches.

A block's memory is the caller's, for example shared: one writer at a time; a reader takes a copy while none writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from runtime.sketch.block_kernels import merge_blocks
from runtime.sketch.columns import Array, Mask, observe_columns
from runtime.sketch.distinct import DistinctCount
from runtime.sketch.errors import Malformed, NotMergeable
from runtime.sketch.exponential import ExponentialHistogram
from runtime.sketch.layout import (
    BLOCK_MAGIC,
    BUCKETS,
    HEAD_WORDS,
    HEADER,
    HIGH,
    LAYOUT_VERSION,
    LOW,
    MOMENT_WORDS,
    ROWS_AT,
    SENTINEL,
    SETTING_WORDS,
    BlockShape,
)
from runtime.sketch.moments import Moments

Buffer = bytearray | memoryview


class Block:
    """Made by `create`, or by `attach` on memory that holds one."""

    def __init__(self, memory: Buffer, shape: BlockShape) -> None:
        f = shape.features
        self.shape = shape
        self.memory = memoryview(memory)[: shape.size_bytes]
        self.settings: npt.NDArray[np.float64] = self._part("<f8", shape.settings_at, f, SETTING_WORDS)
        self.heads: npt.NDArray[np.int64] = self._part("<i8", shape.heads_at, f, HEAD_WORDS)
        self.moments: npt.NDArray[np.float64] = self._part("<f8", shape.moments_at, f, MOMENT_WORDS)
        self.registers: npt.NDArray[np.uint8] = self._part("u1", shape.registers_at, f, shape.registers)
        self.buckets: npt.NDArray[np.uint32] = self._part("<u4", shape.buckets_at, 2, f, BUCKETS)
        self._rows: npt.NDArray[np.uint64] = self._part("<u8", ROWS_AT, 1)
        self._state = (
            self.settings, self.heads, self.buckets, self.moments, self.registers, np.uint64(shape.lg_k),
        )  # fmt: skip

    def _part(self, dtype: str, offset: int, *shape: int) -> Array:
        return np.frombuffer(self.memory, dtype, int(np.prod(shape)), offset).reshape(shape)

    @classmethod
    def create(cls, shape: BlockShape, buffer: Buffer | None = None) -> Self:
        """An empty block in `buffer`, of shape.size_bytes or more and all zeros, or in memory of its own.

        Raises Malformed if the buffer is smaller.
        """
        memory = memoryview(bytearray(shape.size_bytes) if buffer is None else buffer)
        if len(memory) < shape.size_bytes:
            raise Malformed(f"expected {shape.size_bytes} bytes or more for {shape}, got {len(memory)}")
        HEADER.pack_into(memory, 0, BLOCK_MAGIC, LAYOUT_VERSION, shape.features, shape.lg_k, BUCKETS, 0)
        block = cls(memory, shape)
        block.settings[:] = (-np.inf, np.inf, np.nan)
        return block

    @classmethod
    def attach(cls, buffer: Buffer) -> Self:
        """The block in `buffer`; of read-only memory one that can be read. Raises Malformed if there is none."""
        memory = memoryview(buffer)
        if len(memory) < HEADER.size:
            raise Malformed(f"expected a block's header of {HEADER.size} bytes, got {len(memory)}")
        magic, layout, features, lg_k, buckets, _ = HEADER.unpack_from(memory, 0)
        if (magic, layout, buckets) != (BLOCK_MAGIC, LAYOUT_VERSION, BUCKETS):
            raise Malformed(
                f"expected a block of layout {LAYOUT_VERSION} with {BUCKETS} buckets, "
                f"got {magic!r} layout {layout} with {buckets}"
            )
        try:
            shape = BlockShape(features, lg_k)
        except ValueError as error:
            raise Malformed(f"the block's header: {error}") from error
        if len(memory) < shape.size_bytes:
            raise Malformed(f"expected {shape.size_bytes} bytes or more for {shape}, got {len(memory)}")
        return cls(memory, shape)

    def set_range(self, feature: int, low: float = -np.inf, high: float = np.inf) -> None:
        """What is below low or above high is counted apart. For float32 values both are rounded to float32.

        Raises ValueError unless low <= high. Before the first value is observed.
        """
        if not low <= high:
            raise ValueError(f"expected low <= high, got {low} and {high}")
        self.settings[feature, LOW : HIGH + 1] = low, high

    def set_sentinel(self, feature: int, sentinel: float) -> None:
        """A value that stands for a missing one. NaN: none does. Before the first value is observed."""
        self.settings[feature, SENTINEL] = sentinel

    def observe(self, values: Array, prediction: Array | None = None, missing: Mask | None = None) -> None:
        """Adds rows.

        values: [rows, features] of float16 to float64, int8 to int64, uint8 to uint64 or bool, C-contiguous.
        prediction: numbers [rows], for the correlation with each feature. missing: bool or uint8 [rows, features]; what
        is not 0 there counts as missing, whatever its value. Nothing is kept of them.

        Raises BadValues for other shapes and dtypes; then nothing was added.
        """
        observe_columns(values, prediction, missing, self._state)
        self._rows[0] += np.uint64(len(values))

    def merge(self, other: Block) -> None:
        """Adds what `other` has seen. Raises NotMergeable for another shape or other settings."""
        if other.shape != self.shape:
            raise NotMergeable(f"expected {self.shape}, got {other.shape}")
        if other.settings.tobytes() != self.settings.tobytes():
            raise NotMergeable("the blocks have different ranges or sentinels")
        merge_blocks(*self._state[1:5], *other._state[1:5])  # of the same class
        self._rows[0] += other._rows[0]

    def copy(self, buffer: Buffer | None = None) -> Block:
        """In memory of its own, or in `buffer`."""
        memory = memoryview(bytearray(self.shape.size_bytes) if buffer is None else buffer)
        memory[: self.shape.size_bytes] = self.memory
        return Block.attach(memory)

    def clear(self) -> None:
        """Forgets all rows and keeps the settings."""
        for part in (self.heads, self.moments, self.registers, self.buckets, self._rows):
            part[:] = 0

    @property
    def rows(self) -> int:
        return int(self._rows[0])

    def set_rows(self, rows: int) -> None:
        """Of a block that is put together from stored parts."""
        self._rows[0] = rows

    def histogram(self, feature: int) -> ExponentialHistogram:
        """A copy."""
        return ExponentialHistogram.from_arrays(self.heads[feature], self.buckets[:, feature])

    def moments_of(self, feature: int) -> Moments:
        """A copy."""
        return Moments.from_array(self.moments[feature])

    def distinct(self, feature: int) -> DistinctCount | None:
        """A copy; None where the block has no registers."""
        return DistinctCount.from_array(self.registers[feature]) if self.shape.lg_k else None

    def __repr__(self) -> str:
        return f"Block(features={self.shape.features}, lg_k={self.shape.lg_k}, rows={self.rows})"


def merged(blocks: Sequence[Block]) -> Block:
    """A new block that has seen what all of them have. Raises NotMergeable, and ValueError for none."""
    if not blocks:
        raise ValueError("expected one block or more, got none")
    whole = blocks[0].copy()
    for block in blocks[1:]:
        whole.merge(block)
    return whole
