"""Keys → arms by weight: the same key has the same arm everywhere, and a change of weights moves as few as can be.

Weighted rendezvous hashing. A key and an arm's name give a number u in (0, 1], as if at random; the arm with the
greatest log(u) / weight has the key. -log(u) / weight is a waiting time with the rate `weight`, so the first to ring is
arm i with the probability weight_i / (sum of weights), and so is its share of the keys.

An arm's figure depends on no other arm and on no other weight. So when weights change, a key moves from i to j only if
weight_j / weight_i has grown: in no other way does the order of two figures change. Hence, if one arm's weight is
raised, or an arm is added, keys move to it and nowhere else; if one is lowered or removed, only its keys move. Either
way the keys that move are as many as its share has changed by, and no rule can do with fewer.

u comes from XXH3-64 of the key's bytes with a seed of 64 bits: the first 8 bytes, little-endian, of
BLAKE2b-64(salt, 0x00, arm's name). Both are fixed by their specifications. This is no secret: who knows the salt can
choose a key for an arm.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate

from xxhash import xxh3_64_intdigest

UNIT = 2.0**-64

Figures = dict[int, tuple[int, float]]
"""arm → (hash, log(u) / weight)."""


def seed_of(salt: str, name: str) -> int:
    """What an arm's hashes begin with; unsigned, 64 bits."""
    return int.from_bytes(blake2b(f"{salt}\0{name}".encode(), digest_size=8).digest(), "little")


class Assignment:
    """Arms by number, in the order given, which decides nothing. Arms of weight 0 are never chosen.

    `weights`: finite, 0 or more, not all 0; 1e-6..1e6 keeps every figure finite. Immutable.
    """

    def __init__(self, salt: str, names: Sequence[str], weights: Sequence[float]) -> None:
        total = math.fsum(weights)
        self.shares = tuple(weight / total for weight in weights)
        # By name, so that two equal figures, one pair in 2^50 or so, are told apart the same way in any order.
        arms = sorted((name, arm) for arm, name in enumerate(names) if weights[arm] > 0)
        self._arms = tuple((arm, seed_of(salt, name), 1 / weights[arm]) for name, arm in arms)
        ends = list(accumulate(self.shares))
        self._ends = [end / ends[-1] for end in ends[:-1]]

    def by_key(self, key: bytes, figures: Figures | None = None) -> int:
        """The arm that has `key`. `figures` takes what each arm came to."""
        best, chosen = -math.inf, -1
        for arm, seed, scale in self._arms:
            hashed = xxh3_64_intdigest(key, seed)
            figure = math.log((hashed + 1) * UNIT) * scale
            if figure > best:
                best, chosen = figure, arm
            if figures is not None:
                figures[arm] = (hashed, figure)
        return chosen

    def drawn(self, point: float) -> int:
        """The arm whose interval holds `point`, 0 <= point < 1: intervals are as long as shares, in the arms' order."""
        return bisect_right(self._ends, point)

    def interval(self, arm: int) -> tuple[float, float]:
        """Where an arm's points begin, and where they end."""
        ends = (0.0, *self._ends, 1.0)
        return ends[arm], ends[arm + 1]
