"""The life of one loaded version, as one table.

Rules
- A version may be routed to only in AVAILABLE; it becomes visible after it is AVAILABLE and invisible before DRAINING.
- A failure while loading or warming up leaves nothing behind: FAILED holds a reason, never a session.
- UNLOADED and FAILED are final: another attempt is another instance.
"""

from __future__ import annotations

from enum import Enum


class VersionState(Enum):
    NOT_LOADED = "not loaded"
    LOADING = "loading"
    WARMING_UP = "warming up"
    AVAILABLE = "available"
    DRAINING = "draining"
    UNLOADED = "unloaded"
    FAILED = "failed"


class Event(Enum):
    LOAD = "load"
    LOADED = "loaded"
    WARMED_UP = "warmed up"
    FAIL = "fail"
    RETIRE = "retire"
    DRAINED = "drained"


TRANSITIONS: dict[tuple[VersionState, Event], VersionState] = {
    (VersionState.NOT_LOADED, Event.LOAD): VersionState.LOADING,
    (VersionState.NOT_LOADED, Event.RETIRE): VersionState.UNLOADED,
    (VersionState.LOADING, Event.LOADED): VersionState.WARMING_UP,
    (VersionState.LOADING, Event.FAIL): VersionState.FAILED,
    (VersionState.WARMING_UP, Event.WARMED_UP): VersionState.AVAILABLE,
    (VersionState.WARMING_UP, Event.FAIL): VersionState.FAILED,
    (VersionState.AVAILABLE, Event.RETIRE): VersionState.DRAINING,
    (VersionState.DRAINING, Event.DRAINED): VersionState.UNLOADED,
}

FINAL = frozenset({VersionState.UNLOADED, VersionState.FAILED})


class IllegalTransition(RuntimeError):
    """A bug: an event that the table does not allow in this state."""


def advance(state: VersionState, event: Event) -> VersionState:
    """The state after `event`; raises IllegalTransition for a pair that is not in the table."""
    after = TRANSITIONS.get((state, event))
    if after is None:
        raise IllegalTransition(f"{event.value!r} is not possible for a version that is {state.value}")
    return after


def mermaid() -> str:
    """The table as a Mermaid state diagram, for the docs."""
    lines = ["stateDiagram-v2", f"    [*] --> {VersionState.NOT_LOADED.name}"]
    lines += [f"    {a.name} --> {b.name}: {event.value}" for (a, event), b in TRANSITIONS.items()]
    lines += [f"    {state.name} --> [*]" for state in VersionState if state in FINAL]
    return "\n".join(lines)
