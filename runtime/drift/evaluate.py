"""One look: a live window against a reference, every subject in every aspect, at one level for all.

The level is the probability of any false alarm in `looks` consecutive looks, over all subjects and aspects:

    each look has level/looks; within a look Holm's correction covers its hypotheses, whatever their dependence.

By Bonferroni over looks this too holds for any dependence, so windows may overlap, and all may be compared with one
reference. On average over references and windows, false alarms come at most once in looks/level looks, for as long as
one looks. Rows must be independent of each other: n rows of one burst count as n.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from runtime.drift.binned import Bins, BinsMismatch, Floats
from runtime.drift.classifier import separation
from runtime.drift.correlation import Correlation
from runtime.drift.findings import SERVICE_THRESHOLDS, Thresholds, correlation_finding, findings_of, separation_finding
from runtime.drift.multiple import holm
from runtime.drift.verdict import Alarm, Decision, Finding, Hysteresis, Role, Verdict
from runtime.yielding import let_others_run

JOINT = "all features"

DERIVED = frozenset({Role.PROJECTION, Role.JOINT})
"""Subjects that are made of others' rows."""

A_DAY_OF_LOOKS = 8_640
"""One look every 10 s."""


@dataclass(frozen=True)
class Parameters:
    level: float = 0.05
    """Probability of any false alarm in `looks` looks."""
    looks: int = A_DAY_OF_LOOKS
    thresholds: Thresholds = field(default_factory=Thresholds)
    service_thresholds: Thresholds = field(default_factory=lambda: SERVICE_THRESHOLDS)
    """Of subjects with Role.SERVICE."""
    hysteresis: Hysteresis = field(default_factory=Hysteresis)
    seed: int = 0
    """Of the classifier's split into halves."""

    def __post_init__(self) -> None:
        if not 0 < self.level < 1 or self.looks < 1:
            raise ValueError(f"expected 0 < level < 1 and looks >= 1, got {self.level} and {self.looks}")

    @property
    def level_of_a_look(self) -> float:
        return self.level / self.looks

    def thresholds_of(self, role: Role) -> Thresholds:
        return self.service_thresholds if role is Role.SERVICE else self.thresholds


@dataclass(frozen=True, eq=False)
class Sample:
    """What is known of one sample. `source` names it in verdicts: a profile's digest, a reference's name, a window.

    `rows`: float64[rows, features] of a reservoir, in the order of `columns`; None without the classifier.
    """

    source: str
    subjects: Mapping[str, Bins]
    start_seconds: float = 0.0
    end_seconds: float = 0.0
    roles: Mapping[str, Role] = field(default_factory=dict)
    """Of subjects that are not features."""
    correlations: Mapping[str, Correlation] = field(default_factory=dict)
    """Of a subject with the prediction, by subject."""
    rows: Floats | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class DriftReport:
    """One look. `verdicts` are `ranked`."""

    reference: str
    window: str
    start_seconds: float
    end_seconds: float
    verdicts: tuple[Verdict, ...]
    hypotheses: int
    level: float
    looks: int
    uncompared: tuple[str, ...] = ()
    """Subjects that only one side has."""

    @property
    def drifted(self) -> tuple[str, ...]:
        return tuple(verdict.subject for verdict in self.verdicts if verdict.decision is Decision.DRIFTED)

    @property
    def decision(self) -> Decision:
        """Of the model: drifted if anything is; stable if all that is measured itself is.

        Projections and the classifier see few rows of many. What they have not enough data for is said in their
        verdicts, and does not make a model of stable features one of which nothing is known.
        """
        if self.drifted:
            return Decision.DRIFTED
        own = [verdict for verdict in self.verdicts if verdict.role not in DERIVED] or self.verdicts
        known = bool(own) and all(verdict.decision is Decision.STABLE for verdict in own)
        return Decision.STABLE if known else Decision.NOT_ENOUGH_DATA

    @property
    def guarantee(self) -> str:
        return (
            f"without drift, and with independent rows, any of {self.hypotheses} hypotheses alarms in any of "
            f"{self.looks:,} looks with probability of at most {self.level:g}"
        )

    def of(self, subject: str) -> Verdict:
        return next(verdict for verdict in self.verdicts if verdict.subject == subject)


