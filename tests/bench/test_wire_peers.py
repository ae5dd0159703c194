"""The generator against peers that do what HTTP/2 allows, or do not: what it counts, and how it treats them."""

import socket
import struct
from itertools import count

import pytest
from support.http2_peer import Call, Http2Peer, prefixed

from bench.generator import WireGenerator, http2
from bench.generator.http2 import frame
from bench.sample import Load, LoadFailed

REQUESTS = tuple(f"request {number}".encode() * (number + 1) for number in range(7))
SECONDS = 0.15
LOAD = Load(connections=2, streams=4)
END_HEADERS, END_STREAM = http2.END_HEADERS, http2.END_STREAM


def echoed(index: int, reply: bytes) -> str | None:
    return None if reply == REQUESTS[index] else f"request {index} got {reply[:20]!r}"


@pytest.fixture
def generator() -> WireGenerator:
    return WireGenerator(REQUESTS, echoed, grace_seconds=20)


def echo(call: Call) -> bytes:
    return call.reply(call.message)


@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 20])
def test_every_request_is_sent_and_every_reply_is_counted(generator: WireGenerator, piece_bytes: int) -> None:
    with Http2Peer(echo, piece_bytes=piece_bytes) as peer:
        burst = generator(peer.port, LOAD, SECONDS)

    assert burst.requests == burst.offered == peer.seen.calls > 0
    assert burst.failed == 0
    assert burst.statuses == {0: burst.requests}
    assert burst.distinct_replies == len(REQUESTS)
    assert burst.notes == ()
    assert peer.seen.broken == []
    assert (peer.seen.connections, peer.seen.goaways) == (2, 2)
    assert peer.seen.most_open <= LOAD.streams


def test_requests_are_sent_in_turn() -> None:
    got = []
    generator = WireGenerator(REQUESTS, echoed)
    with Http2Peer(lambda call: got.append(call.message) or echo(call)) as peer:
        generator(peer.port, Load(1, 1), SECONDS)

    assert got == [REQUESTS[number % len(REQUESTS)] for number in range(len(got))]


def test_metadata_goes_with_every_request() -> None:
    heads = []
    generator = WireGenerator(REQUESTS, echoed, "/some.Service/Do", (("x-user-id", "someone"),))
    with Http2Peer(lambda call: heads.append(dict(call.headers)) or echo(call)) as peer:
        generator(peer.port, Load(1, 2), SECONDS)

    assert {(head[":path"], head["x-user-id"], head["te"]) for head in heads} == {
        ("/some.Service/Do", "someone", "trailers")
    }


def test_a_reset_stream_fails_its_request_alone(generator: WireGenerator) -> None:
    numbers = count(1)

    def answer(call: Call) -> bytes:
        if next(numbers) % 3:
            return echo(call)
        return frame(http2.RST_STREAM, 0, call.stream, struct.pack(">I", 2))

    with Http2Peer(answer) as peer:
        burst = generator(peer.port, LOAD, SECONDS)

    assert burst.failed == peer.seen.calls // 3
    assert burst.statuses == {0: burst.requests, -1: burst.failed}
    assert burst.requests + burst.failed == burst.offered == peer.seen.calls


def in_pieces(call: Call) -> bytes:
    """Padded, in several frames of every kind, with fields that no table keeps."""
    data = prefixed(call.message)
    head, trailers = call.head(("x", "y" * 40)), call.trailers(0, ("grpc-message", "fine"), ("z", str(call.number)))
    return (
        frame(http2.HEADERS, 0, call.stream, head[:3])
        + frame(http2.CONTINUATION, 0, call.stream, head[3:9])
        + frame(http2.CONTINUATION, END_HEADERS, call.stream, head[9:])
        + frame(http2.PING, 0, 0, b"bdp-ping")
        + frame(http2.DATA, 0, call.stream, data[:2])
        + frame(http2.DATA, http2.PADDED, call.stream, b"\x03" + data[2:9] + b"\0\0\0")
        + frame(http2.DATA, 0, call.stream, b"")
        + frame(http2.DATA, 0, call.stream, data[9:])
        + frame(http2.HEADERS, END_HEADERS | END_STREAM, call.stream, trailers)
        + frame(http2.RST_STREAM, 0, call.stream, struct.pack(">I", 0))
    )


