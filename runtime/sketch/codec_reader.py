"""Reads little-endian fields one after the other, and refuses to read beyond the end."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.sketch.codec_kernels import MALFORMED, read_counts
from runtime.sketch.errors import Malformed


class Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(data, np.uint8)
        self._at = at

    def fields(self, form: struct.Struct) -> tuple[Any, ...]:
        self.need(form.size)
        fields = form.unpack_from(self._data, self._at)
        self._at += form.size
        return fields

    def take(self, size: int) -> bytes:
        self.need(size)
        self._at += size
        return self._data[self._at - size : self._at]

    def counts(self, count: int) -> npt.NDArray[np.uint32]:
        """uint32[count], written as variable-length integers."""
        counts = np.empty(count, np.uint32)
        end = int(read_counts(self._bytes, self._at, counts))
        if end == MALFORMED:
            raise Malformed(f"expected {count} counts from byte {self._at}, each in as few bytes as it needs")
        self._at = end
        return counts

    def expect_end(self) -> None:
        if self._at != len(self._data):
            raise Malformed(f"expected the sketch to end at byte {self._at}, got {len(self._data) - self._at} more")

    def need(self, size: int) -> None:
        """Raises Malformed unless so many bytes are left."""
        if self._at + size > len(self._data):
            raise Malformed(f"expected {size} more bytes at byte {self._at}, got {len(self._data) - self._at}")


def require(condition: object, expected: str) -> None:
    if not condition:
        raise Malformed(f"expected {expected}")
