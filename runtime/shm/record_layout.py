"""The record of one request: fixed size, written after the reply, read by whoever exports it.

    offset                                                                                    bytes
         0 ┌────────────────────┬────────────┬─────────────┬──────────┐
           │ trace_id 16        │ span_id 8  │ parent_id 8 │ run_id 8 │                         40
        40 ├────────────────────┴────────────┴─────────────┴──────────┤
           │ received_unix_ns, then since it was received: decoded,   │
           │ queued, started, gathered, ran, replied     7 u64, ns    │                         56
        96 ├───────────────────────────────────────────────────────────┤
           │ target, series, rows, run_rows, run_requests,             │
           │ bytes_in, bytes_out                         7 u32         │                         28
       124 ├───────────────────────────────────────────────────────────┤
           │ variant, authority, refusal, peer_port      4 u16         │                          8
       132 ├───────────────────────────────────────────────────────────┤
           │ code, reason, trace_flags, marks, peer_family,            │
           │ request_id_bytes, state_bytes, extra_bytes  8 u8          │                          8
       140 ├───────────────────────────────────────────────────────────┤
           │ padding 4 │ peer_address 16                               │                         20
       160 ├───────────────────────────────────────────────────────────┤
           │ request_id 64 (utf-8, cut)                                │                         64
       224 ├───────────────────────────────────────────────────────────┤
           │ text 160: tracestate (state_bytes), then extra_bytes of   │
           │ attributes: (number u8, length u8, utf-8)*                │                        160
       384 └───────────────────────────────────────────────────────────┘

Little-endian. A time that was not reached is 0 (but `replied` is always reached). `target`, `variant`, `authority` and
`refusal` are numbers in the ring's table of names (0: none); `series` the request's row in the worker's series page.
Of `request_id` and `text` only as many bytes mean something as their lengths say; the rest may be an earlier record's.
Requests of one run lie next to each other and share `run_id` (zeros: it did not run).
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

LAYOUT_VERSION = 1

REQUEST_ID_BYTES = 64
TEXT_BYTES = 160

FIELDS: tuple[tuple[str, str], ...] = (
    ("trace_id", "16s"),
    ("span_id", "8s"),
    ("parent_id", "8s"),
    ("run_id", "8s"),
    ("received_unix_ns", "Q"),
    ("decoded_ns", "Q"),
    ("queued_ns", "Q"),
    ("started_ns", "Q"),
    ("gathered_ns", "Q"),
    ("ran_ns", "Q"),
    ("replied_ns", "Q"),
    ("target", "I"),
    ("series", "I"),
    ("rows", "I"),
    ("run_rows", "I"),
    ("run_requests", "I"),
    ("bytes_in", "I"),
    ("bytes_out", "I"),
    ("variant", "H"),
    ("authority", "H"),
    ("refusal", "H"),
    ("peer_port", "H"),
    ("code", "B"),
    ("reason", "B"),
    ("trace_flags", "B"),
    ("marks", "B"),
    ("peer_family", "B"),
    ("request_id_bytes", "B"),
    ("state_bytes", "B"),
    ("extra_bytes", "B"),
    ("padding", "4s"),
    ("peer_address", "16s"),
    ("request_id", f"{REQUEST_ID_BYTES}s"),
    ("text", f"{TEXT_BYTES}s"),
)

PACKED = struct.Struct("<" + "".join(form for _, form in FIELDS))
"""Packs a record's fields in the order of FIELDS."""

RECORD_BYTES = PACKED.size
OFFSETS: dict[str, int] = {}
_offset = 0
for _name, _form in FIELDS:
    OFFSETS[_name] = _offset
    _offset += struct.calcsize("<" + _form)


class Mark(IntFlag):
    """The bits of `marks`."""

    PARENT = 1  # the client sent a span of its own, which is the parent
    STREAM = 2  # a message of ModelStreamInfer
    ID_CUT = 4  # request_id was longer
    TEXT_CUT = 8  # tracestate or attributes found no room


class Reason(IntEnum):
    """Why this version answers: `reason` of a record."""

    NONE = 0
    DEFAULT = 1
    LABEL = 2
    VERSION = 3
    RULE = 4  # a rule of the model's route leads here
    STICKY = 5  # by weight, and the client's key chose
    DRAWN = 6  # by weight, without a key


class PeerFamily(IntEnum):
    UNKNOWN = 0
    IPV4 = 4
    IPV6 = 6
    UNIX = 1
