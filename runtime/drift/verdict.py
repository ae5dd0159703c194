"""What is said of a feature: the values, the evidence, the decision, and since when.

A decision needs effect and significance: a difference that matters (at or above its threshold) and that chance does not
explain (p at or under the level after correction). One alone is no drift, so neither ten million rows of a change of no
consequence nor a hundred rows of noise give an alarm.

    DRIFTED            both
    STABLE             not both, and a change at the threshold would have shown
    NOT_ENOUGH_DATA    not both, but a change at the threshold need not have shown, with so few rows or so wide bins

Alarms have memory: `Alarm` goes through the table below, so that one odd window neither raises nor clears one.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from enum import Enum


class Decision(Enum):
    STABLE = "stable"
    DRIFTED = "drifted"
    NOT_ENOUGH_DATA = "not enough data"


class Role(Enum):
    FEATURE = "feature"
    OUTPUT = "output"
    SERVICE = "service"
    """Latency, error rate: measured the same way."""
    PROJECTION = "projection"
    JOINT = "joint"
    """All features together."""


class Aspect(Enum):
    """What of a subject is tested. One aspect is one hypothesis with one p-value."""

    SHAPE = "distribution"
    MEAN = "mean"
    SPREAD = "spread"
    """Mean and spread are tested where bins are too wide to show what the shape's thresholds ask for."""
    MISSING = "missing"
    NAN = "NaN"
    INFINITE = "infinite"
    OUT_OF_RANGE = "out of range"
    NEW_CATEGORY = "new category"
    RATE = "rate"
    CORRELATION = "correlation"
    SEPARATION = "told apart by a classifier"


@dataclass(frozen=True)
class Effect:
    """One measure of how much. `low` and `high` bracket what bins do not tell; `floor` is the mean without drift at
    these sample sizes, `critical` what passes for significant there; `threshold` is what matters. All in `unit`.
    """

    measure: str
    value: float
    low: float
    high: float
    floor: float
    critical: float
    threshold: float
    unit: str = ""

    @property
    def large(self) -> bool:
        return self.low >= self.threshold

    @property
    def visible(self) -> bool:
        """Whether a change at the threshold would have been significant."""
        return self.critical <= self.threshold

    @property
    def times_threshold(self) -> float:
        """What is above the floor, in thresholds: comparable between measures."""
        return min(max(self.low - self.floor, 0.0) / self.threshold, sys.float_info.max)


@dataclass(frozen=True)
class Finding:
    """One aspect of one subject. `p` as tested, `p_adjusted` for all hypotheses and looks that share the level."""

    subject: str
    role: Role
    aspect: Aspect
    effects: tuple[Effect, ...]
    p: float
    reference_rows: int
    live_rows: int
    p_adjusted: float = 1.0
    note: str = ""
    hidden: bool = False
    """Bins are so wide that a change that matters may lie inside of one: without drift nothing is known."""

    @property
    def strongest(self) -> Effect:
        return max(self.effects, key=lambda effect: effect.times_threshold)

    def decide(self, level: float) -> Decision:
        if self.p_adjusted <= level and any(effect.large for effect in self.effects):
            return Decision.DRIFTED
        if not self.hidden and any(effect.visible for effect in self.effects):
            return Decision.STABLE
        return Decision.NOT_ENOUGH_DATA


@dataclass(frozen=True)
class Verdict:
    """Of one subject at one look. `finding` is the one that decides; `findings` are all."""

    subject: str
    role: Role
    decision: Decision
    finding: Finding
    findings: tuple[Finding, ...]
    reference: str
    effect: float = 0.0
    """How large, in thresholds above the floor: what subjects are ranked by."""
    since_seconds: float | None = None
    """Start of the first window of the present alarm; None without one."""
    alarmed: bool = False

    def sentence(self) -> str:
        """For people: which, what, how much, how sure, compared with what, since when."""
        finding, effect = self.finding, self.finding.strongest
        bracket = f" ({effect.low:.3g} to {effect.high:.3g})" if effect.low != effect.high else ""
        unit = f" {effect.unit}" if effect.unit else ""
        much = f"{effect.measure} {effect.value:.3g}{bracket}{unit}"
        parts = [
            f"{self.subject}: {self.decision.value}",
            f"{finding.aspect.value}, {much}, threshold {effect.threshold:.3g}, {effect.floor:.2g} by chance",
            f"p {finding.p_adjusted:.2g} after correction",
            f"{finding.live_rows:,} rows against {finding.reference_rows:,} of {self.reference}",
        ]
        if self.since_seconds is not None:
            parts.append(f"since {self.since_seconds:.0f}")
        return "; ".join(parts)


