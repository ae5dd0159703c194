"""Memory shared between processes, without a name: it is gone when the last process that maps it is.

The owner creates the segment and passes its file descriptor on to the children it spawns; a kill -9 of every process
leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile


class Segment:
    """`buffer` is the mapping; `fd` is what a child needs to `attach`."""

    def __init__(self, fd: int, size_bytes: int, *, writable: bool) -> None:
        self.fd = fd
        self.size_bytes = size_bytes
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        self.buffer = mmap.mmap(fd, size_bytes, access=access)

    @classmethod
    def create(cls, name: str, size_bytes: int) -> Segment:
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create(name, os.MFD_CLOEXEC)
        else:  # not Linux: an unlinked temporary file has the same life
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, size_bytes)
        return cls(fd, size_bytes, writable=True)

    @classmethod
    def attach(cls, fd: int, *, writable: bool) -> Segment:
        return cls(fd, os.fstat(fd).st_size, writable=writable)

    def close(self) -> None:
        """The mapping stays as long as arrays and views of it are in use."""
        with contextlib.suppress(BufferError):
            self.buffer.close()
        os.close(self.fd)
