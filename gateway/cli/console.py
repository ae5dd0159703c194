"""Standard output: colours and the window's width at a terminal; elsewhere plain lines as long as they need to be."""

from __future__ import annotations

import io
import json
import time
from typing import Literal

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.cli.output import is_terminal, write
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

UNBOUNDED = 1_000_000
"""Characters; a table takes what it needs of it, so nothing is cropped in a pipe or a file."""

INTERRUPTIBLE_SECONDS = 0.2

STYLES = {
    pb.VERSION_STATE_AVAILABLE: "green",
    pb.VERSION_STATE_FAILED: "bold red",
    pb.VERSION_STATE_LOADING: "yellow",
    pb.VERSION_STATE_WARMING_UP: "yellow",
    pb.VERSION_STATE_DRAINING: "yellow",
}


def show(*renderables: RenderableType, soft_wrap: bool = False) -> None:
    """Prints each and flushes. `soft_wrap`: a terminal breaks long lines, not we at words."""
    if is_terminal():
        Console(highlight=False, markup=False).print(*renderables, sep="\n", soft_wrap=soft_wrap)
        return
    page = io.StringIO()
    Console(file=page, highlight=False, markup=False, width=UNBOUNDED).print(*renderables, sep="\n")
    write("\n".join(line.rstrip() for line in page.getvalue().splitlines()))


def window_width() -> int | None:
    """In cells; None where standard output is no terminal."""
    return Console().width if is_terminal() else None


def can_redraw() -> bool:
    """Whether standard output is a terminal that a screen can be drawn on again and again."""
    return is_terminal() and not Console().is_dumb_terminal


def pause(seconds: float) -> None:
    """Sleeps, in short pieces: an interrupt that comes after Python's last look for one and before the system call
    sleeps is raised when that call ends, and Ctrl-C must not seem lost for a long `--interval`.
    """
    ends_at = time.monotonic() + seconds
    while (left := ends_at - time.monotonic()) > 0:
        time.sleep(min(left, INTERRUPTIBLE_SECONDS))


def show_json(message: Message, *, indent: int | None = 2) -> None:
    """The JSON of protobuf with the proto's field names, default values too, keys sorted. Flushes."""
    document = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    write(json.dumps(document, indent=indent, sort_keys=True))


def table(*columns: str, right: frozenset[str] = frozenset(), fold: frozenset[str] = frozenset()) -> Table:
    """Without borders, so that it reads the same in a pipe. A narrow terminal breaks the columns in `fold`."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        justify: Literal["left", "right"] = "right" if name in right else "left"
        drawn.add_column(
            name, justify=justify, no_wrap=name not in fold, overflow="fold" if name in fold else "ellipsis"
        )
    return drawn


def state_text(state: pb.VersionState) -> Text:
    return Text(state_name(state), style=STYLES.get(state, "dim"))


def state_name(state: pb.VersionState) -> str:
    """VERSION_STATE_WARMING_UP → "warming up"; a state that this client does not know yet → its number."""
    if state not in pb.VersionState.values():
        return f"state {state}"
    return pb.VersionState.Name(state).removeprefix("VERSION_STATE_").replace("_", " ").lower()
