"""When a process that ended is started again: pure. Backoff doubles with each end; a quiet minute forgets it."""

from __future__ import annotations

from dataclasses import dataclass

QUIET_SECONDS = 60.0
REFUSED = 2  # a child's exit status for what no restart can mend: a port in use, a state directory it cannot write
EARLY_REFUSALS = 3
MAX_DOUBLINGS = 32  # beyond any longest wait; a float holds no 2**1024


@dataclass(frozen=True, slots=True)
class History:
    """One child's past: consecutive ends without a quiet minute between, and when it was started last.

    `proven`: it has run for a quiet minute once, so what it refuses now may mend (a full disk, a locked file).
    """

    ends: int = 0
    started_at: float = 0.0
    refusals: int = 0
    proven: bool = False


@dataclass(frozen=True, slots=True)
class Restart:
    at: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: str


def after_end(
    history: History, now: float, exit_status: int, first_seconds: float, longest_seconds: float
) -> tuple[History, Restart | GiveUp]:
    """Times are monotonic seconds. A child that refuses EARLY_REFUSALS times in a row at the start is given up."""
    refusals = history.refusals + 1 if exit_status == REFUSED else 0
    quiet = now - history.started_at >= QUIET_SECONDS
    proven = history.proven or quiet
    if refusals >= EARLY_REFUSALS and not proven:
        return history, GiveUp(f"it refused to run {refusals} times in a row")
    ends = 1 if quiet else history.ends + 1
    wait = 0.0 if quiet else min(first_seconds * 2 ** min(ends - 1, MAX_DOUBLINGS), longest_seconds)
    return History(ends, history.started_at, refusals, proven), Restart(now + wait)
