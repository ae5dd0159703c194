"""A peer that costs next to nothing: it gives each unary request's bytes back, and looks at no header."""

from __future__ import annotations

from numba import int32, int64, types, uint8

from bench.generator.http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER_BYTES,
    HEADERS,
    SETTINGS,
    WINDOW_UPDATE,
)
from bench.generator.layout import EVENT_BYTES, EVENT_DATA_AT, EVENTS
from bench.generator.send_kernels import put_frame, put_word
from bench.generator.system_kernels import copy, load32, move, receive, send, wait, word
from runtime.kernels import kernel

ROOM_BYTES = 1 << 20
"""Of what comes and of what goes, a connection."""

FORGET_BYTES = 30_000
"""After so many the peer's window is given back."""

STATUS_200 = 0x88
TRAILERS = b"\x00\x0bgrpc-status\x010"
_TRAILERS = tuple(TRAILERS)
_TRAILERS_BYTES = len(TRAILERS)

_BYTES = types.Array(uint8, 1, "C")
_INT32 = types.Array(int32, 1, "C")
_INT64 = types.Array(int64, 1, "C")


@kernel(int64(_BYTES, int64, int64, _BYTES, int64, _INT64), allocates=False)
def _answer(inbox, at, end, outbox, to, taken):  # type: ignore[no-untyped-def]
    """Frames of inbox[at:end], answered into outbox; taken: int64[3], bytes dealt with, written, not given back."""
    start, begin = at, to
    while end - at >= FRAME_HEADER_BYTES:
        length = int64(inbox[at]) << 16 | int64(inbox[at + 1]) << 8 | int64(inbox[at + 2])
        if end - at < FRAME_HEADER_BYTES + length:
            break
        kind, flags = int64(inbox[at + 3]), int64(inbox[at + 4])
        stream = word(inbox, at + 5)
        at += FRAME_HEADER_BYTES
        if kind == SETTINGS and not flags & ACK:
            put_frame(outbox, to, 0, SETTINGS, ACK, 0)
            to += FRAME_HEADER_BYTES
        elif kind == DATA:
            taken[2] += length
            put_frame(outbox, to, 1, HEADERS, END_HEADERS, stream)
            outbox[to + FRAME_HEADER_BYTES] = uint8(STATUS_200)
            to += FRAME_HEADER_BYTES + 1
            put_frame(outbox, to, length, DATA, 0, stream)
            copy(outbox, to + FRAME_HEADER_BYTES, inbox, at, length)
            to += FRAME_HEADER_BYTES + length
            put_frame(outbox, to, _TRAILERS_BYTES, HEADERS, END_HEADERS | END_STREAM, stream)
            to += FRAME_HEADER_BYTES
            for place in range(_TRAILERS_BYTES):
                outbox[to + place] = uint8(_TRAILERS[place])
            to += _TRAILERS_BYTES
        at += length
    if taken[2] > FORGET_BYTES:
        put_frame(outbox, to, 4, WINDOW_UPDATE, 0, 0)
        put_word(outbox, to + FRAME_HEADER_BYTES, taken[2])
        to += FRAME_HEADER_BYTES + 4
        taken[2] = 0
    taken[0], taken[1] = at - start, to - begin
    return 0


@kernel(int64(int64, _BYTES, _INT64, _INT64, _INT32, _BYTES, _INT64, _BYTES), nogil=True, allocates=False)
def serve(epoll, events, pause, taken, fills, inbox, unreturned, outbox):  # type: ignore[no-untyped-def]
    """For ever, by file descriptor; ends with the first connection that does, which is the load's end.

    Requests are of one DATA frame and much shorter than ROOM_BYTES; what is in flight fits into the sockets' buffers.
    """
    while True:
        for event in range(wait(epoll, events, EVENTS, pause, 1_000_000_000)):
            fd = int64(load32(events, event * EVENT_BYTES + EVENT_DATA_AT))
            base = fd * ROOM_BYTES
            got = receive(fd, inbox, base + fills[fd], ROOM_BYTES // 4 - fills[fd])
            if got <= 0:
                return got
            end = base + fills[fd] + got
            taken[2] = unreturned[fd]
            _answer(inbox, base, end, outbox, 0, taken)
            unreturned[fd] = taken[2]
            left = end - base - taken[0]
            move(inbox, base, base + taken[0], left)
            fills[fd] = int32(left)
            sent = 0
            while sent < taken[1]:
                more = send(fd, outbox, sent, taken[1] - sent)
                if more < 0:
                    return more
                sent += more
