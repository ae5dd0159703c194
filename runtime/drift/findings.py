"""The aspects of one subject: each a distance with its noise floor, and the p-value of its own null hypothesis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from runtime.drift import cells, distance, null
from runtime.drift.binned import (
    ZERO_REACH,
    Apart,
    Bins,
    BinsMismatch,
    CategoryBins,
    Counts,
    ExactMoments,
    NumericBins,
    RateCounts,
    align,
)
from runtime.drift.classifier import Separation, auc_noise
from runtime.drift.correlation import Correlation, moved, moved_floor, moved_tail
from runtime.drift.means import Move, beside_constant, mean_moved, spread_moved
from runtime.drift.verdict import Aspect, Effect, Finding, Role


@dataclass(frozen=True)
class Thresholds:
    """From which effect on a change matters. Significance is not their business."""

    psi: float = 0.1
    """Nats. 0.1 is the usual "some change"; a shift of 0.25σ of a normal feature has 0.06."""
    js_distance: float = 0.1
    """Base 2, 0 to 1. A shift of 0.25σ of a normal feature has 0.105."""
    ks: float = 0.1
    """Largest difference of the distribution functions: a tenth of the rows."""
    wasserstein: float = 0.1
    """Standard deviations of the reference that the average row has moved."""
    mean: float = 0.1
    """Standard deviations of the reference, where bins are too wide to tell: a smaller move is none for Wasserstein."""
    spread: float = 0.2
    """|ln(σ′/σ)|, where bins are too wide to tell: σ · 1.22, variance · 1.5."""
    rate: float = 0.01
    """Difference of a share: one row in a hundred."""
    correlation: float = 0.2
    """Cohen's q: between small (0.1) and medium (0.3)."""
    separation: float = 0.1
    """max(2·AUC − 1, 0)."""

    def __post_init__(self) -> None:
        if bad := {name: value for name, value in vars(self).items() if not value > 0}:
            raise ValueError(f"expected thresholds above 0, got {bad}")


SERVICE_THRESHOLDS = Thresholds(psi=0.25, js_distance=0.2, ks=0.2, wasserstein=0.5, mean=0.5, spread=0.7)
"""Latencies come in bursts, so that rows say less than they count for: only what half a σ and a fifth of the requests
show is a change. Errors keep the threshold of shares."""


def findings_of(
    subject: str, role: Role, reference: Bins, live: Bins, thresholds: Thresholds, level: float
) -> Iterator[Finding]:
    """`level`: what one hypothesis has of the family's level; noise floors are given at it.

    Aspects of which neither side has a row are left out: there is nothing to test. BinsMismatch if the kinds differ.
    """
    match reference, live:
        case NumericBins(), NumericBins():
            yield from _numeric(subject, role, reference, live, thresholds, level)
        case CategoryBins(), CategoryBins():
            yield _category_shape(subject, role, reference, live, thresholds, level)
            new = cells.new_categories(reference, live)
            hits = (new.reference, new.live)
            if any(hits):
                rows = (reference.total, live.total)
                yield _rate(subject, role, Aspect.NEW_CATEGORY, hits, rows, thresholds.rate, level, new.surplus)
        case RateCounts(), RateCounts():
            hits, rows = (reference.hits, live.hits), (reference.rows, live.rows)
            burst = max(reference.burst, live.burst)
            yield _rate(subject, role, Aspect.RATE, hits, rows, thresholds.rate, level, burst)
            return
        case _:
            kinds = f"{type(reference).__name__} and {type(live).__name__}"
            raise BinsMismatch(f"{subject}: expected one kind on both sides, got {kinds}")
    rows = (reference.rows, live.rows)
    for aspect, hits in _apart(reference.apart, live.apart):
        if any(hits):
            yield _rate(subject, role, aspect, hits, rows, thresholds.rate, level)


def _apart(reference: Apart, live: Apart) -> Iterator[tuple[Aspect, tuple[int, int]]]:
    yield Aspect.MISSING, (reference.missing, live.missing)
    yield Aspect.NAN, (reference.nan, live.nan)
    yield Aspect.INFINITE, (reference.infinite, live.infinite)
    yield Aspect.OUT_OF_RANGE, (reference.out_of_range, live.out_of_range)


