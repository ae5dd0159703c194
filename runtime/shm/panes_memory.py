"""Memory of an arena: which parts are free, how a part becomes zeros again, how much is in use."""

from __future__ import annotations

import bisect
import ctypes
import os
from collections.abc import Callable

FALLOC_FL_KEEP_SIZE = 1
FALLOC_FL_PUNCH_HOLE = 2
BLOCK_BYTES = 512  # st_blocks counts these
CHUNK_BYTES = 1 << 20
ZEROS = bytes(CHUNK_BYTES)


def _find_fallocate() -> Callable[[int, int, int, int], int] | None:
    """Of the C library: Python has only posix_fallocate, which does not punch holes."""
    try:
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    except (AttributeError, OSError, TypeError):  # not Linux
        return None
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    fallocate.restype = ctypes.c_int
    found: Callable[[int, int, int, int], int] = fallocate
    return found


_fallocate = _find_fallocate()


def zero(fd: int, offset: int, size_bytes: int) -> None:
    """Makes zeros of a part, for all who have mapped it, and gives its pages back to the machine where that can be.

    `offset`, `size_bytes`: whole pages. Raises OSError where `fd` is open for reading only.
    """
    if not size_bytes:
        return
    if _fallocate is not None and not _fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size_bytes):
        return
    for at in range(offset, offset + size_bytes, CHUNK_BYTES):
        part = min(CHUNK_BYTES, offset + size_bytes - at)
        if read(fd, at, part) != ZEROS[:part]:  # a write would take memory for what was never written
            os.pwrite(fd, ZEROS[:part], at)


def read(fd: int, offset: int, size_bytes: int) -> bytes:
    """A copy made by the kernel: what was never written reads as zeros and takes no page, as it would through a map."""
    parts = []
    while size_bytes:
        part = os.pread(fd, size_bytes, offset)
        if not part:
            raise ValueError(f"the segment ends {size_bytes} bytes before what is read of it")
        parts.append(part)
        offset += len(part)
        size_bytes -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def resident_bytes(fd: int) -> int:
    """What a segment takes of the machine's memory now."""
    return os.fstat(fd).st_blocks * BLOCK_BYTES


class Extents:
    """The free parts of a range of bytes; the first that fits is taken. Neighbours become one when they are free."""

    def __init__(self, begin: int, end: int) -> None:
        self._free = [(begin, end)]  # by place

    def take(self, size_bytes: int) -> int | None:
        """The offset of a part; None: none is large enough."""
        for at, (begin, end) in enumerate(self._free):
            if end - begin >= size_bytes:
                self._free[at : at + 1] = [(begin + size_bytes, end)] if end - begin > size_bytes else []
                return begin
        return None

    def reserve(self, offset: int, size_bytes: int) -> bool:
        """Takes just this part; False: not all of it is free."""
        at = bisect.bisect_right(self._free, offset, key=lambda part: part[0]) - 1
        if at < 0 or self._free[at][1] < offset + size_bytes:
            return False
        begin, end = self._free[at]
        left = [(begin, offset), (offset + size_bytes, end)]
        self._free[at : at + 1] = [part for part in left if part[0] < part[1]]
        return True

    def give_back(self, offset: int, size_bytes: int) -> None:
        begin, end = offset, offset + size_bytes
        at = bisect.bisect_left(self._free, (begin, end))
        if at < len(self._free) and self._free[at][0] == end:
            end = self._free.pop(at)[1]
        if at and self._free[at - 1][1] == begin:
            at -= 1
            begin = self._free.pop(at)[0]
        self._free.insert(at, (begin, end))

    def parts(self) -> list[tuple[int, int]]:
        """(offset, bytes) of each free part, by place."""
        return [(begin, end - begin) for begin, end in self._free]
