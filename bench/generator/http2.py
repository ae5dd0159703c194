"""HTTP/2's numbers (RFC 9113) that the generator needs, and what it says when it opens a connection."""

from __future__ import annotations

import struct

FRAME_HEADER_BYTES = 9
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 3, 4, 5
CANCEL = 8

DEFAULT_WINDOW_BYTES = 65_535
DEFAULT_FRAME_BYTES = 16_384
MOST_WINDOW_BYTES = 2**31 - 1
LAST_STREAM = 2**31 - 1

WINDOW_BYTES = 2**30 - 1
"""What the peer may send unasked, on a stream and on a connection: as much as h2load grants, so never the limit."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def opening() -> bytes:
    """What a client sends first."""
    settings = struct.pack(">HIHI", ENABLE_PUSH, 0, INITIAL_WINDOW_SIZE, WINDOW_BYTES)
    more = struct.pack(">I", WINDOW_BYTES - DEFAULT_WINDOW_BYTES)
    return PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, more)


def closing() -> bytes:
    """A client's last words: it has opened its last stream, and nothing is wrong."""
    return frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0))