@pytest.mark.parametrize("piece_bytes", [1, 11, 1 << 20])
def test_replies_in_pieces_are_whole(generator: WireGenerator, piece_bytes: int) -> None:
    with Http2Peer(in_pieces, piece_bytes=piece_bytes) as peer:
        burst = generator(peer.port, LOAD, SECONDS)

    assert burst.requests == burst.offered == peer.seen.calls > 0
    assert (burst.failed, burst.distinct_replies) == (0, len(REQUESTS))


def test_pings_are_answered(generator: WireGenerator) -> None:
    with Http2Peer(echo, preamble=frame(http2.PING, 0, 0, b"are you?")) as peer:
        generator(peer.port, LOAD, SECONDS)

    assert peer.seen.pings == [b"are you?"] * LOAD.connections


@pytest.mark.parametrize(
    "wrong",
    [
        lambda call: frame(http2.HEADERS, END_HEADERS, call.stream, call.head()),
        lambda call: (
            frame(http2.HEADERS, END_HEADERS, call.stream, call.head())
            + frame(http2.DATA, 0, call.stream, prefixed(call.message) * 2)
        ),
        lambda call: (
            frame(http2.HEADERS, END_HEADERS, call.stream, call.head())
            + frame(http2.DATA, 0, call.stream, b"\x01" + prefixed(call.message)[1:])
        ),
        lambda call: (
            frame(http2.HEADERS, END_HEADERS, call.stream, call.head())
            + frame(http2.DATA, 0, call.stream, prefixed(call.message)[:-1])
        ),
    ],
    ids=["no message", "two messages", "a compressed message", "a part of a message"],
)
def test_status_0_alone_makes_no_answer(wrong, generator: WireGenerator) -> None:
    numbers = count(1)

    def answer(call: Call) -> bytes:
        if next(numbers) % 2:
            return echo(call)
        return wrong(call) + frame(http2.HEADERS, END_HEADERS | END_STREAM, call.stream, call.trailers())

    with Http2Peer(answer) as peer:
        burst = generator(peer.port, LOAD, SECONDS)

    assert burst.failed == peer.seen.calls // 2
    assert burst.requests + burst.failed == burst.offered == peer.seen.calls


def test_a_peers_limit_of_streams_holds(generator: WireGenerator) -> None:
    with Http2Peer(echo, settings={http2.MAX_CONCURRENT_STREAMS: 3}) as peer:
        burst = generator(peer.port, Load(1, 16), SECONDS)

    assert burst.requests == peer.seen.calls > 0
    assert peer.seen.most_open <= 3


def test_a_peer_without_a_table_of_headers_understands_every_request(generator: WireGenerator) -> None:
    with Http2Peer(echo, settings={http2.HEADER_TABLE_SIZE: 0}) as peer:
        burst = generator(peer.port, LOAD, SECONDS)

    assert burst.requests == burst.offered == peer.seen.calls > 0


@pytest.mark.parametrize("window_bytes", [1, 1_000, 100_000])
@pytest.mark.parametrize("frame_bytes", [16_384, 1 << 22])
def test_a_peers_windows_and_frames_hold(window_bytes: int, frame_bytes: int) -> None:
    requests = (b"x" * 100, b"y" * (50 * window_bytes if window_bytes < 1_000 else 300_000), b"z" * 70_000)
    generator = WireGenerator(requests, lambda index, reply: None if reply == requests[index] else "wrong")
    settings = {http2.INITIAL_WINDOW_SIZE: window_bytes, http2.MAX_FRAME_SIZE: frame_bytes}
    with Http2Peer(echo, settings=settings) as peer:
        burst = generator(peer.port, Load(1, 3), SECONDS)

    assert peer.seen.broken == []
    assert burst.requests == burst.offered == peer.seen.calls >= 3
    assert burst.failed == 0


