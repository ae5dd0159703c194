"""What a gate has gathered in a step, one look after another, and what it says.

Evidence is ln e (rates, latency, agreement, quality) or −ln p (means). Harm is shown at ln(1/α) of the gate's share of
the plan's error level, safety at ln(1/promotion_alpha).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from runtime.drift.sequential import MixtureSprt
from runtime.rollout.counts import Counts, DriftSign, Mean, Observation
from runtime.rollout.gates import AgreementGate, DriftGate, ErrorGate, Gate, LatencyGate, MeanGate, QualityGate
from runtime.rollout.latency import exceedances, place, quantile_bucket, shift_of, upper_bound_seconds
from runtime.rollout.plan import Plan
from runtime.rollout.rates import Line, PairedRows, Side, pair_log_e, share_log_e

MEAN_ROWS = 100
"""From so many rows of both versions on, a mean is near enough to normal."""


@dataclass(frozen=True)
class Evidence:
    """Of one gate in one step: for harm and for safety, in nats. `drift`: the last verdict, of a drift gate."""

    harm: float = 0.0
    safe: float = 0.0
    drift: DriftSign = DriftSign.UNKNOWN


class Says(Enum):
    HARM = "harm shown"
    SAFE = "shown to be safe"
    OPEN = "neither shown"


@dataclass(frozen=True)
class Reading:
    """A gate at one look. `candidate`, `baseline`, `allowed` in `unit`; None where nothing is known or to be known.

    `harm`, `safe`: evidence in nats; `harm_needed`, `safe_needed`: from where it counts as shown.
    """

    gate: str
    says: Says
    harm: float
    harm_needed: float
    safe: float
    safe_needed: float
    candidate: float | None = None
    baseline: float | None = None
    allowed: float | None = None
    rows: tuple[int, int] = (0, 0)
    unit: str = ""
    note: str = ""

    def sentence(self) -> str:
        """For people: which, what it says, the figures, how sure."""
        parts = [f"{self.gate}: {self.says.value}"]
        if self.candidate is not None:
            figures = f"candidate {_figure(self.candidate, self.unit)}"
            if self.baseline is not None:
                figures += f", baseline {_figure(self.baseline, self.unit)}"
            if self.allowed is not None:
                figures += f", allowed {_figure(self.allowed, self.unit)}"
            parts.append(figures)
        parts += [self.note] if self.note else []
        if self.rows != (0, 0):
            parts.append(f"{self.rows[0]:,} and {self.rows[1]:,} rows")
            parts.append(f"evidence of harm {self.harm:.1f} of {self.harm_needed:.1f}")
            parts.append(f"of safety {self.safe:.1f} of {self.safe_needed:.1f}")
        return "; ".join(parts)


def _figure(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.3g} %"
    return f"{1000 * value:.3g} ms" if unit == "s" else f"{value:.4g}"


def weigh(
    gate: Gate, evidence: Evidence, before: Counts, block: Counts, after: Counts, observation: Observation, plan: Plan
) -> Evidence:
    """A gate's evidence after a look. `before` and `after`: all of the step; `block`: what came between."""
    clustered = float(plan.clustered_requests)
    match gate:
        case DriftGate():
            return Evidence(drift=dict(observation.drift).get(gate.name, evidence.drift))
        case MeanGate():
            means = after.candidate.mean(gate.name), after.baseline.mean(gate.name)
            return _means(gate, evidence, *means, clustered)
        case AgreementGate():
            past, new = (before.agreed, before.compared), (block.agreed, block.compared)
            harm, safe = (share_log_e(side, gate.min_share, past, new, clustered) for side in (Side.HARM, Side.SAFE))
        case LatencyGate():
            harm, safe = (_latency(gate, side, before, block, clustered) for side in (Side.HARM, Side.SAFE))
        case ErrorGate():  # and QualityGate
            line, pairs = Line(gate.ratio, gate.margin), (_pair(gate, before), _pair(gate, block))
            harm, safe = (pair_log_e(side, line, *pairs, clustered) for side in (Side.HARM, Side.SAFE))
    return Evidence(evidence.harm + harm, evidence.safe + safe)


def weigh_replay(gate: Gate, evidence: Evidence, before: Counts, block: Counts, plan: Plan) -> Evidence:
    """A gate's evidence with a block of replayed rows. `before`: all of the step that came before it, of both kinds.

    The baseline had answered these rows, so its own rate of errors is less here than among all requests. With a ratio
    below 1 the line would lie lower for that, and a version that is worse than allowed could pass: no bet on safety.
    """
    clustered = float(plan.clustered_requests)
    match gate:
        case AgreementGate():
            past, new = (before.agreed, before.compared), (block.agreed, block.compared)
            harm, safe = (share_log_e(side, gate.min_share, past, new, clustered) for side in (Side.HARM, Side.SAFE))
        case ErrorGate() if not isinstance(gate, QualityGate):
            line, pairs = Line(gate.ratio, gate.margin), (_pair(gate, before), _pair(gate, block))
            harm, safe = (pair_log_e(side, line, *pairs, clustered) for side in (Side.HARM, Side.SAFE))
            safe = safe if gate.ratio >= 1 else 0.0
        case _:
            return evidence
    return Evidence(evidence.harm + harm, evidence.safe + safe, evidence.drift)


