"""What one look or one command decided, with all that it was decided from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from runtime.rollout.codec import decode, encode
from runtime.rollout.counts import Observation
from runtime.rollout.evidence import Reading
from runtime.rollout.phase import Phase, RolloutEvent
from runtime.rollout.rollout import Rollout


class Verb(Enum):
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"


@dataclass(frozen=True)
class Command:
    """What an operator asks for, and why."""

    verb: Verb
    actor: str
    reason: str = ""


@dataclass(frozen=True)
class Decision:
    """`event`: None where nothing moved. `before`: the rollout that it was decided about; with `observation` or
    `command` it is all that the decision follows from, and `recompute` shows that.
    """

    at_seconds: float
    before: Rollout
    phase: Phase
    step: int
    event: RolloutEvent | None
    reason: str
    readings: tuple[Reading, ...] = ()
    observation: Observation | None = None
    command: Command | None = None

    @property
    def moved(self) -> bool:
        """Worth keeping for good; of the others the last one is enough."""
        return self.event is not None

    def to_json(self) -> str:
        return encode(self)

    @staticmethod
    def from_json(text: str) -> Decision:
        """Raises ValueError for what is no decision."""
        return decode(Decision, text)

    def sentence(self) -> str:
        """For people, one line."""
        what = f"step {self.step + 1}, " if self.step >= 0 else ""
        moved = f"{self.before.phase.value} → {self.phase.value}" if self.moved else self.phase.value
        return f"{what}{moved}: {self.reason}"
