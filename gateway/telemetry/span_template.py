"""What spans have in common, encoded once: the pieces between which the kernel writes what is each span's own.

A template holds what a worker's requests to one target, with one variant, reason, authority, refusal, code and method
share. Its pieces lie next to each other in one array:

    head: name and kind │ attributes │ tail: status │ attributes of the run's span
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from gateway.telemetry.conventions import CODES, INFER_METHOD, SERVER_ERRORS, STREAM_METHOD
from gateway.telemetry.span_kernel import KEYS
from gateway.telemetry.span_table import find, rehash
from runtime.shm.record import Records
from runtime.shm.record_layout import Mark, Reason
from runtime.shm.ring_layout import MAX_NAME_BYTES, SEPARATOR

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

SERVER = 2  # Span.SpanKind
ERROR = 2  # Status.StatusCode
MAX_TEMPLATES = 4096  # of a worker, kept from one call to the next: 3 MB; a model has a few for each :authority
FIRST_SLOTS = 64
PIECES = 4
TEMPLATE_BYTES = 4096
"""No template is longer: five texts of at most MAX_NAME_BYTES, and keys that add up to less than a kilobyte."""

DISTINCT = ("target", "variant", "authority", "refusal", "code", "reason", "marks")
"""The fields of a record that choose its template (of marks: Mark.STREAM)."""


def varint(value: int) -> bytes:
    """A non-negative number as protobuf's base-128 varint."""
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def message(number: int, body: bytes) -> bytes:
    """A field with a length: a message, a string or bytes."""
    return varint(number << 3 | 2) + varint(len(body)) + body


@functools.lru_cache(4096)
def attribute(key: str, value: str | int) -> bytes:
    """An attribute of a span (Span.attributes = 9: KeyValue). Integers are int64."""
    if isinstance(value, str):
        any_value = message(1, value.encode(errors="replace")[:MAX_NAME_BYTES].decode(errors="ignore").encode())
    else:
        any_value = varint(3 << 3) + varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    return message(9, message(1, key.encode()) + message(2, any_value))


def key_pieces(extra_keys: Iterable[str]) -> tuple[Bytes, Numbers]:
    """What stands before the values of the attributes that the kernel writes: those of KEYS, then `extra_keys`.

    A text's piece is only the key's field. An int's or a double's is all of the attribute up to the value: with the
    lengths of a value that has no bytes, and 8. Piece k is [starts[k], starts[k + 1]) of the array.
    """
    pieces = []
    for key, kind in (*KEYS.items(), *((key, "string") for key in extra_keys)):
        piece = message(1, key.encode())
        if kind != "string":
            value = varint(3 << 3) if kind == "int" else varint(4 << 3 | 1) + bytes(8)
            piece = message(9, piece + message(2, value))
            piece = piece if kind == "int" else piece[:-8]
        pieces.append(piece)
    starts = np.zeros(len(pieces) + 1, np.int64)
    np.cumsum([len(piece) for piece in pieces], out=starts[1:])
    return np.frombuffer(b"".join(pieces), np.uint8).copy(), starts


def host_and_port(authority: str) -> tuple[str, int | None]:
    """`host`, `host:port`, `[::1]`, `[::1]:port`; any other text is an address as a whole."""
    host, colon, port = authority.rpartition(":")
    if colon and port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= 0xFFFF:
        if ":" not in host:
            return host, int(port)
        if host.startswith("[") and host.endswith("]"):
            return host[1:-1], int(port)
    if authority.startswith("[") and authority.endswith("]"):
        return authority[1:-1], None
    return authority, None


