"""Spans in protobuf's wire format, from records and templates (span_template.py): compiled, and without the GIL.

Nothing in a record is trusted: lengths are cut to the field they are in, text that is not UTF-8 ends before the first
wrong byte, and times that run backwards give durations of 0. The caller leaves ROOM_BYTES, a template, the keys and the
links behind the limit: a span is written first and taken back if it has gone beyond.
"""

from __future__ import annotations

from typing import Any

from numba import float64, int64, types, uint32, uint64

from gateway.telemetry.sampler import SAMPLED
from gateway.telemetry.span_bytes import (
    BYTES,
    NUMBERS,
    Array,
    Int,
    address_text,
    close,
    copy,
    is_printable,
    load64,
    put_bytes,
    put_double,
    put_int,
    put_text,
    put_varint,
    store,
    utf8_length,
)
from gateway.telemetry.span_table import CHOSEN, ONE_RECORD, RECORDS, record_at
from runtime.kernels import inline, kernel
from runtime.shm.record_layout import REQUEST_ID_BYTES, TEXT_BYTES, Mark, PeerFamily

KEYS = {
    "network.peer.address": "string",
    "driftgate.request.id": "string",
    "network.peer.port": "int",
    "driftgate.request.rows": "int",
    "driftgate.request.size": "int",
    "driftgate.response.size": "int",
    "driftgate.batch.rows": "int",
    "driftgate.batch.requests": "int",
    "driftgate.decode.duration": "double",
    "driftgate.queue.duration": "double",
    "driftgate.input.duration": "double",
    "driftgate.run.duration": "double",
    "driftgate.output.duration": "double",
}
"""Attributes whose values are each record's own, by the numbers below, and their types."""
PEER_ADDRESS, REQUEST_ID = range(2)
PEER_PORT, ROWS, SIZE_IN, SIZE_OUT, RUN_ROWS, RUN_REQUESTS = range(2, 8)  # integers
DECODE, QUEUE, INPUT, RUN, OUTPUT = range(8, 13)  # durations
FIRST_EXTRA = 13
ABSENT = 0xFFFF_FFFF_FFFF_FFFF  # stands for none: no count of 32 bits, and 584 years

NEXT, WITHIN, REQUESTS, RUNS = range(4)
STATE_WORDS = 4

HAS_IS_REMOTE, IS_REMOTE = 0x100, 0x200  # Span.flags: whether the parent is another process's is known, and so
LINK_BYTES = 35
ROOM_BYTES = 2048  # of a span, without its template, the keys of its extra attributes and its links
PARENT = int(Mark.PARENT)
IPV4, IPV6 = int(PeerFamily.IPV4), int(PeerFamily.IPV6)

_STARTS = types.Array(int64, 2, "C")
_VALUES = types.Array(uint64, 1, "C")


@inline
def _elapsed(later: Int, earlier: Int) -> Int:
    return later - earlier if later > earlier else uint64(0)


@inline
def _mix(value: Int) -> Int:
    """splitmix64's finaliser, which maps no two values to one (Steele, Lea, Flood 2014)."""
    value = (value ^ (value >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> uint64(27))) * uint64(0x94D049BB133111EB)
    return value ^ (value >> uint64(31))


@inline
def _put_ids(out: Array, at: Int, trace_low: Int, trace_high: Int, span: Int) -> Int:
    """The first two fields of a span and of a link: trace_id and span_id."""
    out[at] = 0x0A
    out[at + 1] = 16
    store(out, at + 2, trace_low)
    store(out, at + 10, trace_high)
    out[at + 18] = 0x12
    out[at + 19] = 8
    store(out, at + 20, span)
    return at + 28


@inline
def _put_link(out: Array, at: Int, trace_low: Int, trace_high: Int, span: Int, flags: Int) -> Int:
    """Span.links = 13; Link.flags = 6."""
    out[at] = 0x6A
    out[at + 1] = LINK_BYTES - 2
    at = _put_ids(out, at + 2, trace_low, trace_high, span)
    out[at] = 0x35
    store(out, at + 1, uint32(flags))
    return at + 5


@inline
def _put_state(out: Array, at: Int, record: Any) -> Int:
    """Span.trace_state = 3; what W3C's header cannot hold is left out as a whole."""
    length = min(int64(record.state_bytes), TEXT_BYTES)
    if length > 0 and is_printable(record.text, 0, length):
        at = put_bytes(out, at, 0x1A, record.text, 0, length)
    return at


@inline
def _put_times(out: Array, at: Int, start: Int, end: Int) -> Int:
    """Span.start_time_unix_nano = 7, end_time_unix_nano = 8."""
    out[at] = 0x39
    store(out, at + 1, start)
    out[at + 9] = 0x41
    store(out, at + 10, end)
    return at + 18


@inline
def _put_flags(out: Array, at: Int, flags: Int) -> Int:
    """Span.flags = 16."""
    out[at] = 0x85
    out[at + 1] = 0x01
    store(out, at + 2, uint32(flags))
    return at + 6


