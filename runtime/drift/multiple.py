"""Many hypotheses at one level. Arrays in the order of the hypotheses in, arrays in the same order out.

holm                 p-values   probability of any false rejection ≤ level, under any dependence
benjamini_hochberg   p-values   expected share of false among the rejected ≤ level, independent or positively dependent
e_bh                 e-values   the same, under any dependence
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from runtime.drift.binned import Floats


def holm(p_values: ArrayLike) -> Floats:
    """Adjusted p-values (Holm 1979): reject where ≤ level."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    return _in_place_of(order, np.minimum(stepped, 1.0))


def benjamini_hochberg(p_values: ArrayLike) -> Floats:
    """Adjusted p-values (Benjamini and Hochberg 1995): reject where ≤ level."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    raised = p[order] * p.size / np.arange(1, p.size + 1)
    stepped = np.minimum.accumulate(raised[::-1])[::-1]
    return _in_place_of(order, np.minimum(stepped, 1.0))


def e_bh(e_values: ArrayLike, level: float) -> NDArray[np.bool_]:
    """Which to reject (Wang and Ramdas 2022): the k largest, for the largest k with e_(k) ≥ K/(level·k)."""
    e = np.asarray(e_values, np.float64)
    order = np.argsort(-e, kind="stable")
    passes = np.flatnonzero(e[order] >= e.size / (level * np.arange(1, e.size + 1)))
    rejected = np.zeros(e.size, np.bool_)
    if passes.size:
        rejected[order[: passes[-1] + 1]] = True
    return rejected


def _in_place_of(order: NDArray[np.intp], values: Floats) -> Floats:
    back = np.empty_like(values)
    back[order] = values
    return back
