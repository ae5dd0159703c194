"""What comes from a peer: frames in a connection's inbox, taken apart where they lie.

A frame is dealt with once it is here whole. What a frame needs of Python (longer places, room aside) is asked for
before anything of it is taken, or of its message in a DATA frame with several: the same bytes are parsed again then.
"""

from __future__ import annotations

from numba import int32, int64, types, uint8

from bench.generator.answer_kernels import answer_of, count_answered, count_failed
from bench.generator.hpack import TABLE_BYTES
from bench.generator.hpack_kernels import UNREADABLE, read_status
from bench.generator.http2 import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_FRAME_BYTES,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER_BYTES,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    PADDED,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_BYTES,
    WINDOW_UPDATE,
)
from bench.generator.layout import (
    BAD_HEADERS,
    BAD_ORDER,
    CLOSED,
    CLOSING,
    DEAD,
    FRAME_TOO_LONG,
    GROW,
    HEADER_BYTES,
    INBOX_BYTES,
    IO_FAILED,
    JUDGE,
    LEAVING,
    OPEN,
    OPENING,
    STATE,
    WENT_AWAY,
)
from bench.generator.send_kernels import control, drop_pending, give_back, mark, reset_stream, retire
from bench.generator.system_kernels import EAGAIN, clock_ns, copy, move, receive, word
from runtime.kernels import kernel

_BYTES = types.Array(uint8, 1, "C")
PREFIX_BYTES = 5
_RESERVED = 0x7FFFFFFF


@kernel(int64(STATE, int64, int64), allocates=False)
def _slot_of(state, c, stream):  # type: ignore[no-untyped-def]
    """The slot whose stream it is, or -1: it has ended."""
    ring = len(state.of_stream) // state.run[0].connections
    s = int64(state.of_stream[c * ring + (stream >> 1) % ring]) - 1
    return s if s >= 0 and state.slot[s].id == stream else -1


@kernel(types.void(STATE, int64, int64), allocates=False)
def _release(state, c, s):  # type: ignore[no-untyped-def]
    ring = len(state.of_stream) // state.run[0].connections
    slot = state.slot[s]
    state.of_stream[c * ring + (slot.id >> 1) % ring] = 0
    slot.id = 0


@kernel(types.void(STATE, int64, int64, int64, int64), allocates=False)
def _finish(state, c, s, status, now_ns):  # type: ignore[no-untyped-def]
    """The peer has ended the stream of slot s, with this status or (-1) without one."""
    run = state.run[0]
    connection = state.connection[c]
    slot = state.slot[s]
    if not slot.said_all:
        reset_stream(state, c, s)
        if connection.state == DEAD:
            return
    if run.streaming:
        connection.pend = 0
        if connection.active > 0:
            count_failed(state, status, connection.active)
        elif status != 0:
            run.in_flight += 1  # of the stream itself
            count_failed(state, status, 1)
        connection.active = 0
    else:
        if status == 0 and slot.messages == 1 and slot.fill == 0 and not slot.bad:
            count_answered(state, slot.answer, slot.size + PREFIX_BYTES, slot.began_ns, now_ns)
        else:
            count_failed(state, status, 1)
        connection.active -= 1
        state.free[c * run.streams + connection.free] = int32(s)
        connection.free += 1
    _release(state, c, s)
    mark(state, c)


@kernel(types.void(STATE, int64, int64, _BYTES, int64, int64, int64), allocates=False)
def _take_message(state, c, s, data, at, size, now_ns):  # type: ignore[no-untyped-def]
    """A whole message without its prefix: the answer to the request of slot s or, streaming, to the oldest one."""
    run = state.run[0]
    connection = state.connection[c]
    slot = state.slot[s]
    slot.messages += 1
    if not run.streaming:
        slot.answer = answer_of(state, slot.request, data, at, size)
        slot.size = size
    elif connection.active > 0:
        waiting = state.slot[s + connection.head]
        answer = answer_of(state, waiting.request, data, at, size)
        count_answered(state, answer, size + PREFIX_BYTES, waiting.began_ns, now_ns)
        connection.head = (connection.head + 1) % run.streams
        connection.active -= 1
        mark(state, c)