def _pair(gate: ErrorGate, counts: Counts) -> PairedRows:
    c, b = counts.candidate, counts.baseline
    if isinstance(gate, QualityGate):
        return PairedRows(c.wrong, c.labelled, b.wrong, b.labelled)
    return PairedRows(c.errors, c.requests, b.errors, b.requests)


def _latency(gate: LatencyGate, side: Side, before: Counts, block: Counts, clustered: float) -> float:
    shift = shift_of(gate.ratio, side)
    bucket = place(before.baseline.latency, gate.quantile, shift)
    if bucket is None:
        return 0.0
    past, new = (exceedances(c.candidate.latency, c.baseline.latency, bucket, shift) for c in (before, block))
    return pair_log_e(side, Line(), past, new, clustered)


def _means(gate: MeanGate, evidence: Evidence, c: Mean, b: Mean, clustered: float) -> Evidence:
    """Harm: |difference| > margin, safety: < margin, each by the mixture test of what is beyond the margin.

    −ln p of a test only grows: p is the least so far. Rows that share their fate make a mean's variance larger, at most
    by their number.
    """
    if min(c.rows, b.rows) < MEAN_ROWS:
        return evidence
    variance = clustered * (c.variance / c.rows + b.variance / b.rows)
    apart = abs(c.mean - b.mean)
    beyond, within = max(apart - gate.margin, 0.0), max(gate.margin - apart, 0.0)
    test = MixtureSprt(gate.margin**2)
    harm, safe = (math.log(test.likelihood_ratio(difference, variance)) for difference in (beyond, within))
    return Evidence(max(evidence.harm, harm), max(evidence.safe, safe))


def read(name: str, gate: Gate, evidence: Evidence, counts: Counts, plan: Plan) -> Reading:
    """What the gate says with this evidence."""
    needed = math.log(1 / plan.harm_level), math.log(1 / plan.promotion_alpha)
    if isinstance(gate, DriftGate):
        says = {DriftSign.DRIFTED: Says.HARM, DriftSign.STABLE: Says.SAFE}.get(evidence.drift, Says.OPEN)
        return Reading(name, says, 0.0, needed[0], 0.0, needed[1], note=evidence.drift.value)
    says = Says.OPEN
    if evidence.harm >= needed[0]:
        says = Says.HARM
    elif evidence.safe >= needed[1]:
        says = Says.SAFE
    candidate, baseline, allowed, rows, unit = _figures(gate, counts)
    return Reading(
        name, says, evidence.harm, needed[0], evidence.safe, needed[1], candidate, baseline, allowed, rows, unit
    )


Figures = tuple[float | None, float | None, float | None, tuple[int, int], str]


def _figures(gate: Gate, counts: Counts) -> Figures:
    c, b = counts.candidate, counts.baseline
    match gate:
        case AgreementGate():
            share = counts.agreed / counts.compared if counts.compared else None
            return share, None, gate.min_share, (counts.compared, counts.compared), "%"
        case LatencyGate():
            seconds = [_quantile_seconds(arm.latency, gate.quantile) for arm in (c, b)]
            allowed = None if seconds[1] is None else gate.ratio * seconds[1]
            return seconds[0], seconds[1], allowed, (c.requests, b.requests), "s"
        case MeanGate():
            means = c.mean(gate.name), b.mean(gate.name)
            if not all(mean.rows for mean in means):
                return None, None, None, (means[0].rows, means[1].rows), ""
            allowed = means[1].mean + math.copysign(gate.margin, means[0].mean - means[1].mean)
            return means[0].mean, means[1].mean, allowed, (means[0].rows, means[1].rows), ""
        case ErrorGate():
            pair = _pair(gate, counts)
            rows = pair.candidate_rows, pair.baseline_rows
            if not all(rows):
                return None, None, None, rows, "%"
            base = pair.baseline_hits / rows[1]
            return pair.candidate_hits / rows[0], base, gate.ratio * base + gate.margin, rows, "%"
    return None, None, None, (0, 0), ""


def _quantile_seconds(histogram: tuple[tuple[int, int], ...], q: float) -> float | None:
    bucket = quantile_bucket(histogram, q)
    return None if bucket is None else upper_bound_seconds(bucket)
