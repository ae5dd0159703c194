"""The watch over one version: looks at its window, keeps alarms, evidence and the past, and says what has changed.

    offer(pane)       from the event loop, for each pane of time
    due(now)          whether a look may be made: there are new rows, and the processor's time for it
    look(...)         on a thread beside the event loop, one at a time; answers which alarms were raised and cleared
    report, past()    from any thread

A look costs milliseconds to seconds, by the number of features. What it cost decides when the next one may be made.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gateway.control.drift_alarms import Alarms
from gateway.control.drift_budget import SHARE, LookBudget
from gateway.control.drift_evidence import EvidenceChanges, EvidenceWatch
from gateway.control.drift_history import History, Past
from gateway.control.service_counts import PREFIX as SERVICE_PREFIX
from gateway.control.service_counts import ServiceSample
from gateway.store.panes import VersionKey
from runtime.drift.binned import Bins, RateCounts
from runtime.drift.evaluate import JOINT, DriftReport, Parameters, Sample, evaluate, ranked
from runtime.drift.findings import Thresholds
from runtime.drift.verdict import Decision, Hysteresis, Role, Verdict
from runtime.profile.compare import PreparedReference
from runtime.profile.summary import Summary
from runtime.profile.windows import Window
from runtime.repository.statistics_settings import DriftSettings

DAY_SECONDS = 86_400
STATE_VERSION = 1
PROJECTION_PREFIX = "projection "
NO_REFERENCE = "no reference"

By = Literal["window", "evidence"]


class StateInvalid(ValueError):
    """A stored state that this version of driftgate cannot read."""


@dataclass(frozen=True, slots=True)
class Change:
    """An alarm that was raised or cleared. `verdict`: the last one of its subject; None if there is none any more.

    `by`: the window that was looked at, or the evidence of all panes. `since_seconds`: of a raised alarm.
    """

    version: VersionKey
    subject: str
    raised: bool
    by: By
    verdict: Verdict | None
    since_seconds: float | None
    window_seconds: float
    rows: int
    reference: str


@dataclass(frozen=True, eq=False)
class LookReport:
    """The last look. `log_evidence`: by subject, in nats; `evidence_since`: of those that alarm by it.

    `missing`: by feature, the share of the window's rows in which it is missing or NaN.
    """

    looked_at_seconds: float
    report: DriftReport
    rows: int
    log_evidence: Mapping[str, float] = field(default_factory=dict)
    evidence_since: Mapping[str, float] = field(default_factory=dict)
    missing: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """As the report's; those that alarm by evidence alone come after those that alarm by the window."""
        verdicts = self.report.verdicts
        return (
            *(verdict for verdict in verdicts if verdict.alarmed),
            *(verdict for verdict in verdicts if not verdict.alarmed and verdict.subject in self.evidence_since),
            *(verdict for verdict in verdicts if not verdict.alarmed and verdict.subject not in self.evidence_since),
        )

    @property
    def decision(self) -> Decision:
        """Of the version. Too few requests to judge how it answers do not make its features unknown."""
        report = self.report
        if self.evidence_since:
            return Decision.DRIFTED
        own = tuple(verdict for verdict in report.verdicts if verdict.role is not Role.SERVICE)
        return report.decision if report.drifted or not own else replace(report, verdicts=own).decision


