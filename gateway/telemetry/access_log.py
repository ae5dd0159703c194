"""The access log: one line a request on standard output, for those requests that it is set to show.

    write ── choose, copy ──> at most MAX_WAITING records ──> a thread: format, wait for room, write ──> stream

Whoever calls `write` never waits: a stream that nobody reads, or too slowly, costs lines, which are counted. The thread
writes only when the stream has room for PIPE_BUF bytes, whole lines at a time: what a pipe takes at once it takes
undivided, so that lines of several processes on one pipe do not mix.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Literal, TextIO

import numpy as np
import numpy.typing as npt

from gateway.logs import for_people, takes_colour
from gateway.telemetry.access_lines import AccessLines
from runtime.shm.record import Records

log = logging.getLogger(__name__)

MAX_WAITING = 16_384  # records, 384 bytes each
FORMATTED_AT_ONCE = 256  # lines
LOOK_MS = 100  # how soon a thread that waits for a reader sees that it is to end
BROKEN = select.POLLERR | select.POLLHUP | select.POLLNVAL

Mode = Literal["off", "errors", "sampled", "all"]
Words = npt.NDArray[np.uint64]


class AccessLog:
    """Thread-safe. `style`: auto, text, json. `ratio`: the share of requests without an error that `sampled` shows.

    A request is in the sample by its trace id alone: every gateway that a trace passes shows all of it, or nothing.
    `stream` None: standard output was closed when the process started, and nothing is shown.
    Every record chosen ends up in `written` or `dropped`. Call `close` at the end.
    """

    def __init__(
        self, mode: Mode, ratio: float, stream: TextIO | None, style: str, attribute_keys: Sequence[str] = ()
    ) -> None:
        self._mode: Mode = mode if stream is not None else "off"
        self._ratio = ratio
        self._poll = select.poll()
        if stream is not None:
            self._fd = stream.fileno()
            self._poll.register(self._fd, select.POLLOUT)
            people, colour = for_people(style, stream), takes_colour(stream)
            self._lines = AccessLines(people=people, colour=colour, attribute_keys=attribute_keys)
        self._changed = threading.Condition()
        self._queue: deque[tuple[int, Records, Sequence[str]]] = deque()
        self._waiting = 0
        self._written = 0
        self._dropped = 0
        self._close_at: float | None = None
        self._broken = False
        self._thread: threading.Thread | None = None

    @property
    def written(self) -> int:
        """Lines that the stream took."""
        return self._written

    @property
    def dropped(self) -> int:
        """Lines that found no room, or a stream that nobody reads."""
        return self._dropped

    def write(self, worker: int, records: Records, names: Sequence[str]) -> int:
        """Answers how many of `records` (RECORD[n], which may be overwritten afterwards) become lines, if read.

        `names`: the ring's names, a list that only ever grows.
        """
        chosen = self._chosen(records)
        if not len(chosen):
            return 0
        with self._changed:
            room = MAX_WAITING - self._waiting if self._close_at is None else 0
            taken = chosen[:room]
            self._dropped += len(chosen) - len(taken)
            if not len(taken):
                return 0
            self._waiting += len(taken)
            self._queue.append((worker, taken, names))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return len(taken)

    def close(self, seconds: float = 1.0) -> None:
        """Writes what waits, as far as the stream takes it within `seconds`; the rest is dropped."""
        with self._changed:
            self._close_at = time.monotonic() + seconds
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(seconds + 1.0)

    def _chosen(self, records: Records) -> Records:
        """A copy of those to be shown."""
        if self._mode == "all":
            return records.copy()
        if self._mode == "off":
            return records[:0]
        wanted = records["code"] != 0
        if self._mode == "sampled":
            wanted |= in_sample(records, self._ratio)
        chosen: Records = records[wanted]
        return chosen

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._close_at is not None)
                if not self._queue:
                    return
                worker, records, names = self._queue.popleft()
            for start in range(0, len(records), FORMATTED_AT_ONCE):
                part = records[start : start + FORMATTED_AT_ONCE]
                written = self._show(worker, part, names)
                with self._changed:
                    self._waiting -= len(part)
                    self._written += written
                    self._dropped += len(part) - written

    def _show(self, worker: int, records: Records, names: Sequence[str]) -> int:
        """Answers how many lines were written. Nothing is formatted for a stream that nobody reads."""
        written = 0
        try:
            if not self._has_room():
                return 0
            for lines in _packets(self._lines.lines(worker, records, names)):
                if not self._sent(b"".join(lines)):
                    break
                written += len(lines)
        except OSError as error:
            if not self._broken:
                log.warning("the access log cannot be written (%s): lines are dropped until it can", error)
            self._broken = True
        except Exception:
            log.exception("%d lines of the access log could not be made", len(records) - written)
        else:
            self._broken = False
        return written

    def _sent(self, data: bytes) -> bool:
        """False when the time to close came before all of it was taken."""
        while data:
            if not self._has_room():
                return False
            with contextlib.suppress(BlockingIOError):  # another process took the room
                data = data[os.write(self._fd, data) :]
        return True

    def _has_room(self) -> bool:
        """Waits for it; False when the time to close came first. Raises BrokenPipeError when nobody can read."""
        while True:
            for _, event in self._poll.poll(LOOK_MS):
                if event & BROKEN:
                    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
                return True
            if self._close_at is not None and time.monotonic() >= self._close_at:
                return False


def in_sample(records: Records, ratio: float) -> npt.NDArray[np.bool_]:
    """bool[n], by a hash of the trace id; of the time and the client where a request has no id."""
    if ratio >= 1:
        return np.ones(len(records), np.bool_)
    ids: Words = np.ascontiguousarray(records["trace_id"]).view(np.uint64).reshape(-1, 2)
    mixed = ids[:, 0] ^ _mixed(ids[:, 1])
    without = ~ids.any(axis=1)
    if without.any():
        port = records["peer_port"].astype(np.uint64)
        mixed[without] = (records["received_unix_ns"] ^ _mixed(port ^ records["decoded_ns"]))[without]
    sample: npt.NDArray[np.bool_] = _mixed(mixed) < np.uint64(int(ratio * 2**64))
    return sample


def _mixed(words: Words) -> Words:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): ids that are counted up become evenly spread."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _packets(lines: Sequence[bytes]) -> list[list[bytes]]:
    """Lines in groups of at most PIPE_BUF bytes; a longer line goes alone."""
    packets: list[list[bytes]] = []
    size = select.PIPE_BUF
    for line in lines:
        if size + len(line) > select.PIPE_BUF:
            packets.append([])
            size = 0
        packets[-1].append(line)
        size += len(line)
    return packets
