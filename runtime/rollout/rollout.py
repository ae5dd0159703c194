"""All that a rollout is between two looks, as one value, and the traffic that follows from it.

Whoever stores `Rollout` and starts anew goes on at the same step with the same weights and evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from runtime.rollout.codec import decode, encode
from runtime.rollout.counts import Counts
from runtime.rollout.evidence import Evidence
from runtime.rollout.gates import Gate, informed_by_replay
from runtime.rollout.phase import JUDGED, Phase
from runtime.rollout.plan import Plan


@dataclass(frozen=True)
class ReplayState:
    """What is known of a step's replay. `asked_epoch`: of which it was asked for last, 0: never. `blocks`, `counts`: of
    replayed rows, as far as they are in the evidence.
    """

    asked_epoch: int = 0
    blocks: int = 0
    counts: Counts = field(default_factory=Counts)
    done: bool = False
    problem: str = ""


@dataclass(frozen=True)
class Rollout:
    """`step`: index into the plan's, −1 before the first. `epoch`: counts the beginnings of counting; an observation is
    of one of them.

    `base`: counts of the step from counters that are gone, `seen`: as last seen, from `counters`. `active_seconds`: how
    long the step has gone on, less holds. `evidence`: by gate, of this step.
    """

    plan_digest: str
    phase: Phase = Phase.DRAFT
    step: int = -1
    epoch: int = 0
    active_seconds: float = 0.0
    last_seconds: float | None = None
    counters: str = ""
    base: Counts = field(default_factory=Counts)
    seen: Counts = field(default_factory=Counts)
    evidence: tuple[tuple[str, Evidence], ...] = ()
    reason: str = ""
    replay: ReplayState = ReplayState()

    @property
    def counts(self) -> Counts:
        """All of the step so far, without replayed rows."""
        return self.base.plus(self.seen)

    @property
    def counts_with_replay(self) -> Counts:
        return self.counts.plus(self.replay.counts) if self.replay.blocks else self.counts

    def counts_for(self, gate: Gate) -> Counts:
        """Those that the gate is judged by."""
        return self.counts_with_replay if informed_by_replay(gate) else self.counts

    def to_json(self) -> str:
        return encode(self)

    @staticmethod
    def from_json(text: str) -> Rollout:
        """Raises ValueError for what is no rollout."""
        return decode(Rollout, text)


def draft(plan: Plan) -> Rollout:
    return Rollout(plan.digest)


@dataclass(frozen=True)
class Route:
    """The candidate's part of the traffic: of what clients get, and of copies. `live`: it is the default now."""

    weight_percent: float = 0.0
    shadow_percent: float = 0.0
    live: bool = False


@dataclass(frozen=True)
class CountAnew:
    """Observations must count from now on, and say that they are of this epoch."""

    epoch: int


@dataclass(frozen=True)
class Replay:
    """Rows that the baseline answered before the step are to be run through both versions, for an observation of this
    epoch. It is asked for once in an epoch, and holds until `Rollout.replay` is done.
    """

    epoch: int


Action = Route | CountAnew | Replay


def route(plan: Plan, rollout: Rollout) -> Route:
    """The traffic that this rollout wants; to set it twice does no harm."""
    if rollout.phase in JUDGED:
        step = plan.steps[rollout.step]
        return Route(step.weight_percent, step.shadow_percent)
    return Route(100.0, 0.0, live=True) if rollout.phase is Phase.LIVE else Route()


def actions(plan: Plan, before: Rollout, after: Rollout) -> tuple[Action, ...]:
    """What has to be done so that the world is as `after` wants it: counting begins with the traffic's change."""
    done: list[Action] = []
    if route(plan, before) != route(plan, after):
        done.append(route(plan, after))
    if before.epoch != after.epoch:
        done.append(CountAnew(after.epoch))
    if after.replay.asked_epoch and before.replay.asked_epoch != after.replay.asked_epoch:
        done.append(Replay(after.replay.asked_epoch))
    return tuple(done)


def wants_replay(rollout: Rollout) -> bool:
    """Whether one was asked for and has not come: then it is to be made, whoever may have begun it before."""
    asked = rollout.replay.asked_epoch == rollout.epoch > 0
    return asked and not rollout.replay.done and rollout.phase in JUDGED
