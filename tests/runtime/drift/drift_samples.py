"""Samples that drift tests share: rows, and bins drawn as if rows had been counted.

For windows of many rows, counts are drawn from the multinomial distribution with the exact probabilities of the grid's
bins. For measures of binned counts that is the same distribution as counting rows, not an approximation to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats

from runtime.drift.binned import GRID_SCALE, Apart, Bins, CategoryBins, NumericBins

REPLICATIONS = int(os.environ.get("DRIFTGATE_REPLICATIONS", "0"))
"""Of simulations; each test has a number of its own, which is raised to this one where it is smaller."""


def replications(default: int) -> int:
    return max(REPLICATIONS, default)


@dataclass(frozen=True, eq=False)
class BinnedDistribution:
    """A distribution function at the edges of the grid: draws bins of any number of rows at the same cost."""

    edges: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, cdf: Callable[[np.ndarray], np.ndarray], decades: float = 6.0) -> BinnedDistribution:
        """Bins from 10^-decades to 10^decades of either sign; what lies beyond counts to the outermost."""
        reach = int(decades / np.log10(2) * 2**GRID_SCALE)
        magnitudes = np.exp2(np.arange(-reach, reach + 1) / 2**GRID_SCALE)
        edges = np.concatenate([-magnitudes[::-1], magnitudes])
        at = cdf(edges)
        at[0], at[-1] = 0.0, 1.0
        shares = np.diff(at)
        there = shares > 1e-12
        first, last = np.flatnonzero(there)[[0, -1]]
        kept = shares[first : last + 1]
        return cls(edges[first : last + 2], kept / kept.sum())

    def draw(self, random: np.random.Generator, rows: int, missing: float = 0.0) -> NumericBins:
        absent = int(random.binomial(rows, missing)) if missing else 0
        return NumericBins(self.edges, random.multinomial(rows - absent, self.shares), apart=Apart(missing=absent))


@dataclass(frozen=True)
class CategoryDistribution:
    names: tuple[str, ...]
    shares: tuple[float, ...]

    def draw(self, random: np.random.Generator, rows: int) -> CategoryBins:
        counts = random.multinomial(rows, self.shares)
        return CategoryBins({name: int(c) for name, c in zip(self.names, counts, strict=True) if c})


@cache
def thirty() -> dict[str, BinnedDistribution | CategoryDistribution]:
    """Thirty features as models have them: normal, skewed, heavy-tailed, integer, zero-inflated, flags, categories."""
    named: dict[str, BinnedDistribution | CategoryDistribution] = {}
    for i in range(8):
        named[f"normal {i}"] = BinnedDistribution.of(stats.norm(i - 4, 1 + i / 2).cdf)
    for i in range(5):
        named[f"lognormal {i}"] = BinnedDistribution.of(stats.lognorm(0.5 + i / 2).cdf)
    for i in range(3):
        named[f"heavy {i}"] = BinnedDistribution.of(stats.t(1.5 + i).cdf)
    for i in range(3):
        named[f"exponential {i}"] = BinnedDistribution.of(stats.expon(scale=10.0**i).cdf)
    for i in range(4):
        named[f"integer {i}"] = BinnedDistribution.of(stats.poisson(0.5 * 4**i).cdf)
    for i in range(2):
        named[f"flag {i}"] = BinnedDistribution.of(stats.bernoulli(0.02 + 0.3 * i).cdf)
    named["zero-inflated"] = BinnedDistribution.of(lambda x: 0.7 * (x >= 0) + 0.3 * stats.lognorm(1.0).cdf(x))
    for size in (3, 20, 300):
        shares = 1 / np.arange(1, size + 1)
        named[f"category {size}"] = CategoryDistribution(
            tuple(f"c{i}" for i in range(size)), tuple(shares / shares.sum())
        )
    named["constant"] = BinnedDistribution.of(lambda x: 1.0 * (x >= 7))
    assert len(named) == 30
    return named


def draw_all(random: np.random.Generator, rows: int) -> dict[str, NumericBins | CategoryBins]:
    """Each feature's bins; every third one lacks a row in fifty."""
    drawn: dict[str, NumericBins | CategoryBins] = {}
    for at, (name, distribution) in enumerate(thirty().items()):
        if isinstance(distribution, BinnedDistribution):
            drawn[name] = distribution.draw(random, rows, missing=0.02 * (at % 3 == 0))
        else:
            drawn[name] = distribution.draw(random, rows)
    return drawn


def together(panes: list[Bins]) -> Bins:
    """The window of several panes."""
    first = panes[0]
    if isinstance(first, CategoryBins):
        names = dict.fromkeys(name for pane in panes for name in pane.counts)
        return CategoryBins({name: sum(pane.counts.get(name, 0) for pane in panes) for name in names})
    edges = np.unique(np.concatenate([pane.edges for pane in panes]))
    counts = np.zeros(edges.size - 1, np.int64)
    for pane in panes:
        counts[np.searchsorted(edges, pane.edges[1:][pane.counts > 0]) - 1] += pane.counts[pane.counts > 0]
    return NumericBins(edges, counts, apart=Apart(missing=sum(pane.apart.missing for pane in panes)))
