"""How far a rollout is, as one table.

Rules
- Only a plan's last step leads to LIVE, by its gates or by an operator.
- HOLD keeps the traffic as it is. Harm still ends it; nothing but an operator moves it on.
- INCONCLUSIVE takes the candidate's traffic away, and is no verdict: an operator may resume, promote or abort.
- LIVE, ROLLED_BACK and ABORTED are final: another attempt is another rollout.
"""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    DRAFT = "draft"
    SHADOW = "shadow"
    CANARY = "canary"
    HOLD = "on hold"
    INCONCLUSIVE = "inconclusive"
    LIVE = "live"
    ROLLED_BACK = "rolled back"
    ABORTED = "aborted"


class RolloutEvent(Enum):
    SHADOW_STEP = "a shadow step begins"
    CANARY_STEP = "a canary step begins"
    GO_LIVE = "no step is left"
    STOP = "held"
    RUN_OUT = "no conclusion in time"
    HARM = "harm shown"
    ABORT = "aborted"


TRANSITIONS: dict[tuple[Phase, RolloutEvent], Phase] = {
    (Phase.DRAFT, RolloutEvent.SHADOW_STEP): Phase.SHADOW,
    (Phase.DRAFT, RolloutEvent.CANARY_STEP): Phase.CANARY,
    (Phase.DRAFT, RolloutEvent.ABORT): Phase.ABORTED,
    (Phase.SHADOW, RolloutEvent.SHADOW_STEP): Phase.SHADOW,
    (Phase.SHADOW, RolloutEvent.CANARY_STEP): Phase.CANARY,
    (Phase.SHADOW, RolloutEvent.GO_LIVE): Phase.LIVE,
    (Phase.SHADOW, RolloutEvent.STOP): Phase.HOLD,
    (Phase.SHADOW, RolloutEvent.RUN_OUT): Phase.INCONCLUSIVE,
    (Phase.SHADOW, RolloutEvent.HARM): Phase.ROLLED_BACK,
    (Phase.SHADOW, RolloutEvent.ABORT): Phase.ABORTED,
    (Phase.CANARY, RolloutEvent.CANARY_STEP): Phase.CANARY,
    (Phase.CANARY, RolloutEvent.GO_LIVE): Phase.LIVE,
    (Phase.CANARY, RolloutEvent.STOP): Phase.HOLD,
    (Phase.CANARY, RolloutEvent.RUN_OUT): Phase.INCONCLUSIVE,
    (Phase.CANARY, RolloutEvent.HARM): Phase.ROLLED_BACK,
    (Phase.CANARY, RolloutEvent.ABORT): Phase.ABORTED,
    (Phase.HOLD, RolloutEvent.SHADOW_STEP): Phase.SHADOW,
    (Phase.HOLD, RolloutEvent.CANARY_STEP): Phase.CANARY,
    (Phase.HOLD, RolloutEvent.GO_LIVE): Phase.LIVE,
    (Phase.HOLD, RolloutEvent.HARM): Phase.ROLLED_BACK,
    (Phase.HOLD, RolloutEvent.ABORT): Phase.ABORTED,
    (Phase.INCONCLUSIVE, RolloutEvent.SHADOW_STEP): Phase.SHADOW,
    (Phase.INCONCLUSIVE, RolloutEvent.CANARY_STEP): Phase.CANARY,
    (Phase.INCONCLUSIVE, RolloutEvent.GO_LIVE): Phase.LIVE,
    (Phase.INCONCLUSIVE, RolloutEvent.ABORT): Phase.ABORTED,
}

FINAL = frozenset({Phase.LIVE, Phase.ROLLED_BACK, Phase.ABORTED})
MOVING = frozenset({Phase.SHADOW, Phase.CANARY})
"""The phases that the plan moves on by itself."""
JUDGED = MOVING | {Phase.HOLD}
"""The phases in which the candidate gets traffic and is judged."""


class NotPossible(ValueError):
    """What an operator asks for, or a tick tries, is not possible in this phase."""


def advance(phase: Phase, event: RolloutEvent) -> Phase:
    """The phase after `event`; raises NotPossible for a pair that is not in the table."""
    after = TRANSITIONS.get((phase, event))
    if after is None:
        raise NotPossible(f"{event.value!r} is not possible for a rollout that is {phase.value}")
    return after


def mermaid() -> str:
    """The table as a Mermaid state diagram, for the docs."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.DRAFT.name}"]
    lines += [f"    {a.name} --> {b.name}: {event.value}" for (a, event), b in TRANSITIONS.items()]
    lines += [f"    {phase.name} --> [*]" for phase in Phase if phase in FINAL]
    return "\n".join(lines)
