"""The memory of an arena: free parts, and how a part becomes zeros again."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.shm import panes_memory
from runtime.shm.panes_layout import PAGE_BYTES
from runtime.shm.panes_memory import Extents, read, resident_bytes, zero
from runtime.shm.segment import Segment

PAGES = 40


@given(st.lists(st.tuples(st.sampled_from(["take", "reserve", "give back"]), st.integers(0, 39), st.integers(1, 12))))
def test_parts_are_given_out_once_first_fit_and_neighbours_are_one_again(steps: list[tuple[str, int, int]]) -> None:
    extents = Extents(0, PAGES)
    is_free = [True] * PAGES
    out: list[tuple[int, int]] = []
    for step, offset, size in steps:
        fits = [at for at in range(PAGES - size + 1) if all(is_free[at : at + size])]
        if step == "take":
            found = extents.take(size)
            assert found == (fits[0] if fits else None)
        elif step == "reserve":
            found = offset if extents.reserve(offset, size) else None
            assert (found is not None) == (offset in fits)
        elif out:
            begin, length = out.pop(offset % len(out))
            extents.give_back(begin, length)
            is_free[begin : begin + length] = [True] * length
            continue
        else:
            continue
        if found is not None:
            out.append((found, size))
            is_free[found : found + size] = [False] * size
        parts = extents.parts()
        assert [at for begin, length in parts for at in range(begin, begin + length)] == [
            at for at in range(PAGES) if is_free[at]
        ]
        assert all(one + length < other for (one, length), (other, _) in pairwise(parts))


@pytest.mark.parametrize("punches", [True, False])
def test_zeroing_gives_zeros_to_whoever_has_mapped_it(punches: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no hole can be punched, what was never written takes no memory still."""
    if not punches:
        monkeypatch.setattr(panes_memory, "_fallocate", None)
    segment = Segment.create("zeros", 1024 * PAGE_BYTES)
    other = Segment.attach(os.dup(segment.fd), writable=False)
    segment.buffer[: 4 * PAGE_BYTES] = b"\1" * 4 * PAGE_BYTES
    zero(segment.fd, PAGE_BYTES, 2 * PAGE_BYTES)
    zero(segment.fd, 4 * PAGE_BYTES, 1020 * PAGE_BYTES)
    zero(segment.fd, 0, 0)
    assert resident_bytes(segment.fd) <= 512 * PAGE_BYTES
    if punches:
        assert resident_bytes(segment.fd) == 2 * PAGE_BYTES
    expected = b"\1" * PAGE_BYTES + bytes(2 * PAGE_BYTES) + b"\1" * PAGE_BYTES + bytes(2 * PAGE_BYTES)
    assert other.buffer[: 6 * PAGE_BYTES] == expected
    assert read(segment.fd, PAGE_BYTES - 1, 3) == b"\1\0\0"
    with pytest.raises(ValueError, match="the segment ends 1 bytes before what is read of it"):
        read(segment.fd, 1023 * PAGE_BYTES, PAGE_BYTES + 1)
    for each in (segment, other):
        each.close()


def test_a_descriptor_that_is_open_for_reading_only_zeroes_nothing() -> None:
    segment = Segment.create("zeros", PAGE_BYTES)
    segment.buffer[0] = 1
    fd = os.open(f"/proc/self/fd/{segment.fd}", os.O_RDONLY)
    with pytest.raises(OSError, match="Bad file descriptor"):
        zero(fd, 0, PAGE_BYTES)
    assert segment.buffer[0] == 1
    os.close(fd)
    segment.close()
