"""py-spy's raw format: one line for each distinct stack, `thread (ID): NAME;frame;frame COUNT`, outermost first."""

from __future__ import annotations

import re
from dataclasses import dataclass

_THREAD = re.compile(r"thread \((?:0x)?([0-9A-Fa-f]+)\)(?:: (.*))?")
_FRAME = re.compile(r"(?P<name>.*) \((?P<file>.*?)(?::(?P<line>\d+))?\)")


@dataclass(frozen=True, slots=True)
class Frame:
    """`function`: its name without the class that it is of."""

    function: str
    file: str


@dataclass(frozen=True, slots=True)
class Stack:
    """Seen `samples` times; `frames`: outermost first."""

    thread: str
    frames: tuple[Frame, ...]
    samples: int


def parse(text: str) -> list[Stack]:
    """Raises ValueError where a line is not of the format."""
    return [_stack(line) for line in text.splitlines() if line]


def _stack(line: str) -> Stack:
    body, _, count = line.rpartition(" ")
    head, *frames = body.split(";")
    thread = _THREAD.fullmatch(head)
    if thread is None or not count.isdigit():
        raise ValueError(f"not a line of py-spy's raw format with threads: {line[:200]!r}")
    return Stack(thread[2] or "", tuple(map(_frame, frames)), int(count))


def _frame(text: str) -> Frame:
    found = _FRAME.fullmatch(text)
    if found is None:
        raise ValueError(f"not a frame of py-spy's raw format: {text[:200]!r}")
    return Frame(found["name"].rpartition(".")[2], found["file"])
