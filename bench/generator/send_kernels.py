"""What goes to a peer: frames of requests and acknowledgements into a connection's outbox, and from it to the socket.

outbox  [ sent | to be sent            | room of requests      | room of control frames ]
         0      out_at                  out_fill                OUTBOX_BYTES - CONTROL_BYTES
"""

from __future__ import annotations

from numba import int32, int64, types, uint8

from bench.generator.answer_kernels import count_failed
from bench.generator.http2 import (
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER_BYTES,
    HEADERS,
    LAST_STREAM,
    RST_STREAM,
    WINDOW_UPDATE,
)
from bench.generator.layout import (
    CLOSING,
    CONTROL_BYTES,
    DEAD,
    DEAF,
    IDS_USED,
    IO_FAILED,
    OPEN,
    OUTBOX_BYTES,
    RUNNING,
    STATE,
)
from bench.generator.system_kernels import EAGAIN, clock_ns, copy, move, send
from runtime.kernels import kernel

_BYTES = types.Array(uint8, 1, "C")
_ROOM = OUTBOX_BYTES - CONTROL_BYTES
_LEAST_PIECE_BYTES = 16 * 1024
"""Of a long message, before the outbox has been emptied: no frames of a few bytes."""


@kernel(types.void(_BYTES, int64, int64), allocates=False)
def put_word(into, at, value):  # type: ignore[no-untyped-def]
    into[at] = uint8(value >> 24)
    into[at + 1] = uint8(value >> 16)
    into[at + 2] = uint8(value >> 8)
    into[at + 3] = uint8(value)


@kernel(types.void(_BYTES, int64, int64, int64, int64, int64), allocates=False)
def put_frame(into, at, length, kind, flags, stream):  # type: ignore[no-untyped-def]
    """A frame's header, 9 bytes."""
    into[at] = uint8(length >> 16)
    into[at + 1] = uint8(length >> 8)
    into[at + 2] = uint8(length)
    into[at + 3] = uint8(kind)
    into[at + 4] = uint8(flags)
    put_word(into, at + 5, stream)


@kernel(types.void(STATE, int64), allocates=False)
def mark(state, c):  # type: ignore[no-untyped-def]
    """Connection c may have something to send."""
    connection = state.connection[c]
    if not connection.dirty:
        run = state.run[0]
        connection.dirty = 1
        state.dirty[run.dirty] = int32(c)
        run.dirty += 1


@kernel(types.void(STATE, int64), allocates=False)
def _close_up(state, c):  # type: ignore[no-untyped-def]
    connection = state.connection[c]
    base = c * OUTBOX_BYTES
    left = connection.out_fill - connection.out_at
    if connection.out_at > 0:
        move(state.outbox, base, base + connection.out_at, left)
        connection.out_at = 0
        connection.out_fill = left


@kernel(types.void(STATE, int64, int64), allocates=False)
def retire(state, c, complaint):  # type: ignore[no-untyped-def]
    """The connection is dead, and all that is in flight on it has failed; Python closes it and may open another."""
    connection = state.connection[c]
    if connection.state == DEAD:
        return
    connection.state = DEAD
    connection.complaint = complaint
    if connection.active > 0:
        count_failed(state, -1, connection.active)
    connection.active = 0
    connection.pend = 0
    connection.out_at = 0
    connection.out_fill = 0
    streams = state.run[0].streams
    for s in range(c * streams, (c + 1) * streams):
        state.slot[s].id = 0
    ring = len(state.of_stream) // state.run[0].connections
    for place in range(c * ring, (c + 1) * ring):
        state.of_stream[place] = 0


@kernel(int64(STATE, int64, int64, int64, int64, int64), allocates=False)
def control(state, c, length, kind, flags, stream):  # type: ignore[no-untyped-def]
    """Where the payload of a control frame is to be written, its header being there; -1 if there is no room."""
    connection = state.connection[c]
    base = c * OUTBOX_BYTES
    if connection.out_fill + FRAME_HEADER_BYTES + length > OUTBOX_BYTES:
        _close_up(state, c)
        if connection.out_fill + FRAME_HEADER_BYTES + length > OUTBOX_BYTES:
            retire(state, c, DEAF)
            return -1
    at = base + connection.out_fill
    put_frame(state.outbox, at, length, kind, flags, stream)
    connection.out_fill += FRAME_HEADER_BYTES + length
    mark(state, c)
    return at + FRAME_HEADER_BYTES


