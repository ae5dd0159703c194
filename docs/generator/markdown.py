"""Markdown as the pages need it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NOTHING = "-"


def heading(title: str, source: str) -> str:
    """The first lines of a page that is generated as a whole."""
    return f"<!-- Written by docs/generate.py from {source}: change it there. -->\n# {title}\n"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headers) + " |", "|" + " --- |" * len(headers)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def code(text: str) -> str:
    return f"`{text}`" if text else NOTHING


def sentence(text: str) -> str:
    """One line that ends in a full stop."""
    line = " ".join(text.split())
    return line if not line or line[-1] in ".!?:" else f"{line}."


def number(value: float) -> str:
    """2147483647 → "2,147,483,647", 0.1 → "0.1"."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}"


def size(count: int) -> str:
    """A number of bytes in the largest unit that it is a whole number of."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor and count % factor == 0:
            return f"{count // factor} {unit}"
    return f"{count:,} bytes"


def _cell(value: str) -> str:
    return " ".join(value.split()).replace("|", "\\|") or NOTHING