class Templates:
    """A worker's templates: made at the first record that needs one, found by the kernel from then on.

    `_table`: uint64[slots, 3], a template's two words and its number + 1 (0: the place is free), at most half full.
    `arena`: uint8, their bytes; `starts`: int64[templates, PIECES + 1], where template t's pieces begin and end in it.
    """

    def __init__(self, worker: int, names: Sequence[str]) -> None:
        """`names` may grow while this is in use; a name in it stays as it is."""
        self.names = names
        self._worker = attribute("driftgate.worker", worker)
        self._table = np.zeros((FIRST_SLOTS, 3), np.uint64)
        self._used = self._bytes = 0
        self._names_short: float = math.inf  # how many there were when one was asked for that was not there
        self.arena: Bytes = np.empty(16_384, np.uint8)
        self.starts: Numbers = np.zeros((FIRST_SLOTS // 2 + 1, PIECES + 1), np.int64)

    def assign(self, first: Records, second: Records, out: npt.NDArray[np.int32]) -> None:
        """out[i] = the template of record i of `first` and `second` together; NO_TEMPLATE where it is not sampled."""
        if self._used > MAX_TEMPLATES or len(self.names) > self._names_short:
            self._table = np.zeros((FIRST_SLOTS, 3), np.uint64)
            self._used = self._bytes = 0
            self._names_short = math.inf
        at = 0
        while True:
            at = find(first, second, at, self._table, out)
            if at == len(first) + len(second):
                return
            record = first[at] if at < len(first) else second[at - len(first)]
            self._add(*(int(record[field]) for field in DISTINCT))
            self._table[out[at], 2] = self._used
            if self._used * 2 > len(self._table):
                larger = np.zeros((len(self._table) * 2, 3), np.uint64)
                rehash(self._table, larger)
                self._table = larger

    def _add(self, target: int, variant: int, authority: int, refusal: int, code: int, reason: int, marks: int) -> None:
        method = STREAM_METHOD if marks & Mark.STREAM else INFER_METHOD
        status = CODES[code] if code < len(CODES) else "UNKNOWN"
        wrong = status in SERVER_ERRORS
        model = self._target(target)
        attributes = [
            attribute("rpc.system.name", "grpc"),
            attribute("rpc.method", method),
            attribute("rpc.response.status_code", status),
            attribute("error.type", status) if wrong else b"",
            self._server(self._name("authority", authority)),
            model,
            self._text("driftgate.route.variant", self._name("variant", variant)),
            self._text("driftgate.route.reason", Reason(reason).name.lower() if 0 < reason < len(Reason) else ""),
            self._text("driftgate.refusal.reason", self._name("refusal", refusal)),
            self._worker,
        ]
        self._put(
            message(5, method.encode()) + varint(6 << 3) + varint(SERVER),
            b"".join(attributes),
            message(15, varint(3 << 3) + varint(ERROR)) if wrong else b"",
            model + self._worker,
        )

    def _put(self, *pieces: bytes) -> None:
        data = b"".join(pieces)
        while self._bytes + len(data) > len(self.arena):
            self.arena = np.concatenate((self.arena, np.empty_like(self.arena)))
        if self._used == len(self.starts):
            self.starts = np.concatenate((self.starts, np.zeros_like(self.starts)))
        self.arena[self._bytes : self._bytes + len(data)] = np.frombuffer(data, np.uint8)
        self.starts[self._used, 0] = self._bytes
        self.starts[self._used, 1:] = self._bytes + np.cumsum([len(piece) for piece in pieces])
        self._bytes += len(data)
        self._used += 1

    def _name(self, kind: str, number: int) -> str:
        """The text of a number; empty where the number has no name of this kind."""
        if not number:
            return ""
        if number >= len(self.names):
            self._names_short = min(self._names_short, len(self.names))
            return ""
        found, _, text = self.names[number].partition(SEPARATOR)
        return text if found == kind else ""

    def _target(self, number: int) -> bytes:
        model, _, rest = self._name("target", number).partition(SEPARATOR)
        version, _, digest = rest.partition(SEPARATOR)
        numeric = version.isascii() and version.isdigit() and len(version) <= 19 and int(version) < 2**63
        return (
            self._text("driftgate.model.name", model)
            + (attribute("driftgate.model.version", int(version)) if numeric else b"")
            + self._text("driftgate.model.digest", digest)
        )

    def _server(self, authority: str) -> bytes:
        host, port = host_and_port(authority)
        return self._text("server.address", host) + (attribute("server.port", port) if port is not None else b"")

    @staticmethod
    def _text(key: str, value: str) -> bytes:
        return attribute(key, value) if value else b""
