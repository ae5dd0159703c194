"""An HTTP/2 server that does as a test tells it, frame by frame, and checks what a client may do: a real socket."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

import hpack

from bench.generator import http2
from bench.generator.http2 import frame

HOST = "127.0.0.1"
WAIT_SECONDS = 30.0


@dataclass
class Call:
    """A request that has come whole. `number` counts those of a connection; `encoder`: the connection's."""

    stream: int
    number: int
    message: bytes
    headers: list[tuple[str, str]]
    encoder: hpack.Encoder

    def head(self, *extra: tuple[str, str]) -> bytes:
        return self.encoder.encode([(":status", "200"), ("content-type", "application/grpc"), *extra])

    def trailers(self, status: int = 0, *extra: tuple[str, str]) -> bytes:
        return self.encoder.encode([("grpc-status", str(status)), *extra])

    def reply(self, message: bytes, status: int = 0) -> bytes:
        """An ordinary answer."""
        return (
            frame(http2.HEADERS, http2.END_HEADERS, self.stream, self.head())
            + b"".join(frame(http2.DATA, 0, self.stream, piece) for piece in pieces(prefixed(message), 16_384))
            + frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, self.stream, self.trailers(status))
        )

    def refusal(self, status: int) -> bytes:
        """Trailers alone."""
        fields = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", str(status))]
        flags = http2.END_HEADERS | http2.END_STREAM
        return frame(http2.HEADERS, flags, self.stream, self.encoder.encode(fields))


def prefixed(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


Answer = Callable[[Call], bytes | None]
"""None: close the connection."""


@dataclass
class Seen:
    """Of all connections."""

    connections: int = 0
    calls: int = 0
    resets: int = 0
    pings: list[bytes] = field(default_factory=list)
    most_open: int = 0
    goaways: int = 0
    broken: list[str] = field(default_factory=list)


class Http2Peer:
    """Use as a context; `port` is its own. Each call is answered with the frames that `answer` gives for it.

    `settings`: by number; `piece_bytes`: how much is written to the socket at once; `preamble`: frames after the
    settings. `refuse_early`: calls are answered when their headers have come. `each_message`: a stream's messages are
    calls of their own.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        settings: dict[int, int] | None = None,
        piece_bytes: int = 1 << 20,
        preamble: bytes = b"",
        refuse_early: bool = False,
        each_message: bool = False,
    ) -> None:
        self.answer = answer
        self.settings = settings or {}
        self.piece_bytes = piece_bytes
        self.preamble = preamble
        self.refuse_early = refuse_early
        self.each_message = each_message
        self.seen = Seen()
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._links: list[socket.socket] = []
        self._acceptor = threading.Thread(target=self._accept)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(WAIT_SECONDS)
        for link in self._links:
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(WAIT_SECONDS)
        for link in self._links:
            link.close()
        assert not any(thread.is_alive() for thread in (self._acceptor, *self._threads))

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._links.append(link)
                self.seen.connections += 1
                thread = threading.Thread(target=self._serve, args=(link,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, link: socket.socket) -> None:
        with suppress(OSError, EOFError):
            _Session(self, link).run()
        with suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)


class _Session:
    """One connection. The client's windows are given back at once, and held against what it sends."""

    def __init__(self, peer: Http2Peer, link: socket.socket) -> None:
        self.peer = peer
        self.link = link
        self.file = link.makefile("rb")
        table_bytes = peer.settings.get(http2.HEADER_TABLE_SIZE, 4096)
        self.decoder = hpack.Decoder()
        self.decoder.max_allowed_table_size = table_bytes
        self.encoder = hpack.Encoder()
        self.open: dict[int, Call] = {}
        self.half_closed: set[int] = set()
        self.number = 0
        self.stream_window = peer.settings.get(http2.INITIAL_WINDOW_SIZE, http2.DEFAULT_WINDOW_BYTES)
        self.frame_bytes = peer.settings.get(http2.MAX_FRAME_SIZE, http2.DEFAULT_FRAME_BYTES)
        self.windows: dict[int, int] = {0: http2.DEFAULT_WINDOW_BYTES}

    def run(self) -> None:
        with self.file:
            assert self.read(len(http2.PREFACE)) == http2.PREFACE
            values = b"".join(struct.pack(">HI", number, value) for number, value in self.peer.settings.items())
            self.link.sendall(frame(http2.SETTINGS, 0, 0, values) + self.peer.preamble)
            while True:
                head = self.read(http2.FRAME_HEADER_BYTES)
                length = int.from_bytes(head[:3], "big")
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                if not self.take(kind, flags, stream, self.read(length)):
                    return

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def write(self, data: bytes) -> None:
        for piece in pieces(data, self.peer.piece_bytes):
            self.link.sendall(piece)

    def take(self, kind: int, flags: int, stream: int, payload: bytes) -> bool:
        """False: the connection is to be closed."""
        seen = self.peer.seen
        if kind == http2.SETTINGS and not flags & http2.ACK:
            self.link.sendall(frame(http2.SETTINGS, http2.ACK, 0, b""))
        elif kind == http2.PING:
            seen.pings.append(payload)
        elif kind == http2.RST_STREAM:
            seen.resets += 1
            self.open.pop(stream, None)
        elif kind == http2.GOAWAY:
            seen.goaways += 1
        elif kind == http2.HEADERS:
            self.number += 1
            self.open[stream] = Call(stream, self.number, b"", self.decoder.decode(payload), self.encoder)
            self.windows[stream] = self.stream_window
            seen.most_open = max(seen.most_open, len(self.open))
            if self.peer.refuse_early:
                return self.give(self.open[stream])
        elif kind == http2.DATA:
            return self.take_data(flags, stream, payload)
        return True

    def take_data(self, flags: int, stream: int, payload: bytes) -> bool:
        self.windows[0] -= len(payload)
        self.windows[stream] = self.windows.get(stream, self.stream_window) - len(payload)
        if min(self.windows[0], self.windows[stream]) < 0 or len(payload) > self.frame_bytes:
            self.peer.seen.broken.append(f"{len(payload)} bytes at once, windows {self.windows[0]} and {stream}'s")
        call = self.open.get(stream)
        if call is None:
            return True
        if payload and not self.peer.refuse_early:
            more = struct.pack(">I", len(payload))
            self.link.sendall(frame(http2.WINDOW_UPDATE, 0, 0, more) + frame(http2.WINDOW_UPDATE, 0, stream, more))
            self.windows[0] += len(payload)
            self.windows[stream] += len(payload)
        call.message += payload
        if self.peer.each_message:
            return self.take_messages(call, ends=bool(flags & http2.END_STREAM))
        if flags & http2.END_STREAM:
            call.message = call.message[5:]
            del self.open[stream]
            return self.give(call)
        return True

    def take_messages(self, call: Call, *, ends: bool) -> bool:
        while len(call.message) >= 5 and len(call.message) >= 5 + int.from_bytes(call.message[1:5], "big"):
            size = 5 + int.from_bytes(call.message[1:5], "big")
            one = Call(call.stream, call.number, call.message[5:size], call.headers, self.encoder)
            call.message, call.number = call.message[size:], call.number + 1
            if not self.give(one):
                return False
        if ends:
            flags = http2.END_HEADERS | http2.END_STREAM
            self.write(frame(http2.HEADERS, flags, call.stream, call.trailers()))
        return True

    def give(self, call: Call) -> bool:
        with self.peer._lock:
            self.peer.seen.calls += 1
            frames = self.peer.answer(call)
        if frames is None:
            return False
        self.write(frames)
        return True