@kernel(int64(STATE, int64, int64, int64, int64, int64), allocates=False)
def _take_data(state, c, s, at, size, now_ns):  # type: ignore[no-untyped-def]
    """A DATA frame's bytes inbox[at : at + size]; 0, or what Python has to do first."""
    run = state.run[0]
    connection = state.connection[c]
    slot = state.slot[s]
    end = at + size
    at += connection.frame_done
    place = s * run.place_bytes
    while at < end:
        here = end - at
        if slot.fill == 0 and here >= PREFIX_BYTES:
            length = word(state.inbox, at + 1)
            if here >= PREFIX_BYTES + length:  # the usual case: it need not be put together
                if length > run.aside_bytes - run.aside_fill:
                    run.need_bytes = length
                    return JUDGE
                slot.bad |= int64(state.inbox[at])
                _take_message(state, c, s, state.inbox, at + PREFIX_BYTES, length, now_ns)
                at += PREFIX_BYTES + length
                connection.frame_done += PREFIX_BYTES + length
                continue
        if slot.fill < PREFIX_BYTES:
            taken = min(PREFIX_BYTES - slot.fill, here)
        else:
            length = word(state.assembly, place + 1)
            if PREFIX_BYTES + length > run.place_bytes:
                run.need_bytes = PREFIX_BYTES + length
                return GROW
            if length > run.aside_bytes - run.aside_fill:
                run.need_bytes = length
                return JUDGE
            taken = min(PREFIX_BYTES + length - slot.fill, here)
        copy(state.assembly, place + slot.fill, state.inbox, at, taken)
        slot.fill += taken
        at += taken
        connection.frame_done += taken
        if slot.fill >= PREFIX_BYTES and slot.fill == PREFIX_BYTES + word(state.assembly, place + 1):
            slot.bad |= int64(state.assembly[place])
            _take_message(state, c, s, state.assembly, place + PREFIX_BYTES, slot.fill - PREFIX_BYTES, now_ns)
            slot.fill = 0
    return 0


@kernel(types.void(STATE, int64, int64, int64), allocates=False)
def _take_settings(state, c, at, end):  # type: ignore[no-untyped-def]
    run = state.run[0]
    connection = state.connection[c]
    while at + 6 <= end:
        name = int64(state.inbox[at]) << 8 | int64(state.inbox[at + 1])
        value = word(state.inbox, at + 2)
        at += 6
        if name == HEADER_TABLE_SIZE:
            if value < TABLE_BYTES and connection.tableless == 0:
                connection.tableless = 1
        elif name == MAX_CONCURRENT_STREAMS:
            connection.peer_streams = value
        elif name == INITIAL_WINDOW_SIZE:
            change = value - connection.peer_window
            connection.peer_window = value
            for s in range(c * run.streams, (c + 1) * run.streams):
                if state.slot[s].id != 0:
                    state.slot[s].window += change
        elif name == MAX_FRAME_SIZE:
            connection.peer_frame = value
    control(state, c, 0, SETTINGS, ACK, 0)
    if connection.state == OPENING:
        connection.state = OPEN
        mark(state, c)


@kernel(types.void(STATE, int64, int64, int64), allocates=False)
def _go_away(state, c, last, now_ns):  # type: ignore[no-untyped-def]
    """Streams after `last` were not looked at by the peer; the others will be answered."""
    run = state.run[0]
    connection = state.connection[c]
    connection.state = LEAVING
    for s in range(c * run.streams, (c + 1) * run.streams):
        slot = state.slot[s]
        if slot.id > last and connection.state == LEAVING:
            slot.said_all = 1
            drop_pending(state, c, s)
            _finish(state, c, s, -1, now_ns)


@kernel(types.void(STATE, int64, int64, int64, _BYTES, int64, int64, int64), allocates=False)
def _take_headers(state, c, stream, ends, block, at, end, now_ns):  # type: ignore[no-untyped-def]
    """A whole block; read even where the stream has ended, because it may change the table."""
    status = read_status(state, c, block, at, end)
    if status == UNREADABLE:
        retire(state, c, BAD_HEADERS)
        return
    s = _slot_of(state, c, stream)
    if s >= 0 and ends:
        _finish(state, c, s, status, now_ns)


@kernel(types.void(STATE, int64, int64, int64, int64, int64, int64, int64), allocates=False)
def _begin_headers(state, c, stream, flags, at, end, padding, now_ns):  # type: ignore[no-untyped-def]
    connection = state.connection[c]
    if flags & PRIORITY:
        at += 5
    end -= padding
    if at > end:
        retire(state, c, BAD_HEADERS)
    elif flags & END_HEADERS:
        _take_headers(state, c, stream, flags & END_STREAM, state.inbox, at, end, now_ns)
    else:
        connection.block_stream = stream
        connection.block_end = flags & END_STREAM
        connection.block_fill = end - at
        copy(state.block, c * HEADER_BYTES, state.inbox, at, end - at)


@kernel(types.void(STATE, int64, int64, int64, int64, int64), allocates=False)
def _continue_headers(state, c, flags, at, end, now_ns):  # type: ignore[no-untyped-def]
    connection = state.connection[c]
    base = c * HEADER_BYTES
    if connection.block_fill + end - at > HEADER_BYTES:
        retire(state, c, BAD_HEADERS)
        return
    copy(state.block, base + connection.block_fill, state.inbox, at, end - at)
    connection.block_fill += end - at
    if flags & END_HEADERS:
        stream = connection.block_stream
        connection.block_stream = 0
        ends = connection.block_end
        _take_headers(state, c, stream, ends, state.block, base, base + connection.block_fill, now_ns)


@kernel(types.void(STATE, int64, int64, int64, int64), allocates=False)
def _return_window(state, c, s, size, end_of_stream):  # type: ignore[no-untyped-def]
    """So much of the peer's windows was used; s: -1 where the stream has ended."""
    connection = state.connection[c]
    connection.taken += size
    if connection.taken > WINDOW_BYTES // 2:
        give_back(state, c, 0, connection.taken)
        connection.taken = 0
    if s >= 0 and not end_of_stream:
        slot = state.slot[s]
        slot.taken += size
        if slot.taken > WINDOW_BYTES // 2:
            give_back(state, c, slot.id, slot.taken)
            slot.taken = 0


