"""What the suites of sketches share: distributions to sample, and how hard to try."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SEEDS = range(int(os.environ.get("DRIFTGATE_TEST_SKETCH_SEEDS", "8")))
"""More of them: the guarantees are tried on more samples."""

SIZES = (1, 3, 20, 1000, 20_000)
SHARES = np.array([0, 0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1])

Rng = np.random.Generator

DISTRIBUTIONS: dict[str, Callable[[Rng, int], Array]] = {
    "uniform": lambda rng, n: rng.uniform(0, 1, n),
    "uniform around zero": lambda rng, n: rng.uniform(-5, 5, n),
    "normal": lambda rng, n: rng.normal(0, 1, n),
    "normal far from zero": lambda rng, n: rng.normal(-1000, 1, n),
    "lognormal": lambda rng, n: rng.lognormal(0, 1, n),
    "wide lognormal": lambda rng, n: rng.lognormal(0, 12, n),
    "negative lognormal": lambda rng, n: -rng.lognormal(3, 2, n),
    "exponential": lambda rng, n: rng.exponential(0.01, n),
    "pareto": lambda rng, n: rng.pareto(0.5, n) + 1,
    "cauchy": lambda rng, n: rng.standard_cauchy(n),
    "student": lambda rng, n: rng.standard_t(2, n),
    "beta": lambda rng, n: rng.beta(0.1, 0.1, n),
    "two humps": lambda rng, n: np.where(rng.random(n) < 0.5, rng.normal(-10, 1, n), rng.normal(1000, 5, n)),
    "mostly zero": lambda rng, n: np.where(rng.random(n) < 0.9, 0.0, rng.gamma(2, 3, n)),
    "constant": lambda rng, n: np.full(n, rng.normal()),
    "integers": lambda rng, n: rng.integers(-(10**6), 10**12, n),
    "counts": lambda rng, n: rng.poisson(3, n),
    "subnormals": lambda rng, n: np.copysign(
        (2 ** rng.uniform(0, 52, n)).astype(np.int64).view(np.float64), rng.normal(size=n)
    ),
    "any bits": lambda rng, n: finite(rng.integers(0, 1 << 64, n, dtype=np.uint64).view(np.float64)),
}


def finite(values: Array) -> Array:
    return np.where(np.isfinite(values), values, 0.0)
