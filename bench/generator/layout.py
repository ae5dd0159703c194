"""What the kernels work on: one record of the burst, one a connection, one a stream, and buffers, all allocated before.

A *slot* is a place for a request in flight: `streams` of them a connection, slot = connection * streams + index.
Unary, each slot has its own HTTP/2 stream. Streaming, a connection's one stream is kept in its first slot, and its
slots are a ring of the messages that wait for their answers in order.
"""

from __future__ import annotations

import mmap
import platform
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import from_dtype, int32, int64, types, uint8

Array = npt.NDArray[Any]

INBOX_BYTES = 256 * 1024
OUTBOX_BYTES = 128 * 1024
CONTROL_BYTES = 16 * 1024
"""Of an outbox, kept for acknowledgements."""
HEADER_BYTES = 64 * 1024
"""The longest header block that comes in several frames."""
EVENTS = 64
EVENT_BYTES = 12 if platform.machine() == "x86_64" else 16
"""struct epoll_event is packed on x86-64 alone."""
EVENT_DATA_AT = EVENT_BYTES - 8
FILES = 65_536
"""File descriptors are below it."""

STATUSES = 34
"""Counts by grpc-status + 1: -1, where a stream ended without one, is the first; the last is all others."""

MOST_ANSWERS = 65_536
"""Distinct replies that are told apart, over the life of a generator."""
ANSWER_PLACES = 2 * MOST_ANSWERS
ASIDE_BYTES = 64 * 2**20
"""Of new replies that wait to be judged; more is made where one reply is longer."""

HISTOGRAM_BITS = 10
"""A bucket is at most 2^-10 of its value wide: what is read from it is within 0.05 %."""
BUCKETS = (64 - HISTOGRAM_BITS) << HISTOGRAM_BITS

DEAD, OPENING, OPEN, LEAVING = 0, 1, 2, 3
"""A connection: OPENING until the peer's SETTINGS have come, LEAVING after its GOAWAY."""

CONNECTING, RUNNING, DRAINING, CLOSING = 0, 1, 2, 3
"""A burst: DRAINING waits for what is in flight; CLOSING for the streams' own end, where messages were streamed."""

SLICE, READY, DONE, BROKEN, GROW, JUDGE = 0, 1, 2, 3, 4, 5
"""Why `drive` returns: time is up; all connections are open; all is answered, or the grace is over; a connection is
dead; a reply needs longer places; there is no room aside for new replies."""

RUN = np.dtype(
    [
        ("phase", np.int64),
        ("streaming", np.int64),
        ("open_loop", np.int64),
        ("connections", np.int64),
        ("streams", np.int64),
        ("pool", np.int64),  # requests to send in turn
        ("epoll", np.int64),
        ("begin_ns", np.int64),
        ("end_ns", np.int64),
        ("grace_ns", np.int64),  # when what is unanswered is given up
        ("slice_ns", np.int64),  # when to return to Python
        ("spin_ns", np.int64),  # before a request is due: no sleep
        ("place_bytes", np.int64),  # of each slot in `assembly`
        ("need_bytes", np.int64),
        ("exit", np.int64),
        ("next", np.int64),  # request of the pool
        ("rotation", np.int64),  # connection that is asked first for a free stream
        ("dirty", np.int64),  # connections in `dirty`
        ("in_flight", np.int64),
        ("sent", np.int64),
        ("answered", np.int64),  # status 0, one message: right or wrong
        ("in_time", np.int64),
        ("failed", np.int64),
        ("overflowed", np.int64),  # answered by what could not be told apart any more
        ("reply_bytes", np.int64),
        ("longest_ns", np.int64),
        ("answers", np.int64),
        ("judged", np.int64),
        ("aside_bytes", np.int64),
        ("aside_fill", np.int64),
        ("gap_ns", np.float64),  # mean, between arrivals
        ("seed", np.uint64),
        ("noticed", np.int64),  # arrivals that were due
        ("notice_ns", np.float64),  # when the next one is due, since begin_ns
        ("issued", np.int64),
        ("issue_ns", np.float64),  # when the next one to be sent is, or was, due
    ],
    align=True,
)

CONNECTION = np.dtype(
    [
        ("fd", np.int64),
        ("state", np.int64),
        ("resume", np.int64),  # received, but not yet parsed
        ("dirty", np.int64),
        ("hung_up", np.int64),  # the peer sends no more: what it has sent is read to its end
        ("complaint", np.int64),  # why it died, one of COMPLAINTS
        ("next_id", np.int64),
        ("primed", np.int64),  # the first header block was sent
        ("tableless", np.int64),  # 1: the peer keeps no table of headers; 2: and has been told
        ("window", np.int64),  # bytes that may be sent
        ("peer_window", np.int64),  # a new stream's
        ("peer_frame", np.int64),
        ("peer_streams", np.int64),
        ("taken", np.int64),  # received and not yet given back to the peer's window
        ("in_fill", np.int64),
        ("frame_done", np.int64),  # bytes of the first frame's message that were dealt with
        ("out_at", np.int64),
        ("out_fill", np.int64),
        ("free", np.int64),  # entries of `free`
        ("active", np.int64),  # requests in flight
        ("head", np.int64),  # streaming: the oldest message that waits
        ("pend_at", np.int64),
        ("pend", np.int64),  # slots whose messages are not yet all sent
        ("block_fill", np.int64),
        ("block_stream", np.int64),  # whose headers are not yet all here; 0: nobody's
        ("block_end", np.int64),
        ("table_at", np.int64),
        ("table_entries", np.int64),
        ("table_bytes", np.int64),
        ("table_most", np.int64),
    ],
    align=True,
)

