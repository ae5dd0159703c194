"""Bars and marks made of characters, plain ones where standard output's encoding has no others."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Marks:
    """`done`, `now`, `waits`, `harm`, `ahead`: of a step or a gate. All of a set are equally wide."""

    full: str
    empty: str
    done: str
    now: str
    waits: str
    harm: str
    ahead: str
    arrow: str
    more: str


UNICODE = Marks("█", "░", "✓", "●", "=", "✗", "○", "→", "…")
PLAIN = Marks("#", ".", "+", ">", "=", "!", "-", "->", "...")


def marks() -> Marks:
    """What standard output's encoding can show."""
    try:
        "".join(getattr(UNICODE, name) for name in Marks.__dataclass_fields__).encode(_encoding())
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return UNICODE


def bar(share: float, cells: int, with_marks: Marks) -> tuple[str, str]:
    """(the full part, the empty one), of `share` 0..1; what is beyond is cut. A bar is full only of what is enough."""
    share = min(max(share, 0.0), 1.0)
    filled = round(share * cells) if share == 1 else min(round(share * cells), cells - 1)
    return with_marks.full * filled, with_marks.empty * (cells - filled)


def replace_the_unknown() -> None:
    """What standard output's encoding has no character for becomes "?", instead of ending the command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "ascii"
