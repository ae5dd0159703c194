"""Evidence of panes against a reference: kept up from pane to pane, and what it alarms of."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

from runtime.drift.evidence import Evidence
from runtime.drift.sequential import ShiryaevRoberts
from runtime.profile.compare import PreparedReference
from runtime.profile.summary import Summary

POOLED_ROWS = 1_000
"""Each set of rows costs evidence, whatever is in it: panes of a quiet model are put together first."""

CAP_NATS = 10.0
"""Above the alarm's threshold. Evidence of a large change is endless; cut here, it is gone some panes after the change
is. What is cut only ever makes fewer alarms."""

CLEARED_AT = 0.5
"""Of the threshold, in nats: an alarm at its edge does not come and go."""


@dataclass(frozen=True)
class EvidenceChanges:
    raised: tuple[str, ...] = ()
    cleared: tuple[str, ...] = ()


class EvidenceWatch:
    """`offer` from any thread; all else from one.

    run_length_panes: without drift, the mean number of sets of rows until the first false alarm of all subjects, at
    least. A set is one pane or more.
    """

    def __init__(self, reference: PreparedReference, run_length_panes: float) -> None:
        self._reference = reference
        self._run_length = run_length_panes
        self._lock = threading.Lock()
        self._pool: Summary | None = None
        self._evidence: Evidence | None = None
        self._restored: dict[str, float] = {}
        self.since_seconds: dict[str, float] = {}
        """Of each subject that alarms: when it began to."""

    def offer(self, pane: Summary) -> None:
        """A pane that shares no row with those before; it stays the caller's."""
        with self._lock:
            if self._pool is not None and self._pool.schema.digest == pane.schema.digest:
                self._pool.merge(pane)
            else:
                self._pool = pane.copy()

    def take_in(self, now_seconds: float) -> EvidenceChanges:
        """What has been offered, once it has rows enough."""
        with self._lock:
            pool = self._pool
            if pool is None or pool.rows < POOLED_ROWS:
                return EvidenceChanges()
            self._pool = None
        if self._evidence is None:
            self._evidence = self._begun(self._reference.evidence(pool.schema))
        evidence = self._evidence.after(self._reference.pane(pool))
        threshold = self._threshold(evidence)
        self._evidence = _capped(evidence, threshold + CAP_NATS)
        raised, cleared = [], []
        for subject in evidence.detectors:
            log_e = evidence.log_e(subject)
            if log_e >= threshold and subject not in self.since_seconds:
                self.since_seconds[subject] = now_seconds
                raised.append(subject)
            elif log_e < CLEARED_AT * threshold and subject in self.since_seconds:
                del self.since_seconds[subject]
                cleared.append(subject)
        return EvidenceChanges(tuple(raised), tuple(cleared))

    def log_evidence(self) -> dict[str, float]:
        """Of each subject, in nats: against the chance of one false alarm in the run length, all subjects together."""
        if self._evidence is None:
            return dict(self._restored)
        return {subject: self._evidence.log_e(subject) for subject in self._evidence.detectors}

    def to_json(self) -> dict[str, tuple[float, float | None]]:
        """Of each subject with evidence for a change: how much, and since when it alarms. What has been learnt of how
        rows vary is not in it: it is learnt again.
        """
        return {
            subject: (log_e, self.since_seconds.get(subject))
            for subject, log_e in self.log_evidence().items()
            if log_e > 0 or subject in self.since_seconds
        }

    def restore(self, state: Mapping[str, tuple[float, float | None]]) -> None:
        """Before anything is taken in."""
        for subject, (log_e, since) in state.items():
            self._restored[subject] = float(log_e)
            if since is not None:
                self.since_seconds[subject] = float(since)

    def _threshold(self, evidence: Evidence) -> float:
        return math.log(self._run_length * max(len(evidence.detectors), 1))

    def _begun(self, evidence: Evidence) -> Evidence:
        self.since_seconds = {s: since for s, since in self.since_seconds.items() if s in evidence.detectors}
        detectors = {
            subject: replace(detector, evidence=ShiryaevRoberts(self._restored[subject]))
            if subject in self._restored
            else detector
            for subject, detector in evidence.detectors.items()
        }
        return replace(evidence, detectors=detectors)


def _capped(evidence: Evidence, most: float) -> Evidence:
    return replace(
        evidence,
        detectors={
            subject: replace(detector, evidence=ShiryaevRoberts(min(detector.evidence.log_m, most)))
            for subject, detector in evidence.detectors.items()
        },
    )
