"""A uniform sample of rows, for what sketches of single features cannot show.

Guarantee: of all rows seen, each set of `size` is equally likely. Every row is given a random 64-bit key, and those of
the least keys are kept (bottom-k sampling; Cohen, Kaplan, "Summarizing data using bottom-k sketches", PODC 2007).
Memory: 64 bytes, and (8 + 4 columns) for each row kept.
Merge: the rows of the least keys of both: the same bytes in any order and any tree, once `seeds` are fixed.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from runtime.sketch.errors import Malformed, NotMergeable
from runtime.sketch.rows_kernels import FILLED, PLACE, SEED, SEEN, choose

HEAD_BYTES = 64

MAX_ROWS = 16_384
MAX_COLUMNS = 1_024

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint64]


def rows_bytes(size: int, columns: int) -> int:
    return HEAD_BYTES + size * (8 + 4 * columns)


class RowSample:
    """values: float32[size, columns] and keys: uint64[size], in the caller's memory where a buffer is given.

    `seed`: of the keys; by default a random one. Samples that are to be merged need different ones. Raises ValueError
    outside of 1 to 16,384 rows and 1 to 1,024 columns, Malformed for too small a buffer. One writer at a time.
    """

    def __init__(
        self, size: int, columns: int, buffer: bytearray | memoryview | None = None, *, seed: int | None = None
    ) -> None:
        if not (1 <= size <= MAX_ROWS and 1 <= columns <= MAX_COLUMNS):
            raise ValueError(f"expected 1 to {MAX_ROWS} rows of 1 to {MAX_COLUMNS} columns, got {size} of {columns}")
        memory = bytearray(rows_bytes(size, columns)) if buffer is None else buffer
        if len(memory) < rows_bytes(size, columns):
            raise Malformed(f"expected {rows_bytes(size, columns)} bytes or more for a sample, got {len(memory)}")
        self.size, self.columns = size, columns
        self.head: Words = np.frombuffer(memory, "<u8", HEAD_BYTES // 8)
        self.keys: Words = np.frombuffer(memory, "<u8", size, HEAD_BYTES)
        values = np.frombuffer(memory, "<f4", size * columns, HEAD_BYTES + 8 * size)
        self.values: Floats = values.reshape(size, columns)
        if not self.head[SEED] and self.head.flags.writeable:
            self.head[SEED] = int.from_bytes(os.urandom(8), "little") | 1 if seed is None else seed
        self._picked, self._places = np.empty(0, np.int64), np.empty(0, np.int64)

    @property
    def seen(self) -> int:
        return int(self.head[SEEN])

    @property
    def filled(self) -> int:
        return int(self.head[FILLED])

    @property
    def rows(self) -> npt.NDArray[np.float64]:
        """float64[min(seen, size), columns], a copy, in no order that means anything."""
        return self.values[: self.filled].astype(np.float64)

    def pick(self, rows: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Counts `rows` more; which of them are kept, and at which places of `values` the caller is to put them.

        Views that the next call overwrites.
        """
        if len(self._picked) < rows:
            self._picked, self._places = np.empty(rows, np.int64), np.empty(rows, np.int64)
        count = choose(self.head, self.keys, rows, self._picked, self._places)
        return self._picked[:count], self._places[:count]

    def merge(self, other: RowSample) -> None:
        """A uniform sample of what both have seen. Raises NotMergeable for another size or other columns."""
        if (other.size, other.columns) != (self.size, self.columns):
            raise NotMergeable(
                f"expected a sample of {self.size} rows of {self.columns} columns, got {other.size} of {other.columns}"
            )
        keys = np.concatenate([self.keys[: self.filled], other.keys[: other.filled]])
        values = np.concatenate([self.values[: self.filled], other.values[: other.filled]])
        self.fill(keys, values, self.seen + other.seen)

    def fill(self, keys: Words, values: Floats, seen: int) -> None:
        """Holds the rows of the least keys, ascending, from now on."""
        least = np.argsort(keys, kind="stable")[: self.size]
        self.keys[:] = 0
        self.values[:] = 0
        self.keys[: len(least)] = keys[least]
        self.values[: len(least)] = values[least]
        self.head[SEEN], self.head[FILLED] = seen, len(least)
        self.head[PLACE] = max(len(least) - 1, 0)

    def copy(self) -> RowSample:
        copy = RowSample(self.size, self.columns, seed=int(self.head[SEED]))
        copy.head[:] = self.head
        copy.keys[:] = self.keys
        copy.values[:] = self.values
        return copy

    def __repr__(self) -> str:
        return f"RowSample(seen={self.seen}, rows={self.filled}, columns={self.columns})"
