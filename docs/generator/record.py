"""The drawings and tables of docs/request-record.md, from the layouts in runtime/shm/."""

from __future__ import annotations

import inspect
import struct
from enum import IntEnum, IntFlag
from types import ModuleType

from generator.markdown import code, number, size, table
from runtime.shadow import ring_layout as copy_layout
from runtime.shm import panes_layout, record_layout, ring_layout, series_layout
from runtime.shm.record_layout import FIELDS, RECORD_BYTES, Mark, PeerFamily, Reason

MEANINGS = {
    "trace_id": "The trace; zeros where there is none.",
    "span_id": "The request's span.",
    "parent_id": "The caller's span; zeros where there is none.",
    "run_id": "The run that answered, and its span; zeros where the request did not run.",
    "received_unix_ns": "When the transport took the message, ns since 1970. The others are ns since then.",
    "decoded_ns": "Checked and routed.",
    "queued_ns": "Handed to its version's queue.",
    "started_ns": "Its batch was cut.",
    "gathered_ns": "The run's inputs stood together.",
    "ran_ns": "ONNX Runtime had answered.",
    "replied_ns": "The reply, or the refusal, was handed to the transport.",
    "target": "Name: model, version and digest.",
    "series": "Row of the worker's series page that counts the request.",
    "rows": "Rows of the request.",
    "run_rows": "Rows of the run.",
    "run_requests": "Requests of the run.",
    "bytes_in": "Of the request message.",
    "bytes_out": "Of the response message.",
    "variant": "Name: the arm of the route.",
    "authority": "Name: the host and port that the client called, as far as known.",
    "refusal": "Name: the reason of the refusal, as in ErrorInfo.",
    "peer_port": "The client's port.",
    "code": "The gRPC code.",
    "reason": "Why this version answered: see below.",
    "trace_flags": "W3C trace-flags; bit 0: the span is exported.",
    "marks": "Bits: see below.",
    "peer_family": "Kind of peer_address: see below.",
    "request_id_bytes": "Length of request_id.",
    "state_bytes": "Length of the tracestate in text.",
    "extra_bytes": "Length of the attributes in text, behind it.",
    "padding": "Zeros.",
    "peer_address": "The client's address, in network order.",
    "request_id": "As the client gave it, UTF-8, cut.",
    "text": "tracestate, then attributes: number u8, length u8, UTF-8, and so on.",
}
FORMS = {"Q": "u64", "I": "u32", "H": "u16", "B": "u8"}


def record() -> str:
    """The drawing, and a table with every field."""
    rows = []
    offset = 0
    for name, form in FIELDS:
        meaning = MEANINGS[name]  # a KeyError: a field that this page does not tell of
        rows.append((str(offset), code(name), FORMS.get(form, f"{form[:-1]} bytes"), meaning))
        offset += struct.calcsize("<" + form)
    if offset != RECORD_BYTES or len(MEANINGS) != len(FIELDS):
        raise SystemExit("docs/generator/record.py: its fields are not those of runtime/shm/record_layout.py")
    return f"{_drawing(record_layout)}\n{table(('offset', 'field', 'type', 'meaning'), rows)}"


def numbers() -> str:
    """The values of the fields that hold numbers with a meaning."""
    meanings = {
        Mark.PARENT: "The client sent a span of its own, which is the parent.",
        Mark.STREAM: "A message of ModelStreamInfer.",
        Mark.ID_CUT: "request_id was longer.",
        Mark.TEXT_CUT: "tracestate or an attribute found no room.",
    }
    rows = [(code("marks"), str(mark.value), _name(mark), meanings[mark]) for mark in Mark]
    rows += [(code("reason"), str(reason.value), _name(reason), "") for reason in Reason]
    rows += [(code("peer_family"), str(family.value), _name(family), "") for family in PeerFamily]
    return table(("field", "value", "name", "meaning"), rows)


def ring() -> str:
    return _drawing(ring_layout)


def series() -> str:
    return _drawing(series_layout)


def panes() -> str:
    """For docs/panes.md."""
    return _drawing(panes_layout)


def copies() -> str:
    """For docs/copies.md."""
    return _drawing(copy_layout)


def sizes() -> str:
    names = f"{number(ring_layout.NAMES)} names of {size(ring_layout.NAME_BYTES)}"
    rows = f"{number(series_layout.MAX_SERIES)} series of {size(series_layout.SERIES_WORDS * 8)}"
    return table(
        ("what", "layout", "size"),
        [
            ("record", str(record_layout.LAYOUT_VERSION), size(RECORD_BYTES)),
            ("ring", "that of its records", f"{size(ring_layout.HEADER_BYTES)}, {names}, and its records"),
            ("series page", str(series_layout.LAYOUT_VERSION), f"{size(series_layout.HEADER_BYTES)}, and {rows}"),
        ],
    )


def _drawing(module: ModuleType) -> str:
    """The indented block of a layout's docstring."""
    text = inspect.getdoc(module) or ""
    block = next(part for part in text.split("\n\n") if "┌" in part)
    lines = block.splitlines()
    last = max(number for number, line in enumerate(lines) if "┘" in line)
    return "```text\n" + "\n".join(line.rstrip() for line in lines[: last + 1]) + "\n```\n"


def _name(value: IntFlag | IntEnum) -> str:
    return (value.name or "").lower().replace("_", " ")
