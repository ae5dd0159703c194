"""The one writer to standard error: what the supervisor and its children log goes through here.

    control, worker ──> a pipe each ──> a thread each, which always reads ─┐
                                                  supervisor's own lines ──┴──> LineWriter ──> standard error

A child never waits for whoever reads standard error, in no library of its process; and what it wrote before it crashed
is in its pipe. Lines that find no room are dropped, and a line in their place says how many.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import threading
from collections.abc import Iterator

from gateway.lines import NEWLINE, LineWriter

STANDARD_ERROR = 2
MAX_WAITING_BYTES = 1024 * 1024  # some thousand lines
READ_BYTES = 64 * 1024  # all that a pipe holds
MAX_LINE_BYTES = 256 * 1024  # a longer one is cut in two
LAST_WORDS_SECONDS = 1.0  # for the lines of a child that has ended
CLOSE_SECONDS = 2.0  # for a reader that is slow, at the very end

log = logging.getLogger(__name__)


class LogRelay:
    """Thread-safe. A stream of text lines too, for the supervisor's own log. `formatter` makes the line of a gap."""

    def __init__(self, fd: int) -> None:
        self.formatter = logging.Formatter()
        self._writer = LineWriter(fd, "process log", MAX_WAITING_BYTES, tell_gap=self._gap)
        self._readers: dict[str, threading.Thread] = {}

    def write(self, text: str) -> int:
        self._offer(text.encode(errors="backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Nothing is held back: the writer is on it."""

    @contextlib.contextmanager
    def pipe(self, name: str) -> Iterator[int]:
        """Its end to write, which the child called `name` inherits within the context. Raises OSError."""
        reading, writing = os.pipe()
        try:
            reader = threading.Thread(target=self._read, args=(reading,), name=f"log of {name}", daemon=True)
            reader.start()
            self._readers[name] = reader
            yield writing
        finally:
            os.close(writing)

    def ended(self, name: str) -> None:
        """Waits a little for what the child wrote last; not for what others write who have its pipe."""
        reader = self._readers.pop(name, None)
        if reader is not None:
            reader.join(LAST_WORDS_SECONDS)

    def close(self) -> None:
        self._writer.close(CLOSE_SECONDS)

    def _read(self, fd: int) -> None:
        rest = b""
        with open(fd, "rb", buffering=0) as pipe:
            while data := pipe.read(READ_BYTES):
                lines, _, rest = (rest + data).rpartition(NEWLINE)
                if lines:
                    self._offer(lines + NEWLINE)
                if len(rest) >= MAX_LINE_BYTES:
                    self._offer(rest + NEWLINE)
                    rest = b""
        if rest:
            self._offer(rest + NEWLINE)

    def _offer(self, data: bytes) -> None:
        """`data`: whole lines."""
        self._writer.offer(data.count(NEWLINE), len(data), functools.partial(_lines, data))

    def _gap(self, count: int) -> bytes:
        text = f"{count} lines of this log were dropped here: standard error was not read in time"
        record = logging.LogRecord(log.name, logging.WARNING, __file__, 0, text, None, None)
        return f"{self.formatter.format(record)}\n".encode()


def _lines(data: bytes) -> list[bytes]:
    """Not by `splitlines`, which ends some at a carriage return."""
    return [line + NEWLINE for line in data.split(NEWLINE)[:-1]]


def fill_standard_streams() -> None:
    """Opens those that were closed when the process started, onto nothing: the next file would be taken for one."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        os.set_inheritable(fd, True)
    os.close(fd)
    if sys.stderr is None:
        sys.stderr = open(STANDARD_ERROR, "w", closefd=False)  # noqa: SIM115  (for the process's life)
