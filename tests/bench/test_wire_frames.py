"""Frames taken apart: whatever the pieces in which they come, the same requests get the same answers."""

import struct
from itertools import pairwise

import hpack
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from bench.generator import http2
from bench.generator.answer_kernels import observe, xxh64
from bench.generator.buffers import Memory, begin_connection, make_state
from bench.generator.histogram import quantile_ms
from bench.generator.http2 import frame
from bench.generator.layout import BUCKETS, DEAD, INBOX_BYTES, RUNNING, STATUSES, State
from bench.generator.receive_kernels import parse
from bench.generator.send_kernels import issue
from bench.sample import Load

REQUESTS = 4
NOW_NS = 5_000
MEMORY = Memory.empty()


def waiting() -> State:
    """A connection with requests in flight on the streams 1, 3, 5, 7; no socket: what comes is put into its inbox."""
    MEMORY.answers = 0
    MEMORY.answer_at[:] = 0
    state = make_state(Load(1, REQUESTS), (b"\0\0\0\0\0",), (b"",) * 4, MEMORY)
    begin_connection(state, 0, 0)
    state.run[0]["phase"] = RUNNING
    state.run[0]["end_ns"] = NOW_NS
    for _ in range(REQUESTS):
        assert issue(state, 0, 1_000)
    return state


def come(state: State, data: bytes) -> None:
    connection = state.connection[0]
    fill = int(connection["in_fill"])
    assert fill + len(data) < INBOX_BYTES
    state.inbox[fill : fill + len(data)] = np.frombuffer(data, np.uint8)
    connection["in_fill"] = fill + len(data)
    assert parse(state, 0, NOW_NS) == 0


def statuses(state: State) -> dict[int, int]:
    return {place - 1: int(state.statuses[place]) for place in range(STATUSES) if state.statuses[place]}


@st.composite
def replies(draw) -> tuple[bytes, dict[int, int], int]:
    """Frames that answer all requests somehow; what is to be counted of them; and bytes of whole good replies."""
    encoder = hpack.Encoder()
    counted: dict[int, int] = {}
    size = 0
    frames = frame(http2.SETTINGS, 0, 0, b"")
    for stream in draw(st.permutations(range(1, 2 * REQUESTS, 2))):
        message = draw(st.binary(max_size=300))
        status = draw(st.sampled_from([0, 0, 0, 14, None]))
        ending = draw(st.sampled_from(["trailers", "trailers", "reset"]))
        head = encoder.encode([(":status", "200"), ("x", draw(st.text("ab", max_size=40)))])
        frames += headers(draw, stream, head, 0)
        data = struct.pack(">BI", 0, len(message)) + message
        cut = draw(st.integers(0, len(data)))
        for piece in (data[:cut], data[cut:]):
            frames += body(draw, stream, piece)
            frames += frame(http2.PING, 0, 0, b"12345678") if draw(st.booleans()) else b""
            frames += frame(77, 0xFF, stream, b"unknown") if draw(st.booleans()) else b""
        if ending == "reset":
            frames += frame(http2.RST_STREAM, 0, stream, struct.pack(">I", 2))
            status = None
        else:
            fields = [("grpc-status", str(status))] if status is not None else []
            frames += headers(draw, stream, encoder.encode([*fields, ("y", "z")]), http2.END_STREAM)
        key = -1 if status is None else status
        counted[key] = counted.get(key, 0) + 1
        size += len(data) if status == 0 else 0
    return frames, counted, size


def headers(draw, stream: int, block: bytes, flags: int) -> bytes:
    """In one frame or in several, padded or not, with a priority or not."""
    cut = draw(st.integers(0, len(block)))
    whole = cut == len(block)
    first = block[:cut]
    if draw(st.booleans()):
        first, flags = b"\0\0\0\0\x10" + first, flags | http2.PRIORITY
    if draw(st.booleans()):
        padding = draw(st.integers(0, 20))
        first, flags = bytes([padding]) + first + b"\0" * padding, flags | http2.PADDED
    if whole:
        return frame(http2.HEADERS, flags | http2.END_HEADERS, stream, first)
    return frame(http2.HEADERS, flags, stream, first) + frame(
        http2.CONTINUATION, http2.END_HEADERS, stream, block[cut:]
    )


def body(draw, stream: int, data: bytes) -> bytes:
    padding = draw(st.integers(0, 20))
    if draw(st.booleans()):
        return frame(http2.DATA, http2.PADDED, stream, bytes([padding]) + data + b"\0" * padding)
    return frame(http2.DATA, 0, stream, data)


@given(replies(), st.lists(st.integers(0, 3000), max_size=30))
def test_replies_cut_anywhere_are_counted_alike(sent, cuts) -> None:
    data, counted, size = sent
    state = waiting()
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        come(state, data[start:end])

    run = state.run[0]
    assert statuses(state) == counted
    assert run["answered"] == counted.get(0, 0)
    assert run["failed"] == REQUESTS - counted.get(0, 0)
    assert run["reply_bytes"] == size
    assert run["in_flight"] == state.connection[0]["active"] == 0
    assert state.connection[0]["free"] == REQUESTS
    assert not state.of_stream.any()


@given(replies())
def test_replies_byte_by_byte_are_counted_alike(sent) -> None:
    data, counted, _ = sent
    state = waiting()
    for at in range(len(data)):
        come(state, data[at : at + 1])

    assert statuses(state) == counted


@given(st.binary(max_size=400))
def test_bytes_at_random_end_the_connection_or_wait_for_more_but_lose_no_request(data: bytes) -> None:
    state = waiting()
    come(state, data)

    run = state.run[0]
    assert run["in_flight"] + run["failed"] + run["answered"] == REQUESTS
    if state.connection[0]["state"] == DEAD:
        assert statuses(state).get(-1) == REQUESTS


@pytest.mark.parametrize(
    "data",
    [
        frame(http2.DATA, 0, 1, b"x" * 16_384)[:3].replace(b"\x00\x40\x00", b"\x00\x40\x01") + b"\0" * 6,
        frame(http2.HEADERS, http2.END_HEADERS, 1, b"\xbe"),
        frame(http2.CONTINUATION, http2.END_HEADERS, 1, b""),
        frame(http2.HEADERS, 0, 1, b"\x88") + frame(http2.PING, 0, 0, b"12345678"),
        frame(http2.DATA, http2.PADDED, 1, b"\x05ab"),
    ],
    ids=["too long", "unreadable headers", "nothing to continue", "headers interrupted", "more padding than frame"],
)
def test_what_http2_forbids_ends_the_connection_and_fails_what_is_in_flight(data: bytes) -> None:
    state = waiting()
    come(state, data)

    assert state.connection[0]["state"] == DEAD
    assert statuses(state) == {-1: REQUESTS}
    assert state.run[0]["in_flight"] == 0


@given(st.binary(max_size=300), st.integers(0, 2**64 - 1), st.integers(0, 7))
def test_the_hash_is_xxh64(data: bytes, seed: int, at: int) -> None:
    array = np.frombuffer(bytearray(b"\xaa" * at + data + b"\xbb"), np.uint8)

    assert int(xxh64(array, at, len(data), np.uint64(seed))) == xxhash.xxh64_intdigest(data, seed)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=50), st.sampled_from([0.001, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_that_of_the_values_within_a_twentieth_of_a_percent(values, share) -> None:
    counts = np.zeros(BUCKETS, np.int64)
    for value in values:
        observe(counts, value)

    exact = sorted(values)[max(int(np.ceil(share * len(values))), 1) - 1]
    assert quantile_ms(counts, share) == pytest.approx(exact / 1e6, rel=0.0005, abs=1e-9)
