"""HPACK as the generator speaks and reads it, held against the `hpack` library."""

import hpack
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bench.generator.buffers import Memory, make_state
from bench.generator.hpack import MOST_ENTRIES, STATIC_NAMES, TABLE_BYTES, request_blocks
from bench.generator.hpack_kernels import NO_STATUS, UNREADABLE, read_status
from bench.generator.layout import State
from bench.sample import Load

PATH = "/inference.GRPCInferenceService/ModelInfer"
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80)
NAME = st.one_of(
    st.sampled_from(["grpc-status", "grpc-statu", "grpc-statuses", "grpc-message", "x", *STATIC_NAMES[14:]]),
    st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz-0123456789"), min_size=1, max_size=60),
)
FIELD = st.one_of(st.tuples(st.just("grpc-status"), st.integers(0, 16).map(str)), st.tuples(NAME, TEXT))
MEMORY = Memory.empty()


def reader() -> State:
    state = make_state(Load(1, 1), (b"",), (b"",) * 4, MEMORY)
    state.connection[0]["table_most"] = TABLE_BYTES
    return state


def status_of(state: State, block: bytes) -> int:
    # What follows a block in memory is none of it.
    padded = np.frombuffer(bytearray(block + b"\xff" * 8), np.uint8)
    return int(read_status(state, 0, padded, 0, len(block)))


def expected(fields: list[tuple[str, str]]) -> int:
    values = [value for name, value in fields if name == "grpc-status"]
    if not values:
        return NO_STATUS
    return int(values[-1]) if values[-1].isascii() and values[-1].isdigit() and len(values[-1]) < 10 else 2


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(FIELD, st.booleans()), max_size=12),
            st.booleans(),
            st.one_of(st.none(), st.integers(0, TABLE_BYTES)),
        ),
        max_size=12,
    )
)
def test_the_status_is_known_whatever_the_peer_indexes(blocks) -> None:
    """Literal or indexed, Huffman or not, fields that are never to be indexed, tables that shrink and grow."""
    encoder, state = hpack.Encoder(), reader()
    for fields, huffman, table_bytes in blocks:
        if table_bytes is not None:
            encoder.header_table_size = table_bytes
        given_fields = [
            hpack.NeverIndexedHeaderTuple(*field) if secret else hpack.HeaderTuple(*field) for field, secret in fields
        ]
        block = encoder.encode(given_fields, huffman=huffman)

        assert status_of(state, block) == expected([field for field, _ in fields])

        connection = state.connection[0]
        assert connection["table_entries"] == len(encoder.header_table.dynamic_entries)
        assert connection["table_bytes"] == encoder.header_table._current_size


def test_a_long_life_of_one_table_is_followed() -> None:
    encoder, state = hpack.Encoder(), reader()
    for number in range(5 * MOST_ENTRIES):
        fields = [(":status", "200"), ("x-request", f"{number}"), ("grpc-status", str(number % 17))]

        assert status_of(state, encoder.encode(fields)) == number % 17


@given(st.binary(max_size=60))
def test_bytes_at_random_are_read_or_refused_but_never_beyond_their_end(block: bytes) -> None:
    decoder = hpack.Decoder()
    try:
        fields = decoder.decode(block, raw=True)
    except hpack.HPACKError:
        fields = None

    status = status_of(reader(), block)

    if fields is not None:
        assert status == expected([(name.decode("latin1"), value.decode("latin1")) for name, value in fields])


def test_an_index_beyond_the_table_is_refused() -> None:
    assert status_of(reader(), b"\xbe") == UNREADABLE
    assert status_of(reader(), b"\x80") == UNREADABLE


def test_a_text_beyond_the_block_is_refused() -> None:
    assert status_of(reader(), b"\x40\x0bgrpc-status\x020") == UNREADABLE


def test_requests_say_the_same_in_all_their_forms() -> None:
    headers = [("traceparent", "00-1-2-03"), ("x-user", "a" * 200), ("accept", "y")]
    first, later, first_plain, plain = request_blocks("127.0.0.1:1", PATH, headers)
    decoder = hpack.Decoder()

    said = decoder.decode(first)

    assert said[:4] == [(":method", "POST"), (":scheme", "http"), (":path", PATH), (":authority", "127.0.0.1:1")]
    assert said[-3:] == headers
    assert {("content-type", "application/grpc"), ("te", "trailers")} <= set(said)
    for _ in range(3):
        assert decoder.decode(later) == said
    assert len(later) == len(said)
    assert hpack.Decoder().decode(first_plain) == said
    tableless = hpack.Decoder()
    tableless.max_allowed_table_size = 0
    assert tableless.decode(first_plain) == tableless.decode(plain) == said


def test_requests_too_long_for_a_table_do_without() -> None:
    first, later, *_ = request_blocks("a", PATH, [("x-long", "b" * 5000)])
    decoder = hpack.Decoder()

    assert decoder.decode(first) == decoder.decode(later)
    assert not decoder.header_table.dynamic_entries
