"""What the gates of drift and of means see: rows of both versions, from the panes that began in the step.

A pane is counted when it is collected, so these gates come a pane later than the others. A drift gate compares all rows
of the candidate with all of the baseline whenever the candidate's have doubled. With the k-th test at the level
6/(π²k²) of the gate's part, all tests of a step together keep that part, for Σ 1/k² = π²/6.

Means of panes that control had collected, and had not looked at when it ended, are left out of a step; so is, of drift
after a restart, what was stored in longer panes that reach back to before the step. Neither depends on what is in them.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from gateway.control.observation import Observation
from gateway.control.rollout_state import DriftTests, Means
from gateway.store.contract import StoreError
from gateway.store.panes import PaneStore, VersionKey
from runtime.drift.evaluate import Parameters, Sample, evaluate
from runtime.drift.findings import Thresholds
from runtime.drift.verdict import Decision, Role
from runtime.profile.compare import PreparedReference
from runtime.profile.kept_rows import KeptRows
from runtime.profile.schema import Schema
from runtime.profile.summary import Summary
from runtime.rollout.counts import DriftSign, Mean
from runtime.rollout.gates import MOST

log = logging.getLogger(__name__)

INPUTS, PREDICTIONS = "inputs", "predictions"
DRIFT_GATES = (INPUTS, PREDICTIONS)

FIRST_ROWS = 500
"""Of both versions, for the first test: a change at the thresholds does not show in fewer."""

SIGNS = {Decision.DRIFTED: DriftSign.DRIFTED, Decision.STABLE: DriftSign.STABLE}


@dataclass(frozen=True)
class RowsWanted:
    """What a step's gates ask of panes. `thresholds`: the model's, of its drift settings."""

    baseline: VersionKey
    candidate: VersionKey
    since_seconds: float
    means: tuple[str, ...] = ()
    drift: tuple[str, ...] = ()
    level: float = 0.05
    thresholds: Mapping[str, float] = field(default_factory=dict, hash=False)


class StepRows:
    """Rows of one epoch of one rollout. Thread-safe; its memory is that of a decoded window of each version."""

    def __init__(self, wanted: RowsWanted) -> None:
        self.wanted = wanted
        self._lock = threading.Lock()
        self._sums: dict[VersionKey, Summary] = {}
        self._means: dict[VersionKey, dict[str, Mean]] = {}

    def offer(self, key: VersionKey, began_seconds: float, pane: Summary, *, again: bool = False) -> None:
        """A pane of any version, which stays the caller's. `again`: its means were counted before a restart."""
        wanted = self.wanted
        if key not in (wanted.baseline, wanted.candidate) or began_seconds < wanted.since_seconds:
            return
        means = {} if again else _means(pane, wanted.means)
        with self._lock:
            if wanted.drift:
                held = self._sums.get(key)
                if held is not None and held.schema.digest == pane.schema.digest:
                    held.merge(pane)
                else:
                    self._sums[key] = pane.copy()
            own = self._means.setdefault(key, {})
            for name, mean in means.items():
                own[name] = own.get(name, Mean()).plus(mean)

    def take_means(self) -> tuple[Means, Means]:
        """The candidate's and the baseline's, of what has come since the last time."""
        with self._lock:
            taken, self._means = self._means, {}
        candidate, baseline = (taken.get(key, {}) for key in (self.wanted.candidate, self.wanted.baseline))
        return tuple(sorted(candidate.items())), tuple(sorted(baseline.items()))

    def due(self, tests: Mapping[str, DriftTests]) -> dict[str, DriftTests]:
        """The gates whose next test is due, as they are once it is made."""
        with self._lock:
            rows = [held.rows if (held := self._sums.get(key)) is not None else 0 for key in self._keys]
        if min(rows) < FIRST_ROWS:
            return {}
        found = {}
        for gate in self.wanted.drift:
            before = tests.get(gate, DriftTests())
            if rows[0] >= before.next_rows:
                found[gate] = replace(before, done=before.done + 1, next_rows=2 * rows[0])
        return found

    @property
    def _keys(self) -> tuple[VersionKey, VersionKey]:
        return self.wanted.candidate, self.wanted.baseline

    def judge(self, tests: Mapping[str, DriftTests], now_seconds: float) -> dict[str, DriftSign]:
        """By gate. Takes milliseconds to seconds, by the number of features; one thread at a time."""
        with self._lock:
            candidate, baseline = (self._sums[key].copy() for key in self._keys)
        reference = PreparedReference(baseline, f"version {self.wanted.baseline.version}")
        compared = reference.compare(candidate, self.wanted.since_seconds, now_seconds, together=False)
        found = {}
        for gate, test in tests.items():
            pair = _of_gate(gate, compared.reference), _of_gate(gate, compared.live)
            parameters = Parameters(
                level=level_of_test(self.wanted.level, test.done),
                looks=1,
                thresholds=Thresholds(**dict(self.wanted.thresholds)),
            )
            report = evaluate(*pair, parameters)
            found[gate] = SIGNS.get(report.decision, DriftSign.UNKNOWN)
        return found


