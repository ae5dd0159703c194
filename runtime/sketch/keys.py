"""Values that are named and not measured, as 64-bit hashes beside their bytes.

Texts are hashed by their UTF-8, bytes as they are, integers and booleans by their int64, little-endian. Two values with
the same hash would be one: among a million values that happens once in 37 million times.
Cost: about 0.2 µs a short text, nearly all of it to encode and join; an integer a few ns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.sketch.errors import BadValues
from runtime.sketch.keys_kernels import hash_texts


class KeyKind(IntEnum):
    """What the bytes of a value are."""

    TEXT = 0
    INTEGER = 1


@dataclass(frozen=True, slots=True)
class Keys:
    """data: uint8[bytes], the values' bytes one after the other; ends: int64[n]; hashes: uint64[n].

    `missing`: how many values were None, and are not among them.
    """

    kind: KeyKind
    data: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint64]
    missing: int

    @classmethod
    def of_texts(cls, texts: Iterable[str | bytes | None]) -> Keys:
        """texts: a list, or an array of str, bytes or objects. Raises BadValues for something else in it."""
        values = texts.ravel().tolist() if isinstance(texts, np.ndarray) else list(texts)
        try:
            encoded = [v.encode("utf-8", "surrogatepass") if isinstance(v, str) else v for v in values if v is not None]
            data = np.frombuffer(b"".join(encoded), np.uint8)
        except TypeError as error:
            raise BadValues("expected texts, bytes or None") from error
        ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        return cls._hashed(KeyKind.TEXT, data, ends, len(values) - len(encoded))

    @classmethod
    def of_integers(cls, values: npt.NDArray[Any]) -> Keys:
        """values: integers or booleans of any shape. Raises BadValues for another dtype."""
        if values.dtype.kind not in "iub":
            raise BadValues(f"expected integers or booleans, got {values.dtype}")
        words = np.ascontiguousarray(values.ravel(), "<i8")
        return cls._hashed(KeyKind.INTEGER, words.view(np.uint8), np.arange(8, 8 * len(words) + 1, 8), 0)

    @classmethod
    def _hashed(cls, kind: KeyKind, data: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64], missing: int) -> Keys:
        hashes = np.empty(len(ends), np.uint64)
        hash_texts(data, ends, hashes)
        return cls(kind, data, ends, hashes, missing)

    def __len__(self) -> int:
        return len(self.ends)


def name_of(kind: KeyKind, data: bytes, *, cut: bool = False) -> str | int:
    """A value from its bytes. A text that was cut loses a character of which a part is missing."""
    if kind is KeyKind.INTEGER:
        return int.from_bytes(data, "little", signed=True)
    if cut:
        for back in range(1, min(4, len(data) + 1)):
            lead = data[-back]
            if lead >= 0xC0:  # begins a character: of 2 to 4 bytes
                if back < 2 + (lead >= 0xE0) + (lead >= 0xF0):
                    data = data[:-back]
                break
            if lead < 0x80:
                break
    return data.decode("utf-8", "replace")