@kernel(types.void(STATE, int64, int64), allocates=False)
def drop_pending(state, c, s):  # type: ignore[no-untyped-def]
    """Slot s has nothing more to send."""
    connection = state.connection[c]
    streams = state.run[0].streams
    base = c * streams
    kept = 0
    for turn in range(connection.pend):
        other = state.pend[base + (connection.pend_at + turn) % streams]
        if other != s:
            state.pend[base + (connection.pend_at + kept) % streams] = other
            kept += 1
    connection.pend = kept


@kernel(types.void(STATE, int64, int64), allocates=False)
def reset_stream(state, c, s):  # type: ignore[no-untyped-def]
    """The peer has ended a stream whose request was not yet all sent, or is given up: it hears no more of it."""
    drop_pending(state, c, s)
    at = control(state, c, 4, RST_STREAM, 0, state.slot[s].id)
    if at >= 0:
        put_word(state.outbox, at, CANCEL)


@kernel(types.void(STATE, int64, int64, int64), allocates=False)
def give_back(state, c, stream, amount):  # type: ignore[no-untyped-def]
    """So many bytes more may be sent by the peer; stream 0: on the connection."""
    at = control(state, c, 4, WINDOW_UPDATE, 0, stream)
    if at >= 0:
        put_word(state.outbox, at, amount)


@kernel(int64(STATE, int64, int64), allocates=False)
def _open_stream(state, c, s):  # type: ignore[no-untyped-def]
    """Slot s gets a stream and its HEADERS frame is in the outbox; 0 if there is no room for it."""
    connection = state.connection[c]
    block = 1 + connection.tableless if connection.tableless else connection.primed
    start = state.header_at[block]
    length = state.header_at[block + 1] - start
    if connection.out_fill + FRAME_HEADER_BYTES + length > _ROOM:
        _close_up(state, c)
        if connection.out_fill + FRAME_HEADER_BYTES + length > _ROOM:
            return 0
    ring = len(state.of_stream) // state.run[0].connections
    stream = connection.next_id
    while state.of_stream[c * ring + (stream >> 1) % ring] != 0:
        stream += 2  # an id may be left out: that place belongs to a stream that has not been answered for long
    if stream > LAST_STREAM:
        retire(state, c, IDS_USED)
        return 0
    connection.next_id = stream + 2
    connection.primed = 1
    if connection.tableless:
        connection.tableless = 2
    state.of_stream[c * ring + (stream >> 1) % ring] = int32(s + 1)
    slot = state.slot[s]
    slot.id = stream
    slot.window = connection.peer_window
    slot.said_all = 0
    slot.fill = 0
    slot.messages = 0
    slot.answer = -1
    slot.size = 0
    slot.bad = 0
    slot.taken = 0
    at = c * OUTBOX_BYTES + connection.out_fill
    put_frame(state.outbox, at, length, HEADERS, END_HEADERS, stream)
    copy(state.outbox, at + FRAME_HEADER_BYTES, state.headers, start, length)
    connection.out_fill += FRAME_HEADER_BYTES + length
    return 1


@kernel(int64(STATE, int64, int64), allocates=False)
def issue(state, c, began_ns):  # type: ignore[no-untyped-def]
    """The pool's next request goes to connection c, which is open and has a free slot; 0 if its outbox is full."""
    run = state.run[0]
    connection = state.connection[c]
    base = c * run.streams
    if run.streaming:
        if state.slot[base].id == 0 and not _open_stream(state, c, base):
            return 0
        s = base + (connection.head + connection.active) % run.streams
    else:
        s = int64(state.free[base + connection.free - 1])
        if not _open_stream(state, c, s):
            return 0
        connection.free -= 1
    slot = state.slot[s]
    slot.request = run.next
    slot.began_ns = began_ns
    slot.sent = 0
    run.next = run.next + 1 if run.next + 1 < run.pool else 0
    state.pend[base + (connection.pend_at + connection.pend) % run.streams] = int32(s)
    connection.pend += 1
    connection.active += 1
    run.in_flight += 1
    run.sent += 1
    return 1


