"""A sample of rows: uniform, and the same whatever was merged in which order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from runtime.sketch.codec import decode, encode
from runtime.sketch.errors import Malformed, NotMergeable
from runtime.sketch.rows import RowSample, rows_bytes

SIZE = 32


def seen(sample: RowSample, first: int, count: int, block: int = 7) -> RowSample:
    """`sample` after rows that hold their own number."""
    for start in range(first, first + count, block):
        rows = np.arange(start, min(start + block, first + count), dtype=np.float32)
        picked, places = sample.pick(len(rows))
        sample.values[places, 0] = rows[picked]
    return sample


@given(st.integers(0, 200), st.integers(1, 50))
def test_as_many_rows_are_kept_as_were_seen_or_have_room_and_each_once(count: int, block: int) -> None:
    sample = seen(RowSample(SIZE, 1, seed=1), 0, count, block)
    assert (sample.seen, sample.filled) == (count, min(count, SIZE))
    kept = sample.rows[:, 0].tolist()
    assert len(set(kept)) == len(kept)
    assert set(kept) <= set(range(count))


@given(st.integers(1, 40), st.integers(1, 40))
def test_it_does_not_matter_how_many_rows_come_at_once(block: int, other: int) -> None:
    both = [seen(RowSample(SIZE, 1, seed=3), 0, 300, each) for each in (block, other)]
    assert encode(both[0]) == encode(both[1])


@given(st.lists(st.integers(0, 90), min_size=2, max_size=5), st.randoms())
def test_merging_in_any_order_and_tree_gives_the_same_bytes(counts: list[int], random: object) -> None:
    starts = np.cumsum([0, *counts])
    parts = [seen(RowSample(SIZE, 1, seed=at + 1), int(starts[at]), count) for at, count in enumerate(counts)]

    def merged(order: list[RowSample]) -> bytes:
        left = [part.copy() for part in order]
        while len(left) > 1:
            at = random.randrange(len(left) - 1)  # type: ignore[attr-defined]
            left[at].merge(left.pop(at + 1))
        return encode(left[0])

    shuffled = parts.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert merged(parts) == merged(shuffled)


def test_each_row_is_as_likely_to_be_kept() -> None:
    """χ² of which tenth of 1,000 rows the kept ones are from, over 400 samples, half of them merged from two."""
    tenths = np.zeros(10, np.int64)
    for seed in range(1, 401):
        sample = seen(RowSample(SIZE, 1, seed=2 * seed + 1), 0, 1_000 if seed % 2 else 300, 64)
        if seed % 2 == 0:
            sample.merge(seen(RowSample(SIZE, 1, seed=2 * seed + 1_000_001), 300, 700, 64))
        tenths += np.bincount((sample.rows[:, 0] // 100).astype(np.int64), minlength=10)
    assert tenths.sum() == 400 * SIZE
    assert stats.chisquare(tenths).pvalue > 1e-3


def test_it_lives_in_the_callers_memory_and_goes_on_there() -> None:
    memory = bytearray(rows_bytes(SIZE, 2))
    first = RowSample(SIZE, 2, memory, seed=5)
    picked, places = first.pick(3)
    first.values[places] = np.ones((3, 2), np.float32)[picked]
    again = RowSample(SIZE, 2, memory)
    assert (again.seen, again.filled) == (3, 3)
    assert encode(again) == encode(first)


def test_bytes_that_say_what_cannot_be_are_refused() -> None:
    data = encode(seen(RowSample(SIZE, 1, seed=1), 0, 100))
    assert encode(decode(data)) == data
    for at in range(len(data)):
        with pytest.raises(Malformed):
            decode(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(NotMergeable, match="a sample of 32 rows of 1 columns, got 16 of 1"):
        RowSample(SIZE, 1).merge(RowSample(16, 1))
    with pytest.raises(ValueError, match="expected 1 to 16384 rows of 1 to 1024 columns"):
        RowSample(0, 1)
    with pytest.raises(Malformed, match="bytes or more for a sample"):
        RowSample(SIZE, 1, bytearray(10))