@inline
def _put_piece(out: Array, at: Int, arena: Array, starts: Array, template: Int, piece: Int) -> Int:
    start = starts[template, piece]
    length = starts[template, piece + 1] - start
    copy(out, at, arena, start, length)
    return at + length


@kernel(int64(BYTES, int64, ONE_RECORD, BYTES, NUMBERS), nogil=True)
def _put_extras(out: Array, at: Int, record: Any, keys: Array, key_starts: Array) -> Int:
    """(number u8, length u8, utf-8)*; of several with one number the first counts."""
    start = min(int64(record.state_bytes), TEXT_BYTES)
    end = min(start + int64(record.extra_bytes), TEXT_BYTES)
    entry = start
    while entry + 2 <= end:
        number = record.text[entry]
        length = min(int64(record.text[entry + 1]), end - entry - 2)
        earlier = start
        while earlier < entry and record.text[earlier] != number:
            earlier += 2 + int64(record.text[earlier + 1])
        if earlier == entry and FIRST_EXTRA + int64(number) < len(key_starts) - 1:
            valid = utf8_length(record.text, entry + 2, length)
            if valid > 0:
                at = put_text(out, at, keys, key_starts, FIRST_EXTRA + int64(number), record.text, entry + 2, valid)
        entry += 2 + length
    return at


@inline
def _set_run_values(values: Array, record: Any) -> None:
    """What a run's span and those of its requests have in common."""
    values[RUN_ROWS] = record.run_rows
    values[RUN_REQUESTS] = record.run_requests
    if record.gathered_ns != 0:
        values[INPUT] = _elapsed(record.gathered_ns, record.started_ns)
    if record.ran_ns != 0:
        values[RUN] = _elapsed(record.ran_ns, record.gathered_ns)


@kernel(int64(BYTES, int64, BYTES, NUMBERS, _VALUES), nogil=True)
def _put_values(out: Array, at: Int, keys: Array, key_starts: Array, values: Array) -> Int:
    """The attributes that are not ABSENT; leaves them so."""
    for key in range(PEER_PORT, FIRST_EXTRA):
        value = values[key]
        if value != uint64(ABSENT):
            values[key] = uint64(ABSENT)
            if key < DECODE:
                at = put_int(out, at, keys, key_starts, key, value)
            else:
                at = put_double(out, at, keys, key_starts, key, float64(value) / 1e9)
    return at


@inline
def _put_request(
    out: Array,
    at: Int,
    record: Any,
    template: Int,
    arena: Array,
    starts: Array,
    keys: Array,
    key_starts: Array,
    scratch: Array,
    values: Array,
    linked: bool,
) -> Int:
    """A request's span, as ScopeSpans.spans = 2. `linked`: its run has a trace of its own."""
    begin = at
    at += 3
    trace_low, trace_high = load64(record.trace_id, 0), load64(record.trace_id, 8)
    at = _put_ids(out, at, trace_low, trace_high, load64(record.span_id, 0))
    at = _put_state(out, at, record)
    parent = load64(record.parent_id, 0)
    if parent != 0:
        out[at] = 0x22
        out[at + 1] = 8
        store(out, at + 2, parent)
        at += 10
    at = _put_piece(out, at, arena, starts, template, 0)
    at = _put_times(out, at, record.received_unix_ns, record.received_unix_ns + record.replied_ns)
    at = _put_piece(out, at, arena, starts, template, 1)
    if record.peer_family == IPV4 or record.peer_family == IPV6:  # noqa: PLR1714
        length = address_text(record.peer_address, record.peer_family == IPV6, scratch)
        at = put_text(out, at, keys, key_starts, PEER_ADDRESS, scratch, 0, length)
        if record.peer_port != 0:
            values[PEER_PORT] = record.peer_port
    length = utf8_length(record.request_id, 0, min(int64(record.request_id_bytes), REQUEST_ID_BYTES))
    if length > 0:
        at = put_text(out, at, keys, key_starts, REQUEST_ID, record.request_id, 0, length)
    run = load64(record.run_id, 0)
    if run != 0 or record.rows != 0:
        values[ROWS] = record.rows
    values[SIZE_IN] = record.bytes_in
    if record.code == 0 or record.bytes_out != 0:
        values[SIZE_OUT] = record.bytes_out
    if record.decoded_ns != 0:
        values[DECODE] = record.decoded_ns
    if run != 0:
        _set_run_values(values, record)
        if record.started_ns != 0:
            values[QUEUE] = _elapsed(record.started_ns, record.decoded_ns)
        if record.ran_ns != 0:
            values[OUTPUT] = _elapsed(record.replied_ns, record.ran_ns)
    at = _put_values(out, at, keys, key_starts, values)
    at = _put_extras(out, at, record, keys, key_starts)
    if linked:
        at = _put_link(out, at, run, _mix(run), run, SAMPLED | HAS_IS_REMOTE)
    at = _put_piece(out, at, arena, starts, template, 2)
    remote = IS_REMOTE if record.marks & PARENT else 0
    at = _put_flags(out, at, int64(record.trace_flags) | HAS_IS_REMOTE | remote)
    return close(out, begin, at)


