"""glibc's malloc, told what a long-lived process needs; elsewhere nothing happens."""

from __future__ import annotations

import ctypes

LARGE_BYTES = 32 * 1024 * 1024  # what requests and answers need: to map 19 MB anew takes 7 ms longer than to copy them
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h
_MALLOC_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)
_MALLOPT = getattr(ctypes.CDLL(None), "mallopt", None)


def trim_memory() -> None:
    """Gives freed heap pages back to the system; without it a dropped session's memory stays with the process."""
    if _MALLOC_TRIM is not None:
        _MALLOC_TRIM(0)


def return_large_blocks() -> None:
    """For the process: a freed block of LARGE_BYTES goes back to the system at once.

    By itself glibc raises this bound as it sees large blocks freed, and then keeps up to 64 MiB at the top of each
    thread's heap, where `trim_memory` does not reach.
    """
    if _MALLOPT is not None:
        _MALLOPT(M_MMAP_THRESHOLD, LARGE_BYTES)
        _MALLOPT(M_TRIM_THRESHOLD, LARGE_BYTES)


def share_one_heap() -> None:
    """For a process whose threads come and go, before it has any: by itself glibc gives each a heap of its own, and
    what a thread has freed there stays for whoever gets that heap next.
    """
    if _MALLOPT is not None:
        _MALLOPT(M_ARENA_MAX, 1)
