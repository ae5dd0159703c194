"""All that is stored of a rollout between two looks: the rollout itself, and from where on its step counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gateway.control.rollout_counts import Counting, Totals
from runtime.rollout.codec import decode, encode
from runtime.rollout.counts import ArmCounts, Counts, DriftSign, Mean, Observation, Replayed
from runtime.rollout.rollout import Rollout

Means = tuple[tuple[str, Mean], ...]


@dataclass(frozen=True)
class DriftTests:
    """One drift gate's tests in an epoch. `done`: how many; the next one is due at so many rows of the candidate."""

    done: int = 0
    next_rows: int = 0
    sign: DriftSign = DriftSign.UNKNOWN


@dataclass(frozen=True)
class RowsState:
    """Of panes since the epoch began. `means`: by metric, the candidate's and the baseline's, since `Counting.mark`."""

    means: tuple[Means, Means] = ((), ())
    drift: tuple[tuple[str, DriftTests], ...] = ()

    def with_tests(self, tests: Mapping[str, DriftTests]) -> RowsState:
        return replace(self, drift=tuple(sorted((dict(self.drift) | dict(tests)).items())))

    def with_signs(self, signs: Mapping[str, DriftSign]) -> RowsState:
        known = dict(self.drift)
        return self.with_tests(
            {name: replace(known.get(name, DriftTests()), sign=sign) for name, sign in signs.items()}
        )

    def with_means(self, means: tuple[Means, Means]) -> RowsState:
        both = [means_plus(before, new) for before, new in zip(self.means, means, strict=True)]
        return replace(self, means=(both[0], both[1]))


@dataclass(frozen=True)
class RolloutState:
    """`loaded`: the candidate is there, so traffic may go to it. `since_seconds`: Unix time, when the epoch began, and
    `step_since_seconds`: its step, 0 if that is not known.

    `counting` None: nothing is counted yet. `actor`, `peer`, `asked_because`: who started the rollout, and why.
    """

    rollout: Rollout
    actor: str = ""
    peer: str = ""
    asked_because: str = ""
    loaded: bool = False
    since_seconds: float = 0.0
    step_since_seconds: float = 0.0
    counting: Counting | None = None
    rows: RowsState = RowsState()

    def to_json(self) -> str:
        return encode(self)

    @staticmethod
    def from_json(text: str) -> RolloutState:
        """Raises ValueError for what is none."""
        return decode(RolloutState, text)

    def resumed(self, gateway: str) -> RolloutState:
        """As read after a restart of control, or of the gateway as a whole: then no time has passed meanwhile."""
        if self.counting is None or self.counting.last.gateway == gateway:
            return self
        return replace(self, rollout=replace(self.rollout, last_seconds=None))

    def begun(self, rollout: Rollout, totals: Totals, now_seconds: float, *, of_copies: bool) -> RolloutState:
        """With counting begun: of a new epoch, from these totals on. A step that begins again goes on with its drift
        tests where they were, so that its error level is spent once.
        """
        counting = Counting.begun(totals, of_copies=of_copies)
        drift: tuple[tuple[str, DriftTests], ...] = ()
        step_since_seconds = now_seconds
        if rollout.step == self.rollout.step and self.counting is not None:
            step_since_seconds = self.step_since_seconds
        if rollout.step == self.rollout.step:
            drift = tuple((name, DriftTests(tests.done)) for name, tests in self.rows.drift)
        rows = RowsState(drift=drift)
        return replace(
            self,
            rollout=rollout,
            since_seconds=now_seconds,
            step_since_seconds=step_since_seconds,
            counting=counting,
            rows=rows,
        )

    def looked(
        self, totals: Totals, new_means: tuple[Means, Means] = ((), ()), replayed: Replayed | None = None
    ) -> tuple[RolloutState, Observation]:
        """With a look at the counters, and what it saw. `new_means`: of panes that have come since the last look,
        `replayed`: of the epoch's replay.
        """
        counting = (self.counting or Counting.begun(totals, of_copies=False)).after(totals)
        rows = self.rows
        if self.counting is not None and counting.number != self.counting.number:
            rows = replace(rows, means=((), ()))  # the rollout keeps those from before
        rows = rows.with_means(new_means)
        counts = counting.counts
        candidate, baseline = (
            ArmCounts(arm.requests, arm.errors, arm.latency, means=means)
            for arm, means in zip((counts.candidate, counts.baseline), rows.means, strict=True)
        )
        epoch = self.rollout.epoch
        observation = Observation(
            epoch,
            Counts(candidate, baseline, counts.compared, counts.agreed),
            counting.counters(epoch),
            tuple((name, tests.sign) for name, tests in rows.drift),
            counting.all_crashes,
            replayed=replayed,
        )
        return replace(self, counting=counting, rows=rows), observation


def means_plus(before: Means, new: Means) -> Means:
    found = dict(before)
    for name, mean in new:
        found[name] = found.get(name, Mean()).plus(mean)
    return tuple(sorted(found.items()))