@inline
def _put_run(
    out: Array,
    at: Int,
    record: Any,
    template: Int,
    arena: Array,
    starts: Array,
    keys: Array,
    key_starts: Array,
    head: Array,
    values: Array,
) -> Int:
    """A run's span up to its links; `record`: the first of the run's that are sampled."""
    at += 3
    run = load64(record.run_id, 0)
    if record.run_requests > 1:
        at = _put_ids(out, at, run, _mix(run), run)
    else:
        at = _put_ids(out, at, load64(record.trace_id, 0), load64(record.trace_id, 8), run)
        at = _put_state(out, at, record)
        out[at] = 0x22
        out[at + 1] = 8
        store(out, at + 2, load64(record.span_id, 0))
        at += 10
    copy(out, at, head, 0, len(head))
    at += len(head)
    end = record.ran_ns if record.ran_ns != 0 else record.replied_ns
    end = max(end, record.started_ns)
    at = _put_times(out, at, record.received_unix_ns + record.started_ns, record.received_unix_ns + end)
    at = _put_piece(out, at, arena, starts, template, 3)
    _set_run_values(values, record)
    return _put_values(out, at, keys, key_starts, values)


@inline
def _put_links(
    out: Array, at: Int, first: Array, second: Array, chosen: Array, leader: Int, sampled: Int, link_limit: Int
) -> Int:
    """To the spans of the run's requests that are sampled; Span.dropped_links_count = 14."""
    links = min(sampled, link_limit)
    left = links
    i = leader
    while left > 0:
        if chosen[i] >= 0:
            record = record_at(first, second, i)
            low, high = load64(record.trace_id, 0), load64(record.trace_id, 8)
            flags = int64(record.trace_flags) | HAS_IS_REMOTE
            at = _put_link(out, at, low, high, load64(record.span_id, 0), flags)
            left -= 1
        i += 1
    if sampled > links:
        out[at] = 0x70
        at = put_varint(out, at + 1, uint64(sampled - links))
    return at


@kernel(
    int64(
        RECORDS, RECORDS, CHOSEN, BYTES, _STARTS, BYTES, NUMBERS, BYTES, BYTES, _VALUES, BYTES, int64, int64, int64,
        NUMBERS,
    ),
    nogil=True,
)  # fmt: skip
def encode(
    first: Array,
    second: Array,
    chosen: Array,
    arena: Array,
    starts: Array,
    keys: Array,
    key_starts: Array,
    run_head: Array,
    scratch: Array,
    values: Array,
    out: Array,
    base: Int,
    limit: Int,
    link_limit: Int,
    state: Array,
) -> Int:
    """Writes spans at out[base:], from where `state` says on, up to `limit`; returns where they end.

    first, second: the records, of which each run is whole; chosen[i]: record i's template, or NO_TEMPLATE. arena,
    starts: the templates'; keys, key_starts: those of key_pieces. scratch: uint8[64]. values: uint64[FIRST_EXTRA], all
    ABSENT. state: int64[STATE_WORDS]: NEXT, where the run that comes next begins, and WITHIN, with which of its records
    to go on (its end: with its span); both written back, with the number of REQUESTS and RUNS of this call.

    A run that does not fit is left to the next call, unless it is the first: then as much of it as fits is written.
    """
    count = len(first) + len(second)
    at = base
    requests = 0
    runs = 0
    start = state[NEXT]
    i = state[WITHIN]
    while start < count:
        run = load64(record_at(first, second, start).run_id, 0)
        sampled = 0
        leader = start
        end = start
        while end < count and (end == start or (run != 0 and load64(record_at(first, second, end).run_id, 0) == run)):
            if chosen[end] >= 0:
                leader = end if sampled == 0 else leader
                sampled += 1
            end += 1
        lead = record_at(first, second, leader)
        linked = run != 0 and lead.run_requests > 1
        last = end if sampled == 0 or run == 0 else end + 1  # past the run's span, where it has one
        run_at = at
        run_requests = requests
        while i < last:
            span_at = at
            if i == end:
                at = _put_run(out, at, lead, chosen[leader], arena, starts, keys, key_starts, run_head, values)
                if linked:
                    at = _put_links(out, at, first, second, chosen, leader, sampled, link_limit)
                    at = _put_flags(out, at, SAMPLED | HAS_IS_REMOTE)
                else:
                    at = _put_flags(out, at, int64(lead.trace_flags) | HAS_IS_REMOTE)
                at = close(out, span_at, at)
                runs += 1
            elif chosen[i] >= 0:
                record = record_at(first, second, i)
                at = _put_request(out, at, record, chosen[i], arena, starts, keys, key_starts, scratch, values, linked)
                requests += 1
            if at > limit:
                break
            i += 1
        if i < last:
            if i == end:
                runs -= 1
            else:
                requests -= 1
            at = span_at
            if run_at > base:
                at = run_at
                requests = run_requests
                i = start
            break
        start = end
        i = end
    state[NEXT] = start
    state[WITHIN] = i
    state[REQUESTS] = requests
    state[RUNS] = runs
    return at
