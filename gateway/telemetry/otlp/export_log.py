"""What an operator reads of exports that fail: the first failure, then a summary now and then, then the recovery."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from gateway.telemetry.otlp.retry import Attempt

log = logging.getLogger(__name__)

QUIET_SECONDS = 30.0
"""Between two lines of one kind."""
MESSAGE_CHARACTERS = 500  # of what a receiver says


class _Kind(Enum):
    FAILED = auto()
    RECOVERED = auto()
    REJECTED = auto()
    REMARK = auto()


@dataclass(slots=True)
class _Counts:
    """Since the last line of that kind."""

    tries: int = 0
    dropped: int = 0
    rejected: int = 0


class ExportLog:
    """One client's; thread-safe. At most one line of a kind in QUIET_SECONDS, however often exports fail."""

    def __init__(self, what: str, endpoint: str, clock: Callable[[], float]) -> None:
        """`what` is exported, as "spans", to `endpoint`."""
        self._what = what
        self._endpoint = endpoint
        self._clock = clock
        self._lock = threading.Lock()
        self._quiet_until: dict[_Kind, float] = {}
        self._counts = _Counts()
        self._failing_since: float | None = None
        self._dropped_in_all = 0

    def failed(self, attempt: Attempt, dropped: int) -> None:
        """`dropped` items with it; 0: another try follows."""
        with self._lock:
            now = self._clock()
            if self._failing_since is None:
                self._failing_since, self._dropped_in_all = now, 0
            self._counts.tries += 1
            self._counts.dropped += dropped
            self._dropped_in_all += dropped
            if not self._may_say(_Kind.FAILED, now):
                return
            tries, self._counts.tries = self._counts.tries, 0
            count, self._counts.dropped = self._counts.dropped, 0
        log.warning(
            "cannot export %s to %s: %s%s; since the last such line %d tries failed, %d %s were dropped",
            *(self._what, self._endpoint, attempt.reason, _said(attempt), tries, count, self._what),
        )

    def taken(self, attempt: Attempt, rejected: int) -> None:
        """`attempt.message`, where there is one, is the receiver's remark on what it took or rejected."""
        lines: list[tuple[int, str]] = []
        with self._lock:
            now = self._clock()
            since = self._failing_since
            if since is not None and self._may_say(_Kind.RECOVERED, now):
                self._failing_since, self._counts.tries, self._counts.dropped = None, 0, 0
                text = f"{self._endpoint} takes {self._what} again after {now - since:.1f} s"
                lines.append((logging.INFO, f"{text}; {self._dropped_in_all} were dropped in that time"))
            if rejected:
                self._counts.rejected += rejected
                if self._may_say(_Kind.REJECTED, now):
                    count, self._counts.rejected = self._counts.rejected, 0
                    text = f"{self._endpoint} rejected {count} {self._what}{_said(attempt)}"
                    lines.append((logging.WARNING, f"{text}; they are lost"))
            elif attempt.message and self._may_say(_Kind.REMARK, now):
                lines.append((logging.WARNING, f"{self._endpoint} took {self._what} and remarks{_said(attempt)}"))
        for level, text in lines:
            log.log(level, "%s", text)

    def _may_say(self, kind: _Kind, now: float) -> bool:
        if now < self._quiet_until.get(kind, now):
            return False
        self._quiet_until[kind] = now + QUIET_SECONDS
        return True


def _said(attempt: Attempt) -> str:
    text = " ".join(attempt.message.split())
    return f": {text[:MESSAGE_CHARACTERS]}" if text else ""