class AlarmState(Enum):
    QUIET = "quiet"
    SUSPECTED = "suspected"
    ALARMED = "alarmed"
    RECOVERING = "recovering"


class Sign(Enum):
    """What one look says to an alarm."""

    DRIFT = "drift"
    CONFIRMED = "drift, often enough in a row"
    CALM = "calm"
    CALMED = "calm, often enough in a row"
    SILENT = "not enough data"


ALARMS: dict[tuple[AlarmState, Sign], AlarmState] = {
    (AlarmState.QUIET, Sign.DRIFT): AlarmState.SUSPECTED,
    (AlarmState.QUIET, Sign.CONFIRMED): AlarmState.ALARMED,
    (AlarmState.QUIET, Sign.CALM): AlarmState.QUIET,
    (AlarmState.QUIET, Sign.CALMED): AlarmState.QUIET,
    (AlarmState.QUIET, Sign.SILENT): AlarmState.QUIET,
    (AlarmState.SUSPECTED, Sign.DRIFT): AlarmState.SUSPECTED,
    (AlarmState.SUSPECTED, Sign.CONFIRMED): AlarmState.ALARMED,
    (AlarmState.SUSPECTED, Sign.CALM): AlarmState.QUIET,
    (AlarmState.SUSPECTED, Sign.CALMED): AlarmState.QUIET,
    (AlarmState.SUSPECTED, Sign.SILENT): AlarmState.SUSPECTED,
    (AlarmState.ALARMED, Sign.DRIFT): AlarmState.ALARMED,
    (AlarmState.ALARMED, Sign.CONFIRMED): AlarmState.ALARMED,
    (AlarmState.ALARMED, Sign.CALM): AlarmState.RECOVERING,
    (AlarmState.ALARMED, Sign.CALMED): AlarmState.QUIET,
    (AlarmState.ALARMED, Sign.SILENT): AlarmState.ALARMED,
    (AlarmState.RECOVERING, Sign.DRIFT): AlarmState.ALARMED,
    (AlarmState.RECOVERING, Sign.CONFIRMED): AlarmState.ALARMED,
    (AlarmState.RECOVERING, Sign.CALM): AlarmState.RECOVERING,
    (AlarmState.RECOVERING, Sign.CALMED): AlarmState.QUIET,
    (AlarmState.RECOVERING, Sign.SILENT): AlarmState.RECOVERING,
}
"""Without data nothing is concluded: an alarm neither rises nor falls."""


@dataclass(frozen=True)
class Hysteresis:
    raise_looks: int = 2
    """So many looks in a row with drift raise an alarm."""
    clear_looks: int = 6
    """So many looks in a row without drift clear it."""

    def __post_init__(self) -> None:
        if self.raise_looks < 1 or self.clear_looks < 1:
            raise ValueError(f"expected at least one look, got {self}")


@dataclass(frozen=True)
class Alarm:
    """Of one subject, from look to look."""

    state: AlarmState = AlarmState.QUIET
    streak: int = 0
    """Looks in a row with the last sign, drift or calm; those without data do not count."""
    drifting: bool = False
    since_seconds: float | None = None

    @property
    def raised(self) -> bool:
        return self.state in {AlarmState.ALARMED, AlarmState.RECOVERING}

    def after(self, decision: Decision, window_start_seconds: float, hysteresis: Hysteresis) -> Alarm:
        if decision is Decision.NOT_ENOUGH_DATA:
            return replace(self, state=ALARMS[self.state, Sign.SILENT])
        drifting = decision is Decision.DRIFTED
        streak = self.streak + 1 if drifting == self.drifting else 1
        if drifting:
            sign = Sign.CONFIRMED if streak >= hysteresis.raise_looks else Sign.DRIFT
        else:
            sign = Sign.CALMED if streak >= hysteresis.clear_looks else Sign.CALM
        state = ALARMS[self.state, sign]
        since = None if state is AlarmState.QUIET else self.since_seconds
        if drifting and since is None:
            since = window_start_seconds
        return Alarm(state, streak, drifting, since)


def mermaid() -> str:
    """The table as a Mermaid state diagram, for the docs."""
    lines = ["stateDiagram-v2", f"    [*] --> {AlarmState.QUIET.name}"]
    lines += [f"    {a.name} --> {b.name}: {sign.value}" for (a, sign), b in ALARMS.items() if a is not b]
    return "\n".join(lines)