def level_of_test(level: float, number: int) -> float:
    """Of the `number`-th test, from 1: all of them together have `level`."""
    return level * 6 / (math.pi * number) ** 2


def _of_gate(gate: str, sample: Sample) -> Sample:
    outputs = {subject for subject, role in sample.roles.items() if role is Role.OUTPUT}
    chosen = {
        subject: bins for subject, bins in sample.subjects.items() if (subject in outputs) == (gate == PREDICTIONS)
    }
    return replace(sample, subjects=chosen, correlations={}, rows=None, columns=())


def _means(pane: Summary, names: Iterable[str]) -> dict[str, Mean]:
    found = {}
    if names:
        moments = pane.moments()
        for name in names:
            if name not in moments:
                continue
            told = moments[name].summary()
            squares = told.variance * (told.count - 1) if told.count > 1 else 0.0
            if told.count and math.isfinite(told.mean) and math.isfinite(squares):
                # A version that answers 1e200 must not end the looks by an overflow; float32 has nothing beyond these.
                mean = min(max(told.mean, -MOST), MOST)
                found[name] = Mean(told.count, mean, min(max(squares, 0.0), MOST**2))
    return found


class RolloutRows:
    """Hands every pane that is collected to the rollouts that want it. Thread-safe."""

    def __init__(self, observation: Observation, panes: PaneStore) -> None:
        self._observation = observation
        self._panes = panes
        self._open: set[StepRows] = set()
        self._lock = threading.Lock()
        observation.on_pane = self._offer

    def open(self, wanted: RowsWanted, *, restored: bool = False) -> StepRows:
        """Rows from now on; `restored`: and what is stored since `since_seconds`. Blocks where it reads that."""
        rows = StepRows(wanted)
        with self._observation.lock:  # what is collected under it is stored under it: no pane comes twice
            if restored and wanted.drift:
                for key in (wanted.baseline, wanted.candidate):
                    self._restore(rows, key)
            with self._lock:
                self._open.add(rows)
        return rows

    def close(self, rows: StepRows) -> None:
        with self._lock:
            self._open.discard(rows)

    def schema(self, key: VersionKey) -> Schema | None:
        """What is measured of a version; None: nothing."""
        with self._observation.lock:
            if key not in self._observation.versions:
                self._observation.meet(time.time())  # it may have been loaded just now, or before control came back
            observed = self._observation.versions.get(key)
        return observed.schema if observed is not None else None

    def kept(self, key: VersionKey, before_seconds: float, most: int) -> KeptRows:
        """Rows of a version, a uniform sample of all from panes that ended by then and are stored. Blocks.

        Raises StoreError.
        """
        schema = self.schema(key)
        if schema is None:
            return KeptRows.of((), most)
        return KeptRows.of(self._panes_before(key, schema, before_seconds), most)

    def _panes_before(self, key: VersionKey, schema: Schema, before_seconds: float) -> Iterator[Summary]:
        for pane in self._panes.load_panes(key):
            if pane.key.start_seconds + pane.key.length_seconds > before_seconds:
                continue
            try:
                yield Summary.decode(schema, zlib.decompress(pane.data))
            except (ValueError, zlib.error) as error:
                log.warning("stored rows of %s/%d are left out of a replay: %s", key.model, key.version, error)

    def _offer(self, key: VersionKey, began_seconds: float, pane: Summary) -> None:
        with self._lock:
            wanting = list(self._open)
        for rows in wanting:
            rows.offer(key, began_seconds, pane)

    def _restore(self, rows: StepRows, key: VersionKey) -> None:
        schema = self.schema(key)
        if schema is None:
            return
        try:
            for pane in self._panes.load_panes(key):
                if pane.key.start_seconds >= rows.wanted.since_seconds:
                    summary = Summary.decode(schema, zlib.decompress(pane.data))
                    rows.offer(key, pane.key.start_seconds, summary, again=True)
        except (StoreError, ValueError, zlib.error) as error:
            log.warning("stored rows of %s/%d are left out of its rollout: %s", key.model, key.version, error)
