"""What the metrics tell of a version: the subjects that matter most, and all values of some features since a moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from gateway.control.drift_watch import DriftWatch, LookReport
from gateway.store.panes import VersionKey
from gateway.telemetry.drift_measures import SubjectDrift, VersionDrift
from gateway.telemetry.signed import SignedDistribution
from runtime.profile.schema import Schema
from runtime.profile.summary import Summary, is_numeric

MAX_SUBJECTS = 50
"""Of a version, those of the largest effects; beside them all that alarm, up to as many again. With ten versions some
2,000 series of effects and alarms, and ten times as many of distances."""

MAX_VALUES = 50
"""Features whose values are exported, the first ones; beside them those that alarm, up to as many again. Each is a
histogram of up to some hundred buckets."""

OUTPUTS = 10
"""Of these, at least so many for outputs, where there are so many."""


class VersionFigures:
    """Thread-safe. `watch` None: of features alone."""

    def __init__(self, key: VersionKey, schema: Schema, watch: DriftWatch | None = None) -> None:
        self.watch = watch
        self._key = key
        self._lock = threading.Lock()
        self._rows = 0
        self._numeric = {feature.name for feature in schema.features if is_numeric(feature.kind)}
        self._values: dict[str, tuple[int, SignedDistribution | None]] = {
            name: (time.time_ns(), None) for name in _first(schema)
        }

    def add(self, pane: Summary) -> None:
        """A pane that shares no row with those before."""
        wanted = self._wanted()
        found = {}
        for block, names in pane.blocks():
            for at, name in enumerate(names):
                if name in wanted:
                    mean = block.moments_of(at).summary().mean
                    found[name] = SignedDistribution.of(block.histogram(at), mean)
        now = time.time_ns()
        with self._lock:
            self._rows += pane.rows
            for name, values in found.items():
                since, before = self._values.get(name, (now, None))
                self._values[name] = since, values if before is None else before.plus(values)

    def _wanted(self) -> set[str]:
        wanted = set(self._values)
        look = self.watch.report if self.watch is not None else None
        for subject in _alarmed(look):
            if len(wanted) >= 2 * MAX_VALUES:
                break
            if subject in self._numeric:
                wanted.add(subject)
        return wanted

    def figures(self) -> VersionDrift:
        with self._lock:
            rows = self._rows
            values = {name: (since, seen) for name, (since, seen) in self._values.items() if seen is not None}
        look = self.watch.report if self.watch is not None else None
        looks = self.watch.looks if self.watch is not None else 0
        if look is None:
            return VersionDrift(self._key.model, self._key.version, rows, looks, values=values)
        verdicts = look.verdicts
        alarmed = _alarmed(look)
        shown = set(alarmed[: 2 * MAX_SUBJECTS])
        for verdict in verdicts:
            if len(shown) >= max(MAX_SUBJECTS, len(alarmed[: 2 * MAX_SUBJECTS])):
                break
            shown.add(verdict.subject)
        subjects = [
            SubjectDrift(
                verdict.subject,
                verdict.role.value,
                verdict.effect,
                verdict.alarmed or verdict.subject in look.evidence_since,
                [
                    (finding.aspect.value, effect.measure, effect.value)
                    for finding in verdict.findings
                    for effect in finding.effects
                ],
            )
            for verdict in verdicts
            if verdict.subject in shown
        ]
        return VersionDrift(
            self._key.model,
            self._key.version,
            rows,
            looks,
            len(verdicts) - len(subjects),
            subjects,
            {each.subject: look.missing[each.subject] for each in subjects if each.subject in look.missing},
            values,
        )


def _alarmed(look: LookReport | None) -> list[str]:
    if look is None:
        return []
    return [v.subject for v in look.verdicts if v.alarmed or v.subject in look.evidence_since]


def _first(schema: Schema) -> Iterable[str]:
    numeric = [feature for feature in schema.features if is_numeric(feature.kind)]
    inputs = [feature.name for feature in numeric if feature.role == "input"]
    outputs = [feature.name for feature in numeric if feature.role == "output"]
    some = max(MAX_VALUES - len(inputs), OUTPUTS)
    return [*inputs[: MAX_VALUES - len(outputs[:some])], *outputs[:some]]
