"""What runs next: pure decisions over the requests that wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.batching.request import Request

SHARED_BYTES = 16 << 20
"""Of the messages of one run: to join greater tensors takes longer than to run them one after another."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`max_rows` = 0: requests are never merged. `max_delay_seconds`: how long the first may wait for company."""

    max_rows: int
    max_delay_seconds: float = 0.0
    max_queue_requests: int = 1024


def cut(pending: deque[Request], max_rows: int) -> list[Request]:
    """Takes the next run off `pending`: the oldest request and those behind it that may share its run.

    Never reorders requests of one key; a request larger than `max_rows` runs alone; without a batch axis
    (`max_rows` = 0) each runs alone, as does one of more than SHARED_BYTES, so that its tensors are not copied.
    `pending` must not be empty.
    """
    head = pending.popleft()
    taken = [head]
    room = max_rows - head.rows
    room_bytes = SHARED_BYTES - head.size_bytes
    if room <= 0 or head.rows == 0 or room_bytes <= 0:
        return taken
    key = head.key
    passed: list[Request] = []
    while pending:
        candidate = pending[0]
        if candidate.key != key:
            passed.append(pending.popleft())
            continue
        if candidate.rows > room or candidate.rows == 0 or candidate.size_bytes > room_bytes:
            break
        taken.append(pending.popleft())
        room -= candidate.rows
        room_bytes -= candidate.size_bytes
        if room == 0:
            break
    pending.extendleft(reversed(passed))
    return taken


def wait_seconds(pending: Sequence[Request], limits: BatchLimits, now_ns: int) -> float:
    """How long to wait for more requests before cutting; 0: cut now."""
    if limits.max_delay_seconds <= 0 or limits.max_rows <= 0:
        return 0.0
    if sum(request.rows for request in pending) >= limits.max_rows:
        return 0.0
    if sum(request.size_bytes for request in pending) >= SHARED_BYTES:
        return 0.0
    left = limits.max_delay_seconds - (now_ns - pending[0].arrived_ns) / 1e9
    return max(left, 0.0)