@kernel(int64(STATE, int64, int64, int64, int64, int64, int64, int64), allocates=False)
def _take_frame(state, c, kind, flags, stream, at, length, now_ns):  # type: ignore[no-untyped-def]
    """One frame, its payload inbox[at : at + length]; 0, or what Python has to do first."""
    connection = state.connection[c]
    end = at + length
    begin = at
    padding = 0
    if (connection.block_stream != 0) != (kind == CONTINUATION):
        retire(state, c, BAD_ORDER)
        return 0
    if connection.block_stream not in (0, stream):
        retire(state, c, BAD_ORDER)
        return 0
    if flags & PADDED and kind in (DATA, HEADERS):
        padding = int64(state.inbox[at]) if length > 0 else 0
        at += 1
        if at + padding > end:
            retire(state, c, BAD_ORDER)
            return 0
    if kind == DATA:
        s = _slot_of(state, c, stream)
        if s >= 0:
            code = _take_data(state, c, s, at, end - padding - at, now_ns)
            if code != 0:
                return code
            connection.frame_done = 0
        _return_window(state, c, s, length, flags & END_STREAM)
        if s >= 0 and flags & END_STREAM and connection.state != DEAD:
            _finish(state, c, s, -1, now_ns)
    elif kind == HEADERS:
        _begin_headers(state, c, stream, flags, at, end, padding, now_ns)
    elif kind == CONTINUATION:
        _continue_headers(state, c, flags, at, end, now_ns)
    elif kind == WINDOW_UPDATE and length == 4:
        amount = word(state.inbox, begin) & _RESERVED
        if stream == 0:
            connection.window += amount
            mark(state, c)
        else:
            s = _slot_of(state, c, stream)
            if s >= 0:
                state.slot[s].window += amount
                mark(state, c)
    elif kind == SETTINGS and not flags & ACK:
        _take_settings(state, c, begin, end)
    elif kind == PING and length == 8 and not flags & ACK:
        reply = control(state, c, 8, PING, ACK, 0)
        if reply >= 0:
            copy(state.outbox, reply, state.inbox, begin, 8)
    elif kind == RST_STREAM and length == 4:
        s = _slot_of(state, c, stream)
        if s >= 0:
            state.slot[s].said_all = 1  # there is nobody left to tell
            drop_pending(state, c, s)
            _finish(state, c, s, -1, now_ns)
    elif kind == GOAWAY and length >= 8:
        _go_away(state, c, word(state.inbox, begin) & _RESERVED, now_ns)
    return 0


@kernel(int64(STATE, int64, int64), allocates=False)
def parse(state, c, now_ns):  # type: ignore[no-untyped-def]
    """All whole frames of the inbox; what is left of another is moved to its start. 0, or what Python has to do."""
    connection = state.connection[c]
    base = c * INBOX_BYTES
    at = 0
    code = 0
    while connection.in_fill - at >= FRAME_HEADER_BYTES:
        head = base + at
        length = int64(state.inbox[head]) << 16 | int64(state.inbox[head + 1]) << 8 | int64(state.inbox[head + 2])
        if length > DEFAULT_FRAME_BYTES:
            retire(state, c, FRAME_TOO_LONG)
            break
        if connection.in_fill - at < FRAME_HEADER_BYTES + length:
            break
        kind = int64(state.inbox[head + 3])
        flags = int64(state.inbox[head + 4])
        stream = word(state.inbox, head + 5) & _RESERVED
        code = _take_frame(state, c, kind, flags, stream, head + FRAME_HEADER_BYTES, length, now_ns)
        if code != 0 or connection.state == DEAD:
            break
        at += FRAME_HEADER_BYTES + length
    if connection.state == LEAVING and connection.active == 0 and state.run[0].phase < CLOSING:
        retire(state, c, WENT_AWAY)
    if connection.state == DEAD:
        connection.in_fill = 0
        return 0
    left = connection.in_fill - at
    if at > 0 and left > 0:
        move(state.inbox, base, base + at, left)
    connection.in_fill = left
    return code


@kernel(int64(STATE, int64), allocates=False)
def take_all(state, c):  # type: ignore[no-untyped-def]
    """Receives and parses until the socket has nothing more; 0, or what Python has to do before the rest is taken."""
    connection = state.connection[c]
    if connection.resume:
        connection.resume = 0
        code = parse(state, c, clock_ns(state.pause))
        if code != 0:
            connection.resume = 1
            return code
    while connection.state != DEAD:
        room = INBOX_BYTES - connection.in_fill
        got = receive(connection.fd, state.inbox, c * INBOX_BYTES + connection.in_fill, room)
        if got <= 0:
            if got != -EAGAIN:
                retire(state, c, CLOSED if got == 0 else IO_FAILED)
            break
        connection.in_fill += got
        code = parse(state, c, clock_ns(state.pause))
        if code != 0:
            connection.resume = 1
            return code
        if got < room and not connection.hung_up:
            break
    return 0
