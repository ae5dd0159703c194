"""Lines onto a stream whose reader may be slow, paused or gone: whoever offers them never waits.

    offer ──> at most `capacity` ──> a thread: wait for room, make, write ──> stream

What finds no room is dropped and counted. The thread writes when the stream has room for PIPE_BUF bytes, whole lines at
a time where they are no longer: what a pipe takes at once it takes undivided, so lines of several processes on one pipe
do not mix.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LOOK_MS = 100  # how soon a thread that waits for a reader sees that it is to end
BROKEN = select.POLLERR | select.POLLHUP | select.POLLNVAL
NEWLINE = b"\n"


@dataclass(frozen=True, slots=True)
class _Batch:
    """`lines` that `make` gives, each with its newline. `gap`: lines dropped before these, of which nobody was told."""

    lines: int
    weight: int
    make: Callable[[], Sequence[bytes]]
    gap: int = 0


class LineWriter:
    """Thread-safe. `capacity` and each offer's `weight` are in the same unit: lines, bytes.

    Every line offered ends up in `written` or `dropped`. `tell_gap(count)` makes a line that is put where `count` lines
    are missing. `on_broken(error)` is called at the first failure, `on_mended(count)` at the first line after it, with
    the lines lost between; both by the thread. Call `close` at the end.
    """

    def __init__(
        self,
        fd: int,
        name: str,
        capacity: int,
        *,
        tell_gap: Callable[[int], bytes] | None = None,
        on_broken: Callable[[OSError], None] = lambda _: None,
        on_mended: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._fd = fd
        self._capacity = capacity
        self._tell_gap = tell_gap
        self._on_broken, self._on_mended = on_broken, on_mended
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._changed = threading.Condition()
        self._queue: deque[_Batch] = deque()
        self._waiting = 0
        self._written = 0
        self._dropped = 0
        self._untold = 0
        self._close_at: float | None = None
        self._torn = False  # the last byte written ends no line
        self._broken_at: int | None = None  # `dropped` when the stream failed
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def written(self) -> int:
        """Lines that the stream took."""
        return self._written

    @property
    def dropped(self) -> int:
        """Lines that found no room, or a stream that nobody reads."""
        return self._dropped

    def offer(self, lines: int, weight: int, make: Callable[[], Sequence[bytes]]) -> bool:
        """False: there was no room, and the lines are dropped. A batch finds room in an empty queue, however large."""
        with self._changed:
            if self._close_at is not None or (self._waiting and self._waiting + weight > self._capacity):
                self._lose(lines)
                return False
            self._queue.append(_Batch(lines, weight, make, self._untold))
            self._untold = 0
            self._waiting += weight
            self._changed.notify_all()
            return True

    def close(self, seconds: float) -> None:
        """Writes what waits, as far as the stream takes it within `seconds`; the rest is dropped."""
        with self._changed:
            if self._close_at is None and self._untold:
                self._queue.append(_Batch(0, 0, list, self._untold))
            self._close_at = time.monotonic() + seconds
            self._changed.notify_all()
        self._thread.join(seconds + 1.0)

    def _lose(self, lines: int) -> None:
        self._dropped += lines
        self._untold += lines

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._close_at is not None)
                if not self._queue:
                    return
                batch = self._queue.popleft()
            gap = [self._tell_gap(batch.gap)] if batch.gap and self._tell_gap is not None else []
            written = self._write(gap, batch.make)
            told = min(written, len(gap))
            with self._changed:
                self._waiting -= batch.weight
                self._written += written - told
                self._lose(batch.lines - (written - told))
                if not told:
                    self._untold += batch.gap
                self._changed.notify_all()

    def _write(self, first: Sequence[bytes], make: Callable[[], Sequence[bytes]]) -> int:
        """Answers how many lines the stream took whole. None is made for a stream that nobody reads."""
        written = 0
        try:
            if not self._has_room():
                return 0
            if self._torn and not self._put(NEWLINE):
                return 0
            for packet in _packets([*first, *make()]):
                data = packet
                while data:
                    if not self._has_room():
                        return written
                    sent = self._put(data)
                    written += data.count(NEWLINE, 0, sent)
                    data = data[sent:]
        except OSError as error:
            if self._broken_at is None:
                self._broken_at = self._dropped
                self._on_broken(error)
        else:
            if self._broken_at is not None:
                lost, self._broken_at = self._dropped - self._broken_at, None
                self._on_mended(lost)
        return written

    def _put(self, data: bytes) -> int:
        """Bytes taken; 0 where another process took the room."""
        with contextlib.suppress(BlockingIOError):
            sent = os.write(self._fd, data[: select.PIPE_BUF])
            self._torn = data[sent - 1 : sent] != NEWLINE
            return sent
        return 0

    def _has_room(self) -> bool:
        """Waits for it; False when the time to close came first. Raises BrokenPipeError when nobody can read."""
        while True:
            left_ms = LOOK_MS if self._close_at is None else max(0.0, (self._close_at - time.monotonic()) * 1000)
            for _, event in self._poll.poll(min(LOOK_MS, left_ms)):
                if event & BROKEN:
                    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
                return True
            if not left_ms:
                return False


def _packets(lines: Sequence[bytes]) -> list[bytes]:
    """Lines in groups of at most PIPE_BUF bytes; a longer line goes alone."""
    packets: list[list[bytes]] = []
    size = select.PIPE_BUF
    for line in lines:
        if size + len(line) > select.PIPE_BUF:
            packets.append([])
            size = 0
        packets[-1].append(line)
        size += len(line)
    return [b"".join(packet) for packet in packets]