def parameters_of(settings: DriftSettings, pane_seconds: int) -> Parameters:
    """The level is for a day of looks, at one a pane."""
    return Parameters(
        level=settings.level,
        looks=max(DAY_SECONDS // pane_seconds, 1),
        thresholds=Thresholds(**settings.thresholds),
        hysteresis=Hysteresis(settings.raise_looks, settings.clear_looks),
    )


class DriftWatch:
    """`reference` None: nothing to compare features with; service is compared with its own past all the same.

    cpu_seconds: the clock that looks are charged by, of the thread that makes them. What a linear algebra library does
    on threads of its own is not in it: it should have one (OPENBLAS_NUM_THREADS).
    """

    def __init__(
        self,
        version: VersionKey,
        settings: DriftSettings,
        pane_seconds: int,
        reference: PreparedReference | None = None,
        *,
        cpu_seconds: Callable[[], float] = time.thread_time,
    ) -> None:
        self.version = version
        self._settings = settings
        self._parameters = parameters_of(settings, pane_seconds)
        self._pane_seconds = pane_seconds
        self._cpu_seconds = cpu_seconds
        self._budget = LookBudget()
        self.looks = 0
        self._begin(reference)

    def _begin(self, reference: PreparedReference | None) -> None:
        self.reference = reference
        self.report: LookReport | None = None
        self._alarms = Alarms(self._parameters.hysteresis)
        self._joint: Verdict | None = None
        self._history = History()
        self._evidence = self._no_evidence()
        self._has_new_rows = True  # a window may be there from before a restart
        self._cpu_spent = 0.0
        self._restored = False

    def _no_evidence(self) -> EvidenceWatch | None:
        # So that it alarms no more often than looks do.
        run_length = self._parameters.looks / self._parameters.level
        return EvidenceWatch(self.reference, run_length) if self.reference is not None else None

    def offer(self, pane: Summary) -> None:
        """A pane of time that shares no row with those before; it stays the caller's. Any thread."""
        if not pane.rows:
            return
        self._has_new_rows = True
        if self._evidence is not None:
            self._evidence.offer(pane)

    @property
    def has_new_rows(self) -> bool:
        """Since the last look."""
        return self._has_new_rows

    def due(self, now_seconds: float) -> bool:
        return self._has_new_rows and self._budget.due(now_seconds)

    def look(
        self, now_seconds: float, window: Window[Summary], service: ServiceSample | None = None, *, watches: int = 1
    ) -> list[Change]:
        """Alarms raised and cleared. `watches`: how many there are, all together, to share the processor with."""
        self._has_new_rows = False
        self.looks += 1
        began = self._cpu_seconds()
        together = self._settings.classifier and self._budget.together(now_seconds)
        changes = self._looked(now_seconds, window, service, together=together)
        self._cpu_spent = self._cpu_seconds() - began
        self._budget.spent(now_seconds, self._cpu_spent, watches, together=together)
        return changes

    def _looked(
        self, now_seconds: float, window: Window[Summary], service: ServiceSample | None, *, together: bool
    ) -> list[Change]:
        by_evidence = EvidenceChanges()
        if self._evidence is not None:
            by_evidence = self._evidence.take_in(now_seconds)
        reference, live, left_out = self._samples(window, service, together=together)
        if not reference.subjects:
            return self._changes(None, by_evidence, window)
        self._forget(window)
        fresh = self._alarms.after(evaluate(reference, live, self._parameters))
        report = self._named(self._with_joint(fresh, together=together), service)
        self.report = LookReport(
            now_seconds,
            replace(report, uncompared=left_out),
            window.rows,
            self._evidence.log_evidence() if self._evidence is not None else {},
            dict(self._evidence.since_seconds) if self._evidence is not None else {},
            {
                subject: share
                for subject, bins in live.subjects.items()
                if reference.roles.get(subject, Role.FEATURE) in (Role.FEATURE, Role.OUTPUT)
                and (share := _missing(bins)) is not None
            },
            self._notes(),
        )
        self._history.add(
            now_seconds,
            window.rows,
            self.report.decision.value,
            {verdict.subject: verdict.effect for verdict in report.verdicts},
            {v.subject for v in report.verdicts if v.alarmed or v.decision is Decision.DRIFTED},
        )
        return self._changes(fresh, by_evidence, window)

    def _forget(self, window: Window[Summary]) -> None:
        """Alarms from before a restart that nothing can clear: their feature is not compared any more."""
        if not self._restored or self.reference is None or window.summary is None:
            return
        self._restored = False
        compared = self.reference.match(window.summary.schema).features.keys()
        derived = {JOINT} if self._settings.classifier else set()
        self._alarms.keep(frozenset(compared | derived), (SERVICE_PREFIX, PROJECTION_PREFIX))

    def _samples(
        self, window: Window[Summary], service: ServiceSample | None, *, together: bool
    ) -> tuple[Sample, Sample, tuple[str, ...]]:
        start, end = float(window.start_seconds), window.end_seconds
        reference = Sample(NO_REFERENCE, {})
        live = Sample(f"{end - start:.0f} s", {}, start, end)
        left_out: tuple[str, ...] = ()
        if self.reference is not None and window.summary is not None and window.rows:
            compared = self.reference.compare(window.summary, start, end, together=together)
            reference, live, left_out = compared.reference, compared.live, compared.left_out
        if service is not None and service.live.requests:
            reference, live = service.beside(reference, live)
        return reference, live, left_out

    def _with_joint(self, report: DriftReport, *, together: bool) -> DriftReport:
        """With what the classifier has said last, in looks without it."""
        if together:
            self._joint = next((verdict for verdict in report.verdicts if verdict.subject == JOINT), None)
            return report
        if self._joint is None:
            return report
        return replace(report, verdicts=ranked((*report.verdicts, self._joint)))

    def _named(self, report: DriftReport, service: ServiceSample | None) -> DriftReport:
        """Service is compared with its own past, whatever features are compared with."""
        if service is None:
            return report
        before = f"the {service.before_seconds:,.0f} s before"
        verdicts = tuple(
            replace(verdict, reference=before) if verdict.role is Role.SERVICE else verdict
            for verdict in report.verdicts
        )
        return replace(report, verdicts=verdicts)

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if self._budget.pause_seconds > self._pane_seconds:
            notes.append(
                f"a look takes {self._cpu_spent:.2g} s of the processor, so there are at least "
                f"{self._budget.pause_seconds:.0f} s between two: all looks together may take {SHARE:.0%} of a core"
            )
        if self.reference is None:
            notes.append("features are compared with nothing: there is no reference")
        return tuple(notes)

    def _changes(
        self, fresh: DriftReport | None, by_evidence: EvidenceChanges, window: Window[Summary]
    ) -> list[Change]:
        evidence_since = self._evidence.since_seconds if self._evidence is not None else {}
        raised, cleared = self._alarms.announce(fresh, explained=bool(evidence_since))
        since = self._alarms.raised
        found: list[tuple[str, bool, By, float | None]] = [
            *((subject, True, "window", since[subject]) for subject in raised),
            *((subject, False, "window", None) for subject in cleared),
            *((subject, True, "evidence", evidence_since[subject]) for subject in by_evidence.raised),
            *((subject, False, "evidence", None) for subject in by_evidence.cleared),
        ]
        return [
            self._change(subject, raised=is_raised, by=by, since_seconds=at, window=window)
            for subject, is_raised, by, at in found
        ]

    def _change(
        self, subject: str, *, raised: bool, by: By, since_seconds: float | None, window: Window[Summary] | None = None
    ) -> Change:
        report = self.report.report if self.report is not None else None
        verdict = next((v for v in report.verdicts if v.subject == subject), None) if report is not None else None
        return Change(
            self.version,
            subject,
            raised,
            by,
            verdict,
            since_seconds,
            window.end_seconds - window.start_seconds if window is not None else 0.0,
            window.rows if window is not None else 0,
            self.reference.source if self.reference is not None else NO_REFERENCE,
        )

    def set_reference(self, reference: PreparedReference | None) -> list[Change]:
        """What is compared with from now on. Alarms end, for they were of another comparison; so does the history.

        Not while a look is made.
        """
        since = self._evidence.since_seconds if self._evidence is not None else {}
        cleared = [
            *((subject, "window") for subject in sorted(self._alarms.announced)),
            *((subject, "evidence") for subject in since),
        ]
        changes = [self._change(s, raised=False, by=by, since_seconds=None) for s, by in cleared]  # type: ignore[arg-type]
        self._begin(reference)
        return changes

    @property
    def alarmed(self) -> dict[str, float | None]:
        """Subjects that alarm by a window, and since when."""
        return self._alarms.raised

    @property
    def decision(self) -> Decision:
        return self.report.decision if self.report is not None else Decision.NOT_ENOUGH_DATA

    def past(self, most: int) -> Past:
        """The last looks."""
        return self._history.past(most)

    def state(self) -> str:
        """As JSON: what a restart is to keep. Not while a look is made."""
        return json.dumps(
            {
                "version": STATE_VERSION,
                "reference": self.reference.source if self.reference is not None else "",
                "alarms": self._alarms.to_json(),
                "evidence": self._evidence.to_json() if self._evidence is not None else {},
                "history": self._history.to_json(),
            },
            separators=(",", ":"),
        )

    def restore(self, state: str) -> bool:
        """Before the first look. False, and nothing is taken over, where it was of another reference.

        Raises StateInvalid for what `state` has not written.
        """
        try:
            document: dict[str, Any] = json.loads(state)
            if document["version"] != STATE_VERSION:
                raise StateInvalid(f"expected a drift state of version {STATE_VERSION}, got {document['version']!r}")
            if document["reference"] != (self.reference.source if self.reference is not None else ""):
                return False
            alarms = Alarms(self._parameters.hysteresis)
            alarms.restore(document["alarms"])
            history = History.from_json(document["history"])
            evidence = self._no_evidence()
            if evidence is not None:
                evidence.restore({s: (float(e), _optional(since)) for s, (e, since) in document["evidence"].items()})
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise error if isinstance(error, StateInvalid) else StateInvalid(f"not a drift state: {error!r}") from error
        self._alarms, self._history = alarms, history
        self._evidence, self._restored = evidence, True
        return True


def _missing(bins: Bins) -> float | None:
    """None of what has no rows, and of a rate."""
    if isinstance(bins, RateCounts) or not bins.rows:
        return None
    return (bins.apart.missing + bins.apart.nan) / bins.rows


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)
