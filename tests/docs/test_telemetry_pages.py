"""What the pages on telemetry say of variables and of shared memory is what the code does."""

from __future__ import annotations

import ast
import inspect
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.shm.record_layout import FIELDS, RECORD_BYTES

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = re.compile(r"OTEL(_[A-Z]+)+_?")
MARGIN = re.compile(r" *(\d+) [┌├└]")


@pytest.fixture
def otel(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    before = set(sys.modules)
    from generator import otel

    yield otel
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "generator":
            del sys.modules[name]


def names_in_source() -> set[str]:
    """OTEL variables, and beginnings of them, that stand in strings of the code outside of docstrings."""
    found: set[str] = set()
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and VARIABLE.fullmatch(node.value):
                found.add(node.value)
    return found


def test_every_variable_that_the_code_asks_for_is_on_the_page_and_no_other(otel: object) -> None:
    assert otel.asked() == otel.told()  # type: ignore[attr-defined]


def test_every_variable_that_the_code_names_is_on_the_page(otel: object) -> None:
    """Also those of branches that the generator's environments do not reach."""
    told = otel.told()  # type: ignore[attr-defined]
    assert len(names_in_source()) > 10
    assert [name for name in names_in_source() if not any(known.startswith(name) for known in told)] == []


def test_the_drawing_of_a_record_has_every_field_in_its_order_at_its_offset() -> None:
    """The numbers at the margin are the offsets of the rows' first fields, and of the end."""
    from runtime.shm import record_layout

    offsets, offset = {}, 0
    for name, form in FIELDS:
        offsets[offset] = name
        offset += struct.calcsize("<" + form)
    rows: list[tuple[int, str]] = []
    for line in (inspect.getdoc(record_layout) or "").splitlines():
        if margin := MARGIN.match(line):
            rows.append((int(margin[1]), ""))
        elif rows and "│" in line:
            rows[-1] = (rows[-1][0], rows[-1][1] + line)
    assert rows[-1] == (RECORD_BYTES, "")
    drawn = []
    for start, text in rows[:-1]:
        words = re.findall(r"[a-z_]+", text)
        for at in sorted(at for at in offsets if start <= at):
            name = offsets[at]
            if name not in words and name.removesuffix("_ns") not in words:
                break
            drawn.append(name)
    assert drawn == [name for name, _ in FIELDS]
