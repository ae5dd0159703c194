"""Logging set-up of every process: text for people at a terminal, JSON lines elsewhere; always to standard error.

Control and the workers write to a pipe that the supervisor always reads (gateway/supervisor/log_relay.py), so a line
holds them up no longer than that takes, whatever becomes of the supervisor's own standard error.

A record's `extra` goes into its JSON line; `trace_fields` makes the one that ties a line to a request. Text that came
from outside is shown, never obeyed: what a terminal would act on is escaped in both styles.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO

SHORT_TRACE = 8  # hexadecimal digits of a trace id at a terminal
COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[1;31m"}
RESET = "\x1b[0m"

STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
"""What every log record has; what else it has came by `extra`."""

_readable = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=str, separators=(",", ":"))
_ascii = json.JSONEncoder(ensure_ascii=True, allow_nan=False, default=str, separators=(",", ":"))


def trace_fields(trace_id: bytes, span_id: bytes) -> dict[str, str]:
    """For `extra`: ids of 16 and 8 bytes as hexadecimal digits. Nothing for ids that are empty or zero."""
    return {"trace_id": trace_id.hex(), "span_id": span_id.hex()} if any(trace_id) else {}


def extra_fields(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in record.__dict__.items() if key not in STANDARD}


def json_text(value: Any) -> str:
    """JSON of one line: as it reads, and in ASCII where a character of it is not printable.

    Raises TypeError or ValueError for what JSON has no form for: NaN, keys that are no strings, cycles.
    """
    text = _readable.encode(value)
    return text if text.isprintable() else _ascii.encode(value)


def printable(text: str) -> str:
    """Without anything that a terminal obeys; lines after the first are indented, so that none looks like a record."""
    if text.isprintable():
        return text
    return "\n  ".join("\t".join(map(escaped, line.split("\t"))) for line in text.split("\n"))


def escaped(text: str) -> str:
    r"""On one line: what is not printable is written as \x1b, \u2028 or \U000e0001."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def for_people(style: str, stream: TextIO) -> bool:
    """`style`: auto, text, json."""
    return style == "text" or (style == "auto" and stream.isatty())


class Lines(Protocol):
    """Takes whole lines of text."""

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...


class JsonFormatter(logging.Formatter):
    """One JSON object a line. An extra field that has the name of one of its own gets an underscore after it."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        extra = extra_fields(record)
        named = {f"{key}_" if key in line else key: value for key, value in extra.items()}
        try:
            return json_text(line | named)
        except (TypeError, ValueError, RecursionError):
            return json_text(line | {str(key): str(value) for key, value in named.items()})


class TextFormatter(logging.Formatter):
    """`12:00:01 control    WARNING message [trace 4bf92f35]`, then the exception; times are local."""

    def __init__(self, process: str, *, colour: bool) -> None:
        super().__init__()
        self._process = process
        self._colours: Mapping[int, str] = COLOURS if colour else {}

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        colour = self._colours.get(record.levelno, "")
        level = f"{colour}{record.levelname:<7}{RESET if colour else ''}"
        text = f"{clock} {self._process:<10} {level} {printable(record.getMessage())}"
        trace_id = getattr(record, "trace_id", "")
        if trace_id:
            text += f" [trace {printable(str(trace_id)[:SHORT_TRACE])}]"
        if record.exc_info:
            text += "\n" + printable(self.formatException(record.exc_info))
        if record.stack_info:
            text += "\n" + printable(self.formatStack(record.stack_info))
        return text


def setup_logging(process: str, level: str, style: str, stream: Lines | None = None) -> logging.Formatter:
    """`style`: auto, text, json, coloured. `stream`: in place of standard error. Answers what makes the lines."""
    found = line_style(style, sys.stderr)
    formatter = JsonFormatter(process) if found == "json" else TextFormatter(process, colour=found == "coloured")
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    return formatter


def line_style(style: str, stream: TextIO) -> str:
    """json, text or coloured: what `style` means for lines that end up in `stream`."""
    if style == "coloured" or (for_people(style, stream) and takes_colour(stream)):
        return "coloured"
    return "text" if for_people(style, stream) else "json"


def takes_colour(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """A terminal, unless NO_COLOR (https://no-color.org) or TERM=dumb says otherwise."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