def _rate(
    subject: str,
    role: Role,
    aspect: Aspect,
    hits: tuple[int, int],
    rows: tuple[int, int],
    threshold: float,
    level: float,
    surplus: float = 1.0,
) -> Finding:
    shares = [hit / row if row else 0.0 for hit, row in zip(hits, rows, strict=True)]
    pooled = sum(hits) / max(sum(rows), 1)
    floor = float(np.sqrt(2 / np.pi * pooled * (1 - pooled) * null.noise(*rows))) if all(rows) else np.inf
    difference = abs(shares[1] - shares[0])
    counts = tuple(int(count / surplus) for count in (hits[0], rows[0], hits[1], rows[1]))
    critical = null.rate_detectable(counts[0], counts[1], counts[3], level)
    effect = Effect("difference of shares", difference, difference, difference, floor, critical, threshold)
    p = null.rate_tail(*counts)
    note = f"{shares[1]:.3%} where {shares[0]:.3%} were expected"
    return Finding(subject, role, aspect, (effect,), p, rows[0], rows[1], note=note)


def _divergences(reference: Counts, live: Counts, thresholds: Thresholds, level: float) -> tuple[Effect, ...]:
    """PSI and Jensen-Shannon over cells that either side has; floors by the cells that are left."""
    there = (reference + live) > 0
    reference, live = reference[there], live[there]
    n, m, size = int(reference.sum()), int(live.sum()), int(there.sum())
    psi = distance.psi(reference, live)
    js = distance.js_distance(reference, live, base=2)
    psi_floor, js_floor = null.psi_floor(n, m, size, level), null.js_floor(n, m, size, level)
    root = [float(np.sqrt(nats / np.log(2))) for nats in (js_floor.mean, js_floor.critical)]
    return (
        Effect("PSI", psi, psi, psi, psi_floor.mean, psi_floor.critical, thresholds.psi),
        Effect("Jensen-Shannon distance", js, js, js, root[0], root[1], thresholds.js_distance, "(base 2)"),
    )


def _no_rows(subject: str, role: Role, reference: int, live: int, thresholds: Thresholds) -> Finding:
    nothing = Effect("PSI", 0.0, 0.0, 0.0, np.inf, np.inf, thresholds.psi)
    return Finding(subject, role, Aspect.SHAPE, (nothing,), 1.0, reference, live, note="no values on one side")


def _numeric(
    subject: str, role: Role, reference: NumericBins, live: NumericBins, thresholds: Thresholds, level: float
) -> Iterator[Finding]:
    """The shape, and where bins are too wide for it the exact moments: these first, if the shape can say nothing."""
    if reference.total == 0 or live.total == 0:
        yield _no_rows(subject, role, reference.total, live.total, thresholds)
        return
    unseen = _unseen(reference)
    hides = unseen >= thresholds.wasserstein
    # What bins hide in KS is the rows of one of them.
    hidden = hides and reference.counts.max() >= thresholds.ks * reference.total
    shape = _numeric_shape(subject, role, reference, live, thresholds, level)
    if hidden:
        width = f"up to {unseen:.2g} σ" if unseen < np.inf else "any change"
        shape = replace(shape, hidden=True, note=f"{width} may lie inside of bins")
    moments: tuple[Finding, ...] = ()
    if hides and reference.exact is not None and live.exact is not None:
        moments = _moments(subject, role, reference.exact, live.exact, thresholds, level)
    yield from (*moments, shape) if hidden else (shape, *moments)


def _unseen(reference: NumericBins) -> float:
    """Multiples of σ that two samples such as the reference may differ by inside of its bins.

    Of the reference only, so that what is tested does not hang on what the live rows are.
    """
    unit = reference.deviation
    if unit > 0:
        return 2 * distance.in_units(reference.snapped, reference.largest, unit)
    return np.inf if reference.snapped * reference.largest > ZERO_REACH else 0.0


def _moments(
    subject: str, role: Role, reference: ExactMoments, live: ExactMoments, thresholds: Thresholds, level: float
) -> tuple[Finding, Finding]:
    def finding(aspect: Aspect, measure: str, unit: str, move: Move, threshold: float, note: str) -> Finding:
        effect = Effect(measure, move.value, move.value, move.value, move.floor, move.critical, threshold, unit)
        return Finding(subject, role, aspect, (effect,), move.p, reference.count, live.count, note=note)

    note = f"{live.mean:.6g} where {reference.mean:.6g} was expected"
    moved = mean_moved(reference, live, level)
    mean = finding(Aspect.MEAN, "difference of means", "σ", moved, thresholds.mean, note)
    note = f"σ {live.deviation:.4g} where it was {reference.deviation:.4g}"
    if reference.constant != live.constant:
        off = beside_constant(reference, live, level)
        return mean, finding(Aspect.SPREAD, "rows beside a constant", "", off, thresholds.rate, note)
    spread = spread_moved(reference, live, level)
    return mean, finding(Aspect.SPREAD, "|ln σ′/σ|", "", spread, thresholds.spread, note)