def evaluate(reference: Sample, live: Sample, parameters: Parameters | None = None) -> DriftReport:
    """Raises BinsMismatch where a subject is of another kind on the other side."""
    parameters = parameters or Parameters()
    common = [subject for subject in reference.subjects if subject in live.subjects]
    # For noise floors only: Holm's first step. About three aspects of a subject have rows.
    each = parameters.level_of_a_look / max(3 * len(common) + len(reference.correlations) + 1, 1)
    findings: list[Finding] = []
    for subject in common:
        role = reference.roles.get(subject, Role.FEATURE)
        pair = reference.subjects[subject], live.subjects[subject]
        findings += findings_of(subject, role, *pair, parameters.thresholds_of(role), each)
        let_others_run()
    for subject in reference.correlations:
        if subject in live.correlations:
            role = reference.roles.get(subject, Role.FEATURE)
            both = reference.correlations[subject], live.correlations[subject]
            findings.append(correlation_finding(subject, role, *both, parameters.thresholds, each))
    if reference.rows is not None and live.rows is not None:
        if reference.columns != live.columns:
            raise BinsMismatch("expected the same columns in the rows of both sides")
        told = separation(reference.rows, live.rows, seed=parameters.seed, names=reference.columns)
        findings.append(separation_finding(JOINT, told, parameters.thresholds, each))
    adjusted = np.minimum(holm([finding.p for finding in findings]) * parameters.looks, 1.0)
    findings = [replace(finding, p_adjusted=float(p)) for finding, p in zip(findings, adjusted, strict=True)]
    by_subject: dict[str, list[Finding]] = {}
    for finding in findings:
        by_subject.setdefault(finding.subject, []).append(finding)
    verdicts = [_verdict(of_subject, reference.source, parameters.level) for of_subject in by_subject.values()]
    only_one = (reference.subjects.keys() ^ live.subjects.keys()) | (
        reference.correlations.keys() ^ live.correlations.keys()
    )
    return DriftReport(
        reference=reference.source,
        window=live.source,
        start_seconds=live.start_seconds,
        end_seconds=live.end_seconds,
        verdicts=ranked(verdicts),
        hypotheses=len(findings),
        level=parameters.level,
        looks=parameters.looks,
        uncompared=tuple(sorted(only_one)),
    )


def _verdict(findings: list[Finding], reference: str, level: float) -> Verdict:
    """A subject has drifted if any aspect has; else its first aspect decides whether there are rows enough."""
    drifted = [finding for finding in findings if finding.decide(level) is Decision.DRIFTED]
    chosen = max(drifted, key=lambda finding: finding.strongest.times_threshold) if drifted else findings[0]
    return Verdict(
        subject=chosen.subject,
        role=chosen.role,
        decision=chosen.decide(level),
        finding=chosen,
        findings=tuple(findings),
        reference=reference,
        effect=chosen.strongest.times_threshold,
    )


def ranked(verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """Alarmed ones first, then drifted ones, then by effect. What is made of other subjects' rows comes after those."""
    return tuple(
        sorted(
            verdicts,
            key=lambda v: (
                not v.alarmed,
                v.decision is not Decision.DRIFTED,
                v.role in DERIVED,
                -v.effect,
                v.subject,
            ),
        )
    )


def follow(
    report: DriftReport, alarms: Mapping[str, Alarm], hysteresis: Hysteresis | None = None
) -> tuple[DriftReport, dict[str, Alarm]]:
    """The report with alarms and since when, and the alarms after this look. Subjects not in it keep theirs."""
    hysteresis = hysteresis or Hysteresis()
    after = dict(alarms)
    verdicts = []
    for verdict in report.verdicts:
        alarm = after.get(verdict.subject, Alarm()).after(verdict.decision, report.start_seconds, hysteresis)
        after[verdict.subject] = alarm
        verdicts.append(replace(verdict, since_seconds=alarm.since_seconds, alarmed=alarm.raised))
    return replace(report, verdicts=ranked(verdicts)), after
