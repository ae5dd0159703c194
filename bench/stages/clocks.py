"""Stage clocks, within a worker: each function of the table notes when it begins and ends.

Wall time, which costs 50 ns to read; the processor's time of a thread costs ten times that. What the notes
themselves take is measured when they are put in place, and counted, so that it can be taken off.
"""

from __future__ import annotations

import functools
import importlib
import json
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

from bench.stages.mapping import OPENED_BY, STAGES

DUMP_FILE = "BENCH_STAGES_FILE"
"""The environment variable that names where SIGUSR1 has the books written."""

CALIBRATION_CALLS = 20_000
CALIBRATIONS = 9


class Book:
    """One thread's. `ns` and `opened` by stage: nanoseconds, and how often it was opened; `within`: how often another
    was opened while it was the last.
    """

    __slots__ = ("last_ns", "ns", "opened", "stage", "thread_id", "within")

    def __init__(self) -> None:
        self.thread_id = threading.get_native_id()
        self.ns = [0] * len(STAGES)
        self.opened = [0] * len(STAGES)
        self.within = [0] * len(STAGES)
        self.stage = 0
        self.last_ns = time.monotonic_ns()


class _Local(threading.local):
    def __init__(self) -> None:
        self.book = Book()
        BOOKS.append(self.book)


BOOKS: list[Book] = []
_LOCAL = _Local()


@dataclass(frozen=True, slots=True)
class Cost:
    """Of opening and closing a stage once, ns: what falls into the stage itself, and what into the one around it."""

    inner_ns: float
    outer_ns: float


@dataclass(frozen=True, slots=True)
class Reading:
    """Of all threads that opened a stage, by thread id: nanoseconds, openings and openings within, by stage."""

    cost: Cost
    ns: dict[str, list[int]]
    opened: dict[str, list[int]]
    within: dict[str, list[int]]


def opening(stage: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which opens `stage` while it runs."""
    local, clock = _LOCAL, time.monotonic_ns

    @functools.wraps(function)
    def opened(*arguments: Any, **named: Any) -> Any:
        book = local.book
        outer = book.stage
        now = clock()
        book.ns[outer] += now - book.last_ns
        book.last_ns = now
        book.within[outer] += 1
        book.opened[stage] += 1
        book.stage = stage
        try:
            return function(*arguments, **named)
        finally:
            now = clock()
            book.ns[stage] += now - book.last_ns
            book.last_ns = now
            book.stage = outer

    return opened


def install() -> None:
    """Raises AttributeError, ImportError where the worker no longer has a function of the table."""
    for place, title in OPENED_BY.items():
        module_name, _, path = place.partition(":")
        owner_name, _, name = path.rpartition(".")
        owner = getattr(importlib.import_module(module_name), owner_name)
        setattr(owner, name, opening(STAGES.index(title), owner.__dict__[name]))


def calibrate() -> Cost:
    """Medians: of a function that does nothing, with a stage and without."""

    def nothing(_one: object, _two: object) -> None:
        return None

    opened = opening(1, nothing)
    book = _LOCAL.book
    inner, outer = [], []
    for _ in range(CALIBRATIONS):
        began_ns = time.monotonic_ns()
        for _ in range(CALIBRATION_CALLS):
            nothing(None, None)
        plain_ns = time.monotonic_ns() - began_ns
        book.ns[1] = 0
        began_ns = time.monotonic_ns()
        for _ in range(CALIBRATION_CALLS):
            opened(None, None)
        whole_ns = time.monotonic_ns() - began_ns
        # The call of `nothing` falls into the stage, and the loop around it: half of the plain time each, about.
        inner.append((book.ns[1] - plain_ns / 2) / CALIBRATION_CALLS)
        outer.append((whole_ns - book.ns[1] - plain_ns / 2) / CALIBRATION_CALLS)
    for figures in (book.ns, book.opened, book.within):
        figures[:] = [0] * len(STAGES)
    return Cost(median(inner), median(outer))


def serve_readings(file: Path, cost: Cost) -> None:
    """From now on, SIGUSR1 has the books written to `file`, whole."""

    def write(_signal: int, _frame: FrameType | None) -> None:
        books = [book for book in BOOKS if any(book.opened)]
        reading = Reading(
            cost,
            {str(book.thread_id): list(book.ns) for book in books},
            {str(book.thread_id): list(book.opened) for book in books},
            {str(book.thread_id): list(book.within) for book in books},
        )
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(reading)))
        partial.replace(file)

    signal.signal(signal.SIGUSR1, write)


def read(text: str) -> Reading:
    document = json.loads(text)
    return Reading(**{**document, "cost": Cost(**document["cost"])})
