"""What can be said of a PNG without a library that shows it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Picture:
    """`rows` as the PNG has them, filtered: those of a page of one colour are alike, but for the first."""

    width: int
    height: int
    rows: tuple[bytes, ...]

    @classmethod
    def of(cls, png: bytes) -> Self:
        """Fails if it is no PNG, or not a whole one."""
        assert png.startswith(SIGNATURE), png[:16]
        chunks = list(_chunks(png))
        assert (chunks[0][0], chunks[-1][0]) == (b"IHDR", b"IEND")
        width, height = struct.unpack_from(">II", chunks[0][1])
        pixels = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
        size, left = divmod(len(pixels), height)
        assert not left, "rows of different sizes"
        return cls(width, height, tuple(pixels[at : at + size] for at in range(0, len(pixels), size)))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at < len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        body = png[at + 8 : at + 8 + size]
        assert zlib.crc32(kind + body) == struct.unpack_from(">I", png, at + 8 + size)[0]
        yield kind, body
        at += 12 + size