COMPLAINTS = (
    "",
    "the peer closed a connection",
    "the peer said GOAWAY",
    "the peer sent a frame that is too long",
    "the peer sent headers that cannot be read",
    "the peer sent frames in an order that HTTP/2 forbids",
    "the peer does not read what is sent to it",
    "a connection failed",
    "a connection has used all its stream ids",
    "the peer sent more than its window",
)
CLOSED, WENT_AWAY, FRAME_TOO_LONG, BAD_HEADERS, BAD_ORDER, DEAF, IO_FAILED, IDS_USED = range(1, 9)

SLOT = np.dtype(
    [
        ("id", np.int64),  # of the stream; 0: none
        ("request", np.int64),
        ("began_ns", np.int64),
        ("sent", np.int64),  # of the request's message
        ("window", np.int64),
        ("said_all", np.int64),  # END_STREAM was sent
        ("fill", np.int64),  # bytes of a message in `assembly`
        ("messages", np.int64),
        ("answer", np.int64),  # of `answer`; -1: not told apart
        ("size", np.int64),  # of the reply
        ("bad", np.int64),
        ("taken", np.int64),
    ],
    align=True,
)

TABLE_ENTRY = np.dtype([("name", np.int32), ("value", np.int32), ("is_status", np.int32), ("status", np.int32)])
"""Of the peer's dynamic table, what matters: lengths, and the value of a grpc-status."""

ANSWER = np.dtype(
    [
        ("hash", np.uint64),
        ("request", np.int64),
        ("size", np.int64),
        ("count", np.int64),  # in this burst
        ("aside_at", np.int64),
    ],
    align=True,
)


class State(NamedTuple):
    run: Array  # RUN[1]
    connection: Array  # CONNECTION[connections]
    slot: Array  # SLOT[slots]
    of_stream: Array  # int32[connections * ring]: slot + 1 by stream id / 2, 0: none
    free: Array  # int32[slots]: a stack a connection
    pend: Array  # int32[slots]: a ring a connection
    dirty: Array  # int32[connections]: to be sent
    inbox: Array  # uint8[connections * INBOX_BYTES]
    outbox: Array  # uint8[connections * OUTBOX_BYTES]
    block: Array  # uint8[connections * HEADER_BYTES]
    table: Array  # TABLE_ENTRY[connections * MOST_ENTRIES]
    assembly: Array  # uint8[slots * place_bytes]
    messages: Array  # uint8[]: the pool, with gRPC's prefixes
    message_at: Array  # int64[pool + 1]
    headers: Array  # uint8[]: the four request blocks
    header_at: Array  # int64[5]
    answer: Array  # ANSWER[MOST_ANSWERS]
    answer_at: Array  # int32[ANSWER_PLACES]: answer + 1 by hash, 0: none
    aside: Array  # uint8[aside_bytes]
    latency: Array  # int64[BUCKETS]
    lateness: Array  # int64[BUCKETS]: how long after it was due the generator noticed a request
    statuses: Array  # int64[STATUSES]
    owner: Array  # int32[FILES]: connection by file descriptor
    events: Array  # uint8[EVENTS * EVENT_BYTES]
    pause: Array  # int64[2]: struct timespec
    tree: Array  # int32[]: Huffman
    static: Array  # int32[62]: lengths of names
    text: Array  # uint8[]: start of the text read last


def _array(kind: Any) -> Any:
    return types.Array(kind, 1, "C")


def _records(dtype: np.dtype[Any]) -> Any:
    return types.Array(from_dtype(dtype), 1, "C")


_BYTES, _INT32, _INT64 = _array(uint8), _array(int32), _array(int64)
_KINDS = {
    "run": _records(RUN),
    "connection": _records(CONNECTION),
    "slot": _records(SLOT),
    "table": _records(TABLE_ENTRY),
    "answer": _records(ANSWER),
    **dict.fromkeys(("of_stream", "free", "pend", "dirty", "answer_at", "owner", "tree", "static"), _INT32),
    **dict.fromkeys(("message_at", "header_at", "latency", "lateness", "statuses", "pause"), _INT64),
}
STATE: Any = types.NamedTuple(  # type: ignore[no-untyped-call]
    [_KINDS.get(name, _BYTES) for name in State._fields], State
)
"""Numba's type of a State; the arrays that are not named otherwise are bytes."""

TEXT_BYTES = 32


def ring_size(streams: int) -> int:
    """Places of `of_stream`, a connection: a power of two, and twice as many as streams, so that a free one is near."""
    return 1 << max(2 * streams - 1, 1).bit_length()


NO_RESERVE = 0x4000
"""Linux's MAP_NORESERVE, which the mmap module names from Python 3.13 on."""


def reserved(size_bytes: int) -> Array:
    """uint8[size_bytes] of zeros that take memory only where they are written."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE
    return np.frombuffer(mmap.mmap(-1, max(size_bytes, 1), flags=flags), np.uint8)
