"""Reservoirs: bounded, uniform, merged by weight, the same from the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from runtime.drift.binned import BinsMismatch
from runtime.drift.reservoir import Reservoir


def numbered(first: int, last: int) -> np.ndarray:
    return np.arange(first, last, dtype=np.float64)[:, None]


def test_it_keeps_all_rows_until_it_is_full_and_never_more() -> None:
    reservoir = Reservoir.empty(10, 1, seed=0).add(numbered(0, 7))
    assert reservoir.rows.ravel().tolist() == list(range(7))
    reservoir = reservoir.add(numbered(7, 1000)).add(numbered(1000, 1000))
    assert (len(reservoir.rows), reservoir.seen) == (10, 1000)
    assert len(set(reservoir.rows.ravel().tolist())) == 10
    with pytest.raises(BinsMismatch):
        reservoir.add(np.zeros((1, 2)))


def uniform(kept: np.ndarray, rows: int) -> bool:
    """Do all rows come equally often?"""
    observed = np.bincount(kept.astype(int), minlength=rows)
    expected = kept.size / rows
    return bool(stats.chi2.sf(((observed - expected) ** 2 / expected).sum(), rows - 1) > 1e-4)


def test_every_row_is_kept_with_the_same_probability_however_blocks_are_cut() -> None:
    for blocks in ([50], [3, 20, 27], [1] * 50):
        ends = np.cumsum(blocks)
        kept = []
        for seed in range(2_000 if len(blocks) < 10 else 500):
            reservoir = Reservoir.empty(5, 1, seed)
            for end, block in zip(ends, blocks, strict=True):
                reservoir = reservoir.add(numbered(end - block, end))
            kept.append(reservoir.rows.ravel())
        assert uniform(np.concatenate(kept), 50)


def test_a_merge_is_a_uniform_sample_of_what_both_have_seen() -> None:
    kept = []
    for seed in range(2_000):
        a = Reservoir.empty(6, 1, seed).add(numbered(0, 40))
        b = Reservoir.empty(6, 1, seed + 10_000).add(numbered(40, 50))
        merged = a.merge(b)
        assert (merged.seen, len(merged.rows)) == (50, 6)
        kept.append(merged.rows.ravel())
    assert uniform(np.concatenate(kept), 50)


def test_a_merge_with_an_empty_one_keeps_the_sample_and_a_small_one_gives_what_it_has() -> None:
    a, empty = Reservoir.empty(4, 1, 0).add(numbered(0, 9)), Reservoir.empty(4, 1, 1)
    assert set(a.merge(empty).rows.ravel()) == set(a.rows.ravel())
    assert empty.merge(empty).seen == 0
    small = Reservoir.empty(4, 1, 2).add(numbered(0, 2)).merge(Reservoir.empty(4, 1, 3).add(numbered(2, 3)))
    assert sorted(small.rows.ravel().tolist()) == [0, 1, 2]
    with pytest.raises(BinsMismatch):
        a.merge(Reservoir.empty(4, 2, 0))


def test_the_same_seed_and_blocks_give_the_same_sample() -> None:
    one, two = (Reservoir.empty(8, 1, seed=5).add(numbered(0, 100)) for _ in range(2))
    assert (one.rows == two.rows).all()