def test_a_peer_that_goes_away_is_connected_to_again(generator: WireGenerator) -> None:
    """As gRPC's servers do it at a connection's greatest age: what was sent is answered, the rest goes elsewhere."""

    def answer(call: Call) -> bytes:
        if call.number != 20:
            return echo(call)
        return frame(http2.GOAWAY, 0, 0, struct.pack(">II", http2.LAST_STREAM, 0)) + echo(call)

    with Http2Peer(answer) as peer:
        burst = generator(peer.port, LOAD, SECONDS)

    assert burst.failed == 0
    assert burst.requests == burst.offered == peer.seen.calls
    assert peer.seen.connections > LOAD.connections
    assert any("GOAWAY" in note for note in burst.notes)


def test_requests_that_a_leaving_peer_did_not_look_at_fail(generator: WireGenerator) -> None:
    def answer(call: Call) -> bytes:
        if call.number != 20:
            return echo(call)
        return echo(call) + frame(http2.GOAWAY, 0, 0, struct.pack(">II", call.stream, 0))

    with Http2Peer(answer) as peer:
        burst = generator(peer.port, Load(1, 4), SECONDS)

    assert burst.requests + burst.failed == burst.offered
    assert burst.failed > 0
    assert burst.statuses[-1] == burst.failed


def test_a_closed_connection_fails_what_was_in_flight_and_another_is_opened(generator: WireGenerator) -> None:
    with Http2Peer(lambda call: None if call.number == 10 else echo(call)) as peer:
        burst = generator(peer.port, Load(1, 4), SECONDS)

    assert burst.requests + burst.failed == burst.offered
    assert 0 < burst.failed <= 4 * peer.seen.connections
    assert peer.seen.connections > 1
    assert any("closed a connection" in note or "connection failed" in note for note in burst.notes)


def test_a_request_refused_before_it_was_all_sent_is_given_up() -> None:
    """The peer takes no more of it, and is told that none will come."""
    requests = (b"x" * 300_000,)
    generator = WireGenerator(requests, lambda _index, _reply: None)
    with (
        Http2Peer(lambda call: call.refusal(8), refuse_early=True) as peer,
        pytest.raises(LoadFailed, match=r"no request was answered rightly; statuses \{8: \d+"),
    ):
        generator(peer.port, Load(1, 2), SECONDS)

    assert peer.seen.resets > 0
    assert peer.seen.broken == []


def test_what_is_never_answered_has_failed_when_the_grace_is_over() -> None:
    generator = WireGenerator(REQUESTS, echoed, grace_seconds=0.1)
    with Http2Peer(lambda call: b"" if call.number == 5 else echo(call)) as peer:
        burst = generator(peer.port, Load(2, 3), SECONDS)

    assert (burst.failed, burst.statuses[-1]) == (2, 2)
    assert burst.requests + burst.failed == burst.offered == peer.seen.calls
    assert "2 requests unanswered at the end" in burst.notes[0]


def test_a_wrong_reply_is_told_apart_from_a_right_one_as_long(generator: WireGenerator) -> None:
    numbers = count(1)

    def answer(call: Call) -> bytes:
        return call.reply(call.message if next(numbers) % 5 else bytes(reversed(call.message)))

    with Http2Peer(answer) as peer:
        burst = generator(peer.port, LOAD, SECONDS)

    assert burst.failed == peer.seen.calls // 5
    assert burst.requests + burst.failed == burst.offered == peer.seen.calls
    assert burst.statuses == {0: burst.offered}
    assert any("got b'" in note for note in burst.notes)


