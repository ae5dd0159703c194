"""A burst's State: every array that its kernels use, of the sizes that its load asks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.generator.hpack import MOST_ENTRIES, TABLE_BYTES, huffman_tree, static_name_lengths
from bench.generator.http2 import DEFAULT_FRAME_BYTES, DEFAULT_WINDOW_BYTES, LAST_STREAM, opening
from bench.generator.layout import (
    ANSWER,
    ANSWER_PLACES,
    ASIDE_BYTES,
    BUCKETS,
    CONNECTION,
    EVENT_BYTES,
    EVENTS,
    FILES,
    HEADER_BYTES,
    INBOX_BYTES,
    MOST_ANSWERS,
    OPENING,
    OUTBOX_BYTES,
    RUN,
    SLOT,
    STATUSES,
    TABLE_ENTRY,
    TEXT_BYTES,
    Array,
    State,
    reserved,
    ring_size,
)
from bench.sample import Load

FIRST_PLACE_BYTES = 64 * 1024
"""Of a reply that comes in several frames, until there is a longer one."""


@dataclass(slots=True)
class Memory:
    """What a generator keeps from burst to burst: which replies it knows, and how long they get.

    answer: ANSWER[MOST_ANSWERS], of which `answers` are known; answer_at: int32[ANSWER_PLACES]; aside: uint8[].
    """

    answer: Array
    answer_at: Array
    aside: Array
    answers: int = 0
    place_bytes: int = FIRST_PLACE_BYTES

    @classmethod
    def empty(cls) -> Memory:
        return cls(np.zeros(MOST_ANSWERS, ANSWER), np.zeros(ANSWER_PLACES, np.int32), reserved(ASIDE_BYTES))


def _joined(parts: tuple[bytes, ...]) -> tuple[Array, Array]:
    """uint8[] of all, and int64[parts + 1], where each begins."""
    starts = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=starts[1:])
    return np.frombuffer(bytearray(b"".join(parts)), np.uint8), starts


def make_state(load: Load, messages: tuple[bytes, ...], headers: tuple[bytes, ...], memory: Memory) -> State:
    """No connection has a socket yet; messages have their prefixes."""
    slots = load.connections * load.streams
    pool, pool_at = _joined(messages)
    blocks, block_at = _joined(headers)
    memory.answer["count"] = 0
    state = State(
        run=np.zeros(1, RUN),
        connection=np.zeros(load.connections, CONNECTION),
        slot=np.zeros(slots, SLOT),
        of_stream=np.zeros(load.connections * ring_size(load.streams), np.int32),
        free=np.zeros(slots, np.int32),
        pend=np.zeros(slots, np.int32),
        dirty=np.zeros(load.connections, np.int32),
        inbox=reserved(load.connections * INBOX_BYTES),
        outbox=reserved(load.connections * OUTBOX_BYTES),
        block=reserved(load.connections * HEADER_BYTES),
        table=np.zeros(load.connections * MOST_ENTRIES, TABLE_ENTRY),
        assembly=reserved(slots * memory.place_bytes),
        messages=pool,
        message_at=pool_at,
        headers=blocks,
        header_at=block_at,
        answer=memory.answer,
        answer_at=memory.answer_at,
        aside=memory.aside,
        latency=np.zeros(BUCKETS, np.int64),
        lateness=np.zeros(BUCKETS, np.int64),
        statuses=np.zeros(STATUSES, np.int64),
        owner=np.zeros(FILES, np.int32),
        events=np.zeros(EVENTS * EVENT_BYTES, np.uint8),
        pause=np.zeros(2, np.int64),
        tree=huffman_tree(),
        static=static_name_lengths(),
        text=np.zeros(TEXT_BYTES, np.uint8),
    )
    run = state.run[0]
    run["connections"], run["streams"], run["streaming"] = load.connections, load.streams, load.streaming
    run["pool"] = len(messages)
    run["place_bytes"], run["aside_bytes"] = memory.place_bytes, len(memory.aside)
    run["answers"] = run["judged"] = memory.answers
    state.connection["fd"] = -1
    return state


def begin_connection(state: State, c: int, fd: int) -> None:
    """Connection c starts anew on a socket, with what a client says first in its outbox."""
    streams = int(state.run[0]["streams"])
    connection = state.connection[c]
    was_dirty = int(connection["dirty"])
    state.connection[c] = 0
    connection["fd"], connection["state"] = fd, OPENING
    connection["next_id"] = 1
    connection["window"] = connection["peer_window"] = DEFAULT_WINDOW_BYTES
    connection["peer_frame"], connection["peer_streams"] = DEFAULT_FRAME_BYTES, LAST_STREAM
    connection["table_most"] = TABLE_BYTES
    connection["free"] = streams
    state.free[c * streams : (c + 1) * streams] = range(c * streams, (c + 1) * streams)
    words = np.frombuffer(opening(), np.uint8)
    state.outbox[c * OUTBOX_BYTES : c * OUTBOX_BYTES + len(words)] = words
    connection["out_fill"] = len(words)
    connection["dirty"] = 1
    if not was_dirty:
        state.dirty[state.run[0]["dirty"]] = c
        state.run[0]["dirty"] += 1
    state.owner[fd] = c


def with_longer_places(state: State, place_bytes: int) -> State:
    """The same with more room for each slot's reply; what is there of replies comes with them."""
    before = int(state.run[0]["place_bytes"])
    assembly = reserved(len(state.slot) * place_bytes)
    for s in np.flatnonzero(state.slot["fill"]):
        size = int(state.slot[s]["fill"])
        assembly[s * place_bytes : s * place_bytes + size] = state.assembly[s * before : s * before + size]
    state.run[0]["place_bytes"] = place_bytes
    return state._replace(assembly=assembly)