def _numeric_shape(
    subject: str, role: Role, reference: NumericBins, live: NumericBins, thresholds: Thresholds, level: float
) -> Finding:
    n, m = reference.total, live.total
    level /= 2  # two tests share it
    own, expected = cells.own_cells(reference)
    few = expected, own.count(live)
    _, p, q = align(reference, live)
    bracket, ks_floor = distance.ks_bracket(p, q), null.ks_floor(n, m, level)
    sigma = reference.deviation or live.deviation or 1.0
    steps = distance.Steps.of(reference, live)
    w1 = distance.wasserstein(reference, live, unit=sigma, steps=steps)
    error = distance.wasserstein_error(reference, live, unit=sigma)
    w1_floor = null.wasserstein_floor(reference, live, level, unit=sigma, steps=steps)
    effects = (
        *_divergences(*few, thresholds, level),
        Effect("KS", bracket.low, bracket.low, bracket.high, ks_floor.mean, ks_floor.critical, thresholds.ks),
        Effect(
            "Wasserstein distance",
            w1,
            max(w1 - error, 0.0),
            w1 + error,
            w1_floor.mean,
            w1_floor.critical,
            thresholds.wasserstein,
            "σ",
        ),
    )
    p_value = min(1.0, 2 * min(null.counts_tail(*few), null.ks_tail(bracket.low, n, m)))
    return Finding(subject, role, Aspect.SHAPE, effects, p_value, n, m)


def _category_shape(
    subject: str, role: Role, reference: CategoryBins, live: CategoryBins, thresholds: Thresholds, level: float
) -> Finding:
    n, m = reference.total, live.total
    if n == 0 or m == 0:
        return _no_rows(subject, role, n, m, thresholds)
    names = cells.category_cells(reference)
    few = cells.count_categories(reference, names), cells.count_categories(live, names)
    total = distance.total_variation(*few)
    mean = float(np.sqrt(null.noise(n, m) * (len(names)) / (2 * np.pi)))
    critical = float(np.sqrt(null.psi_floor(n, m, len(names) + 1, level).critical)) / 2  # TV ≤ √PSI/2 (Pinsker)
    variation = Effect("total variation", total, total, total, mean, critical, thresholds.ks)
    return Finding(
        subject,
        role,
        Aspect.SHAPE,
        (*_divergences(*few, thresholds, level), variation),
        null.counts_tail(*few),
        n,
        m,
        note=_moved_most(few, names),
    )


def _moved_most(few: tuple[Counts, Counts], names: tuple[str, ...]) -> str:
    p, q = distance.shares(few[0]), distance.shares(few[1])
    at = int(np.argmax(np.abs(p - q)))
    return f"{names[at] if at < len(names) else 'other'}: {q[at]:.3%} where {p[at]:.3%} were expected"


def correlation_finding(
    subject: str, role: Role, reference: Correlation, live: Correlation, thresholds: Thresholds, level: float
) -> Finding:
    q = moved(reference, live)
    mean, critical = moved_floor(reference, live, level)
    effect = Effect("Cohen's q", q, q, q, mean, critical, thresholds.correlation)
    note = f"r {live.value:.3f} where it was {reference.value:.3f}"
    p = moved_tail(reference, live)
    return Finding(subject, role, Aspect.CORRELATION, (effect,), p, reference.rows, live.rows, note=note)


def separation_finding(subject: str, separation: Separation, thresholds: Thresholds, level: float) -> Finding:
    n, m = separation.held_out
    deviation = auc_noise(n, m)
    critical = 2 * deviation * float(null.normal_quantile(level))
    floor = 2 * deviation / float(np.sqrt(2 * np.pi))  # mean of the positive half
    drift = separation.drift
    effect = Effect("2·AUC−1", drift, drift, drift, floor, critical, thresholds.separation)
    note = ", ".join(f"{name} {weight:+.2f}" for name, weight in separation.weights)
    return Finding(subject, Role.JOINT, Aspect.SEPARATION, (effect,), separation.p, n, m, note=note)
