"""Alarms of one version from look to look, and which of them are news.

Without enough data nothing is concluded, but there is enough for some changes and not for others: where few rows come,
a change as small as a threshold never shows, and an alarm that waited for rows enough would never end. So it ends, too,
where a change as large as the one that it was raised for would have shown, and did not, as often in a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from runtime.drift.evaluate import DERIVED, DriftReport, follow, ranked
from runtime.drift.verdict import Alarm, AlarmState, Decision, Hysteresis, Role, Verdict

AS_MANY_ROWS = 0.9
"""Of the rows of the look with the change. In so many, a change shows as it did."""


@dataclass(frozen=True)
class Grounds:
    """What the last look with drift saw of a subject: the aspect, the measure, its value, and in how many rows."""

    aspect: str
    measure: str
    value: float
    rows: int

    @classmethod
    def of(cls, verdict: Verdict) -> Grounds:
        effect = verdict.finding.strongest
        return cls(verdict.finding.aspect.value, effect.measure, effect.low, verdict.finding.live_rows)

    def would_show(self, verdict: Verdict) -> bool:
        """Whether so large a change would have been significant in that look: in as many rows, or in fewer if it was
        larger than need be.
        """
        if verdict.finding.live_rows >= AS_MANY_ROWS * self.rows:
            return True
        return any(
            effect.critical <= self.value
            for finding in verdict.findings
            for effect in finding.effects
            if (finding.aspect.value, effect.measure) == (self.aspect, self.measure)
        )


class Alarms:
    """One thread at a time, but `raised`. Bounded by the subjects that have ever drifted."""

    def __init__(self, hysteresis: Hysteresis) -> None:
        self._hysteresis = hysteresis
        self._alarms: dict[str, Alarm] = {}
        self._grounds: dict[str, Grounds] = {}
        self.announced: frozenset[str] = frozenset()

    @property
    def raised(self) -> dict[str, float | None]:
        """Since when, by subject."""
        return {subject: alarm.since_seconds for subject, alarm in self._alarms.items() if alarm.raised}

    def after(self, report: DriftReport) -> DriftReport:
        """The report with alarms and since when."""
        decisions = {verdict.subject: verdict.decision for verdict in report.verdicts}
        judged = [replace(verdict, decision=self._for_the_alarm(verdict)) for verdict in report.verdicts]
        followed, alarms = follow(replace(report, verdicts=tuple(judged)), self._alarms, self._hysteresis)
        verdicts = ranked(replace(verdict, decision=decisions[verdict.subject]) for verdict in followed.verdicts)
        self._alarms = {subject: alarm for subject, alarm in alarms.items() if alarm.state is not AlarmState.QUIET}
        drifted = {v.subject: Grounds.of(v) for v in verdicts if v.decision is Decision.DRIFTED}
        self._grounds = {s: g for s, g in (self._grounds | drifted).items() if s in self._alarms}
        return replace(report, verdicts=verdicts)

    def _for_the_alarm(self, verdict: Verdict) -> Decision:
        grounds = self._grounds.get(verdict.subject)
        if verdict.decision is Decision.NOT_ENOUGH_DATA and grounds is not None and grounds.would_show(verdict):
            return Decision.STABLE
        return verdict.decision

    def announce(self, report: DriftReport | None, *, explained: bool) -> tuple[list[str], list[str]]:
        """Subjects whose alarm is news, and those whose end is. `report`: of what was looked at just now.

        A projection's or the classifier's is news only where no feature's drift explains it, nor does `explained`.
        """
        verdicts = report.verdicts if report is not None else ()
        explained = explained or any(
            verdict.alarmed or verdict.decision is Decision.DRIFTED
            for verdict in verdicts
            if verdict.role in (Role.FEATURE, Role.OUTPUT)
        )
        derived = {verdict.subject for verdict in verdicts if verdict.role in DERIVED}
        drifted = {verdict.subject for verdict in verdicts if verdict.decision is Decision.DRIFTED}
        seen = {verdict.subject for verdict in verdicts}
        before = self.announced
        self.announced = frozenset(
            subject
            for subject in self.raised
            if subject in before
            or (subject in seen and (subject not in derived or (subject in drifted and not explained)))
        )
        return sorted(self.announced - before), sorted(before - self.announced)

    def keep(self, subjects: frozenset[str], prefixes: tuple[str, ...]) -> None:
        """Forgets those of others: of features that are not compared any more, which nothing would ever clear."""
        self._alarms = {s: a for s, a in self._alarms.items() if s in subjects or s.startswith(prefixes)}

    def to_json(self) -> dict[str, Any]:
        return {
            "alarms": {
                subject: (alarm.state.value, alarm.streak, alarm.drifting, alarm.since_seconds)
                for subject, alarm in self._alarms.items()
            },
            "grounds": {subject: (g.aspect, g.measure, g.value, g.rows) for subject, g in self._grounds.items()},
            "announced": sorted(self.announced),
        }

    def restore(self, document: Mapping[str, Any]) -> None:
        """Raises ValueError, TypeError, AttributeError or KeyError for what `to_json` has not written."""
        self._alarms = {
            str(subject): Alarm(AlarmState(at), int(streak), bool(drifting), None if since is None else float(since))
            for subject, (at, streak, drifting, since) in document["alarms"].items()
        }
        self._grounds = {
            str(subject): Grounds(str(aspect), str(measure), float(value), int(rows))
            for subject, (aspect, measure, value, rows) in document["grounds"].items()
        }
        self.announced = frozenset(str(subject) for subject in document["announced"]) & self._alarms.keys()