def test_an_objection_is_asked_for_once_for_each_distinct_reply() -> None:
    asked = []

    def objection(index: int, reply: bytes) -> None:
        asked.append((index, reply))

    generator = WireGenerator(REQUESTS, objection)
    with Http2Peer(lambda call: call.reply(call.message + bytes([call.number % 2]))) as peer:
        bursts = [generator(peer.port, LOAD, SECONDS) for _ in range(2)]

    assert len(asked) == len(set(asked)) == 2 * len(REQUESTS)
    assert [burst.distinct_replies for burst in bursts] == [2 * len(REQUESTS)] * 2


def test_arrivals_of_an_open_loop_are_those_of_its_seed(generator: WireGenerator) -> None:
    load = Load(2, 4, rate=400.0)
    with Http2Peer(echo) as peer:
        bursts = [generator(peer.port, load, 0.5) for _ in range(2)]

    assert bursts[0].offered == bursts[1].offered == bursts[0].requests == bursts[1].requests
    assert peer.seen.calls == 2 * bursts[0].offered
    assert 100 < bursts[0].offered < 300


def test_an_open_loop_does_not_wait_for_its_peer() -> None:
    """One stream, and a peer that answers nothing: every request that was due has failed, sent or not."""
    generator = WireGenerator(REQUESTS, echoed, grace_seconds=0.1)
    with Http2Peer(lambda call: echo(call) if call.number == 1 else b"") as peer:
        burst = generator(peer.port, Load(1, 1, rate=200.0), 0.3)

    assert (burst.requests, peer.seen.calls) == (1, 2)
    assert burst.offered == burst.requests + burst.failed > 10
    assert burst.statuses == {0: 1, -1: burst.failed}


def test_messages_of_a_stream_are_answered_in_order() -> None:
    generator = WireGenerator(REQUESTS, echoed)

    def answer(call: Call) -> bytes:
        head = frame(http2.HEADERS, END_HEADERS, call.stream, call.head()) if call.number == 1 else b""
        return head + frame(http2.DATA, 0, call.stream, prefixed(call.message))

    with Http2Peer(answer, each_message=True, piece_bytes=50) as peer:
        burst = generator(peer.port, Load(2, 5, streaming=True), SECONDS)

    assert burst.requests == burst.offered == peer.seen.calls > 0
    assert (burst.failed, burst.statuses) == (0, {0: burst.requests})
    assert (peer.seen.connections, peer.seen.most_open) == (2, 1)


def test_a_stream_that_ends_fails_the_messages_that_wait_and_is_opened_again() -> None:
    generator = WireGenerator(REQUESTS, echoed)

    def answer(call: Call) -> bytes:
        head = frame(http2.HEADERS, END_HEADERS, call.stream, call.head()) if call.number == 1 else b""
        if call.stream == 1 and call.number == 10:
            return frame(http2.HEADERS, END_HEADERS | END_STREAM, call.stream, call.trailers(13))
        return head + frame(http2.DATA, 0, call.stream, prefixed(call.message))

    with Http2Peer(answer, each_message=True) as peer:
        burst = generator(peer.port, Load(1, 3, streaming=True), SECONDS)

    assert 1 <= burst.failed <= 3
    assert burst.statuses == {0: burst.requests, 13: burst.failed}
    assert burst.requests + burst.failed == burst.offered


def test_where_nothing_listens_there_is_no_load(generator: WireGenerator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(LoadFailed, match=f"no connection to port {port}"):
        generator(port, LOAD, SECONDS)


def test_a_peer_that_talks_nonsense_is_no_server(generator: WireGenerator) -> None:
    nonsense = frame(http2.HEADERS, END_HEADERS, 1, b"\xff")
    with Http2Peer(echo, preamble=nonsense) as peer, pytest.raises(LoadFailed, match="headers that cannot be read"):
        generator(peer.port, LOAD, SECONDS)


def test_a_generator_without_requests_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one request"):
        WireGenerator((), echoed)
