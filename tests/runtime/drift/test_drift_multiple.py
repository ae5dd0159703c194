"""Corrections for many hypotheses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from runtime.drift.multiple import benjamini_hochberg, e_bh, holm


def test_holm_steps_down_and_keeps_the_order_of_the_hypotheses() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]).size == 0


def test_benjamini_hochberg_is_scipys() -> None:
    p = np.random.default_rng(0).random(50) ** 3
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))


def test_e_values_are_rejected_from_the_top_where_they_are_large_enough_together() -> None:
    # K = 4, level 0.1: the first needs 40, two need 20 each, three 13.3, four 10
    assert e_bh([5, 39, 21, 2], 0.1).tolist() == [False, True, True, False]
    assert e_bh([39, 1, 1, 1], 0.1).tolist() == [False] * 4
    assert e_bh([11, 12, 10, 13], 0.1).all()
    assert e_bh([], 0.1).size == 0


def test_the_family_wise_rate_and_the_false_discovery_rate_are_kept() -> None:
    random = np.random.default_rng(1)
    any_false, shares = 0, []
    for _ in range(2_000):
        null = random.random(20)
        effects = stats.norm.sf(random.normal(3, 1, 5))
        p = np.concatenate([null, effects])
        any_false += (holm(p)[:20] <= 0.05).any()
        rejected = benjamini_hochberg(p) <= 0.05
        shares.append(rejected[:20].sum() / max(rejected.sum(), 1))
    assert any_false <= stats.binom.isf(1e-4, 2_000, 0.05)
    assert np.mean(shares) <= 0.05


def test_e_bh_keeps_the_false_discovery_rate_under_dependence() -> None:
    random = np.random.default_rng(2)
    shares = []
    for _ in range(2_000):
        z = 0.9 * random.normal() + np.sqrt(0.19) * random.normal(size=20)  # all nulls move together
        e = np.exp(2 * z - 2)  # likelihood ratios of N(2, 1) to N(0, 1)
        shares.append(float(e_bh(e, 0.05).any()))
    assert np.mean(shares) <= 0.05
