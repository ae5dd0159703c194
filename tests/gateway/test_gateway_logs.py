"""The process log: JSON lines that parse whatever is in a record, and text that a terminal cannot be driven by."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.logs import (
    JsonFormatter,
    TextFormatter,
    json_text,
    line_style,
    printable,
    setup_logging,
    takes_colour,
    trace_fields,
)

TRACE, SPAN = bytes(range(1, 17)), bytes(range(1, 9))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=5,
)


def record(message: str = "hello", *arguments: object, **extra: Any) -> logging.LogRecord:
    return logging.getLogger("gateway.test").makeRecord(
        "gateway.test", logging.WARNING, "file.py", 1, message, arguments, None, extra=extra
    )


def parsed(made: logging.LogRecord) -> dict[str, Any]:
    """Strictly: what is no JSON for others than Python fails."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    line = JsonFormatter("control").format(made)
    assert line.isprintable(), "one line, and nothing that a terminal obeys"
    found = json.loads(line, parse_constant=refuse)
    assert isinstance(found, dict)
    return found


def test_a_json_line_says_when_who_and_what() -> None:
    line = parsed(record("%d models", 3))
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line == {"level": "warning", "process": "control", "logger": "gateway.test", "message": "3 models"}


def test_a_json_line_has_the_ids_of_its_request_and_other_fields() -> None:
    line = parsed(record(**trace_fields(TRACE, SPAN), model="m", rows=3, shares=[0.5, None]))
    assert (line["trace_id"], line["span_id"]) == (TRACE.hex(), SPAN.hex())
    assert (line["model"], line["rows"], line["shares"]) == ("m", 3, [0.5, None])


@pytest.mark.parametrize("ids", [(b"", b""), (bytes(16), bytes(8))])
def test_without_a_trace_there_are_no_ids(ids: tuple[bytes, bytes]) -> None:
    assert trace_fields(*ids) == {}


def test_a_field_does_not_take_the_place_of_one_of_the_line() -> None:
    line = parsed(record("said", level="x", time="y", logger="z"))
    assert (line["message"], line["level"], line["logger"]) == ("said", "warning", "gateway.test")
    assert (line["level_"], line["time_"], line["logger_"]) == ("x", "y", "z")


def test_an_exception_is_in_its_line() -> None:
    try:
        raise ValueError("bad\n\x1b[2J")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    text = TextFormatter("control", colour=False).format(made)
    assert "ValueError: bad" in parsed(made)["exception"]
    assert "ValueError: bad" in text
    assert "\x1b" not in text


def test_what_json_has_no_form_for_becomes_text() -> None:
    ring: list[Any] = []
    ring.append(ring)
    line = parsed(record(nan=float("nan"), ring=ring, other={(1, 2): 3}, plain=1))
    assert (line["nan"], line["ring"], line["other"], line["plain"]) == ("nan", "[[...]]", "{(1, 2): 3}", "1")
    assert parsed(record(kept={1}))["kept"] == "{1}"


@given(st.text(), values)
def test_any_record_is_one_line_of_strict_json(message: str, value: Any) -> None:
    line = parsed(record("%s", message, field=value))
    assert line["message"] == message
    assert "field" in line


@given(st.text())
def test_json_text_means_the_text(text: str) -> None:
    assert json.loads(json_text(text)) == text
    assert json_text(text).isprintable()


@given(st.text())
def test_text_for_people_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    shown = printable(text)
    assert all(character.isprintable() or character in "\n\t" for character in shown)
    assert all(line.startswith("  ") for line in shown.split("\n")[1:]), "no line looks like a record of its own"


def test_text_says_when_who_how_bad_what_and_of_which_trace() -> None:
    line = TextFormatter("worker 0", colour=False).format(record("slow", **trace_fields(TRACE, SPAN)))
    clock, rest = line[:8], line[8:]
    assert [len(part) for part in clock.split(":")] == [2, 2, 2]
    assert rest == " worker 0   WARNING slow [trace 01020304]"


@contextmanager
def standard_error(stream: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(sys, "stderr", stream)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def test_auto_is_json_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    with standard_error(stream, monkeypatch):
        setup_logging("control", "info", "auto")
        logging.getLogger("gateway.test").info("hello")
        logging.getLogger("gateway.test").debug("unseen")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["hello"]


def test_auto_is_text_in_colour_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    leader, follower = pty.openpty()
    try:
        with open(follower, "w", closefd=False) as terminal, standard_error(terminal, monkeypatch):
            setup_logging("control", "info", "auto")
            logging.getLogger("gateway.test").warning("hello")
        shown = os.read(leader, 1000).decode()
        with open(follower, "w", closefd=False) as terminal:
            assert takes_colour(terminal, {"TERM": "xterm"})
            assert not takes_colour(terminal, {"TERM": "dumb"})
            assert not takes_colour(terminal, {"TERM": "xterm", "NO_COLOR": "1"})
    finally:
        os.close(leader)
        os.close(follower)
    assert "control" in shown
    assert "\x1b[33mWARNING\x1b[0m hello" in shown


def test_a_process_whose_lines_end_up_at_a_terminal_is_told_their_style(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own standard error is a pipe to the supervisor, which asks the terminal."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    leader, follower = pty.openpty()
    try:
        with os.fdopen(follower, "w") as terminal:
            assert [line_style(style, terminal) for style in ("auto", "text", "json")] == [
                "coloured",
                "coloured",
                "json",
            ]
    finally:
        os.close(leader)
    pipe = io.StringIO()
    assert [line_style(style, pipe) for style in ("auto", "text", "json")] == ["json", "text", "json"]
    with standard_error(pipe, monkeypatch):
        setup_logging("control", "info", line_style("coloured", pipe))
        logging.getLogger("gateway.test").warning("hello")
    assert "control    \x1b[33mWARNING\x1b[0m hello" in pipe.getvalue()


def test_text_elsewhere_has_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    with standard_error(stream, monkeypatch):
        setup_logging("control", "warning", "text")
        logging.getLogger("gateway.test").error("hello")
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().endswith(" control    ERROR   hello\n")
