"""E-processes of rates: a candidate's against a line over the baseline's, and a share against a limit.

Both add up, block after block, the logarithm of a likelihood ratio of what the past makes likely to the nearest point
of the null hypothesis. Its mean given the past is ≤ 1, so P(e ever ≥ 1/α) ≤ α (Ville), however often one looks.

    pair   null  p_c ≤ r·p_b + d   ("no harm")    or   p_c ≥ r·p_b + d   ("not shown to be safe")
           For a block of n and m rows, expected rates θ and the point t of the line with the least n·KL(θc‖tc) +
           m·KL(θb‖tb):  n(θc−tc)/(tc(1−tc)) = λ,  m(θb−tb)/(tb(1−tb)) = −rλ.  So the mean of the ratio is
           (1 + (pc−tc)λ/n)^n · (1 − (pb−tb)rλ/m)^m ≤ exp(λ(pc − r·pb − d)), and that is ≤ 1 under the null
           (as Turner and Grünwald 2023 have it for contingency tables).
    share  null  p ≥ s ("no harm")   or   p ≤ s ("not shown to be safe"): the same with one side and t = s.

The rates may change from block to block, for both versions together: the null need only hold within each block. Where
what is expected lies inside the null nothing is bet, and evidence neither grows nor falls.

A block with more rows than all before it, such as the first one of a step or the one after a pause of control, would be
bet on by knowledge of little. There the bet is divided between what the past says and guesses that were fixed before
(`GUESSES`): a mean of ratios, each with a mean ≤ 1, has a mean ≤ 1. It costs ln 2 at the most and, as rows have doubled
before it comes again, seldom.

Rows of a block are taken as independent given the block's rates. Rows that share their fate, in groups of at most
`clustered` rows, are allowed for by dividing the evidence by `clustered`: E[ΠR^(1/k)] ≤ ΠE[R]^(1/k) (Hölder), so the
level stays, at the price of as many times the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

PRIOR_ROWS = 2.0
"""Rows that "the candidate is as the baseline" is worth before anything is known. It changes power, not the level."""

GUESSES = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.95, 0.995)
"""Rates that a large block is bet on beside what was seen. They change power, not the level."""

_BISECTIONS = 60  # halvings of an interval of at most 1: beyond float64's precision of rates


class Side(Enum):
    """Which alternative the evidence is for."""

    HARM = "harm"
    SAFE = "safe"


@dataclass(frozen=True)
class PairedRows:
    """Hits among rows of the candidate and of the baseline."""

    candidate_hits: int
    candidate_rows: int
    baseline_hits: int
    baseline_rows: int

    def __post_init__(self) -> None:
        if not (0 <= self.candidate_hits <= self.candidate_rows and 0 <= self.baseline_hits <= self.baseline_rows):
            raise ValueError(f"expected 0 <= hits <= rows on both sides, got {self}")


@dataclass(frozen=True)
class Line:
    """What is allowed of the candidate: ratio × the baseline's rate + margin."""

    ratio: float = 1.0
    margin: float = 0.0

    def at(self, baseline: float) -> float:
        return self.ratio * baseline + self.margin


def pair_log_e(side: Side, line: Line, past: PairedRows, block: PairedRows, clustered: float = 1.0) -> float:
    """Logarithm of the factor by which `block` changes the e-value for `side`; 0 where nothing is bet.

    `past`: all rows before the block, counted as the block's are. Sizes of blocks must not depend on what is in them.
    """
    n, m = block.candidate_rows, block.baseline_rows
    if not (n and m):
        return 0.0
    told = _pair_bet(side, line, past, block) if past.candidate_rows and past.baseline_rows else 0.0
    if n <= past.candidate_rows:
        return told / clustered
    guessed = [_pair_log_ratio(line, c, b, block) for c in GUESSES for b in GUESSES if _beyond(side, c, line.at(b))]
    return _divided(told, guessed, clustered)


def _pair_bet(side: Side, line: Line, past: PairedRows, block: PairedRows) -> float:
    b = (past.baseline_hits + 0.5) / (past.baseline_rows + 1)
    c = (past.candidate_hits + PRIOR_ROWS * b) / (past.candidate_rows + PRIOR_ROWS)
    return _pair_log_ratio(line, c, b, block) if _beyond(side, c, line.at(b)) else 0.0


def _pair_log_ratio(line: Line, c: float, b: float, block: PairedRows) -> float:
    n, m = block.candidate_rows, block.baseline_rows
    tc, tb = _nearest(line, c, b, n, m)
    if not (0 < tc < 1 and 0 < tb < 1):
        return 0.0
    return _log_ratio(block.candidate_hits, n, c, tc) + _log_ratio(block.baseline_hits, m, b, tb)


def _beyond(side: Side, rate: float, allowed: float) -> bool:
    return rate > allowed if side is Side.HARM else rate < allowed


def _divided(told: float, guessed: list[float], clustered: float) -> float:
    """Log of half the one and half the mean of the others; each is made smaller before, so the level stays (Hölder)."""
    told, guessed = told / clustered, [each / clustered for each in guessed]
    if not guessed:
        return told
    most = max(told, *guessed)
    mean = sum(math.exp(each - most) for each in guessed) / len(guessed)
    return most + math.log((math.exp(told - most) + mean) / 2)


def share_log_e(side: Side, limit: float, past: tuple[int, int], block: tuple[int, int], clustered: float = 1) -> float:
    """The same of one share with the least one allowed. `past`, `block`: (hits, rows); 0 < limit < 1."""
    hits, rows = block
    if not 0 <= hits <= rows:
        raise ValueError(f"expected 0 <= hits <= rows, got {block}")
    if not rows:
        return 0.0
    expected = (past[0] + PRIOR_ROWS * limit) / (past[1] + PRIOR_ROWS)
    worse = Side.SAFE if side is Side.HARM else Side.HARM  # of a share, less is worse
    told = _log_ratio(hits, rows, expected, limit) if _beyond(worse, expected, limit) else 0.0
    if rows <= past[1]:
        return told / clustered
    guessed = [_log_ratio(hits, rows, 1 - c, limit) for c in GUESSES if _beyond(worse, 1 - c, limit)]
    return _divided(told, guessed, clustered)


def _log_ratio(hits: int, rows: int, expected: float, null: float) -> float:
    return hits * math.log(expected / null) + (rows - hits) * math.log((1 - expected) / (1 - null))


def _nearest(line: Line, c: float, b: float, n: int, m: int) -> tuple[float, float]:
    """The point (tc, tb) of the line with the least n·KL(c‖tc) + m·KL(b‖tb)."""
    r, d = line.ratio, line.margin
    if r == 1.0 and d == 0.0:
        pooled = (n * c + m * b) / (n + m)
        return pooled, pooled
    meets = (c - d) / r  # the baseline's rate at which the line has the candidate's
    low, high = max(min(b, meets), -d / r, 0.0), min(max(b, meets), (1 - d) / r, 1.0)
    for _ in range(_BISECTIONS):
        tb = (low + high) / 2
        tc = r * tb + d
        if not (0 < tc < 1 and 0 < tb < 1):
            break
        slope = n * r * (tc - c) / (tc * (1 - tc)) + m * (tb - b) / (tb * (1 - tb))
        low, high = (tb, high) if slope < 0 else (low, tb)
    tb = (low + high) / 2
    return r * tb + d, tb