@kernel(types.void(STATE, int64), allocates=False)
def pump(state, c):  # type: ignore[no-untyped-def]
    """Messages into the outbox, as far as it and the peer's windows allow, the oldest request first."""
    run = state.run[0]
    connection = state.connection[c]
    base = c * run.streams
    blocked = 0
    while blocked < connection.pend and connection.window > 0:
        s = int64(state.pend[base + connection.pend_at])
        slot = state.slot[s]
        stream = state.slot[base] if run.streaming else slot
        start = state.message_at[slot.request] + slot.sent
        left = state.message_at[slot.request + 1] - start
        room = _ROOM - connection.out_fill - FRAME_HEADER_BYTES
        if room < left and connection.out_at > 0:
            _close_up(state, c)
            room = _ROOM - connection.out_fill - FRAME_HEADER_BYTES
        size = min(left, connection.peer_frame, connection.window, stream.window)
        if room <= 0 or (room < size and room < _LEAST_PIECE_BYTES):
            return
        size = min(size, room)
        if size > 0:
            ends = size == left and not run.streaming
            at = c * OUTBOX_BYTES + connection.out_fill
            put_frame(state.outbox, at, size, DATA, END_STREAM if ends else 0, stream.id)
            copy(state.outbox, at + FRAME_HEADER_BYTES, state.messages, start, size)
            connection.out_fill += FRAME_HEADER_BYTES + size
            connection.window -= size
            stream.window -= size
            slot.sent += size
            blocked = 0
            if size == left:
                if ends:
                    slot.said_all = 1
                connection.pend_at = (connection.pend_at + 1) % run.streams
                connection.pend -= 1
                continue
        if stream.window <= 0:
            if run.streaming:
                return
            # This one waits for its window; the others need not.
            connection.pend_at = (connection.pend_at + 1) % run.streams
            state.pend[base + (connection.pend_at + connection.pend - 1) % run.streams] = int32(s)
            blocked += 1


@kernel(types.void(STATE, int64), allocates=False)
def _refill(state, c):  # type: ignore[no-untyped-def]
    """Closed loop: a request for every slot that is free."""
    run = state.run[0]
    connection = state.connection[c]
    most = run.streams if run.streaming else min(run.streams, connection.peer_streams)
    if connection.active >= most:
        return
    now = clock_ns(state.pause)
    if now < run.end_ns:
        while connection.active < most and issue(state, c, now):
            pass


@kernel(types.void(STATE, int64), allocates=False)
def tend(state, c):  # type: ignore[no-untyped-def]
    """Sends what connection c has to send, until nothing is left or the socket takes no more."""
    run = state.run[0]
    connection = state.connection[c]
    while connection.state != DEAD:
        if run.phase == RUNNING and not run.open_loop and connection.state == OPEN:
            _refill(state, c)
        if run.phase < CLOSING:
            pump(state, c)
        size = connection.out_fill - connection.out_at
        if size == 0:
            return
        sent = send(connection.fd, state.outbox, c * OUTBOX_BYTES + connection.out_at, size)
        if sent < 0:
            if sent != -EAGAIN:
                retire(state, c, IO_FAILED)
            return
        connection.out_at += sent
        if sent == size:
            connection.out_at = 0
            connection.out_fill = 0
            if connection.pend == 0 and (run.open_loop or connection.active == run.streams):
                return


@kernel(types.void(STATE, int64), allocates=False)
def end_stream(state, c):  # type: ignore[no-untyped-def]
    """Streaming: connection c's stream has sent its last message."""
    stream = state.slot[c * state.run[0].streams]
    if stream.id != 0 and not stream.said_all:
        stream.said_all = 1
        control(state, c, 0, DATA, END_STREAM, stream.id)
