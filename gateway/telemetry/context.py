"""Trace context in and out (W3C Trace Context, W3C Baggage): which trace a request belongs to, and its span's id.

A request with a valid `traceparent` becomes a span of the caller's trace; any other begins a trace of its own. What is
wrong in a header is ignored, as the specification says, and never fails a request.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Collection, Iterator, Sequence
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from gateway.telemetry.sampler import SAMPLED, Sampler
from runtime.shm.record_layout import TEXT_BYTES, Mark

TRACEPARENT, TRACESTATE, BAGGAGE = "traceparent", "tracestate", "baggage"

PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
CURRENT_LENGTH = 55  # of version 00, which has nothing after the flags
RANDOM = 0x02  # trace-flags, level 2: the caller says that its trace id is random
MEMBER = re.compile(r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
MAX_MEMBERS = 32
MAX_SPLIT = 2 * MAX_MEMBERS  # empty members are allowed between them
MAX_BAGGAGE = 180  # members: as many as the first version of W3C Baggage allows
MAX_STATE = 512  # characters that must be passed on; longer ones may be left out
MAX_ECHO = 1024  # of baggage that goes back: clients take 8 KiB of metadata in all
ECHOED = re.compile(rf"[\x21-\x7e]([\x20-\x7e]{{0,{MAX_ECHO - 2}}}[\x21-\x7e])?")  # what gRPC takes as a value

BACK = TRACEPARENT.encode()
TRACE_ID, SPAN_ID = slice(3, 35), slice(36, 52)  # in the header, as hexadecimal digits
IDS = struct.Struct("16s8s")
IDS_AT_ONCE = 256
HEADERS = np.tile(np.frombuffer(b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01", np.uint8), (IDS_AT_ONCE, 1))
WHOLE = np.dtype((np.void, CURRENT_LENGTH))

Metadata = Sequence[tuple[str, str | bytes]]
Headers = tuple[tuple[bytes, bytes], ...]
"""Bytes: the C-core takes them as they are, and would have text encoded for each reply."""

Id = tuple[bytes, bytes, bytes]
Block = npt.NDArray[np.uint8]


class Trace:
    """A request's place in its trace. `text`, `state_bytes`, `extra_bytes`: as in the record (runtime/shm/record.py).

    `headers` go back to the client with the reply. `request_id` is set where no Request will carry it.
    """

    __slots__ = (
        "extra_bytes",
        "flags",
        "headers",
        "marks",
        "parent_id",
        "request_id",
        "span_id",
        "state_bytes",
        "text",
        "trace_id",
    )

    def __init__(self, trace_id: bytes, span_id: bytes, flags: int, headers: Headers) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_id = b""
        self.flags = flags
        self.marks = 0
        self.headers = headers
        self.text = b""
        self.state_bytes = 0
        self.extra_bytes = 0
        self.request_id = ""

    def __repr__(self) -> str:
        return f"<Trace {self.trace_id.hex()} span={self.span_id.hex()} flags={self.flags:02x}>"

    @property
    def trailers(self) -> tuple[tuple[str, str], ...]:
        """`headers`, for a refusal."""
        return tuple((key.decode(), value.decode()) for key, value in self.headers)

    @property
    def sampled(self) -> bool:
        return bool(self.flags & SAMPLED)

    def add(self, number: int, value: str) -> None:
        """One more attribute, by its number among the recorder's keys; cut, or left out, where there is no room."""
        room = min(TEXT_BYTES - len(self.text) - 2, 255)
        data = value.encode()
        if len(data) > room:
            self.marks |= Mark.TEXT_CUT
            data = data[: max(room, 0)].decode(errors="ignore").encode()
        if data:
            self.text += bytes((number, len(data))) + data
            self.extra_bytes += 2 + len(data)


Begun = Trace | bytes
"""What `Tracer.begin` makes. Of a request that came without context: the `traceparent` that goes back, which says all.

Most requests are of that kind, and an object for each of them costs as much as the rest of their telemetry together.
"""


def log_fields(begun: Begun | None) -> dict[str, str] | None:
    """For `extra` of a log call that is about a request."""
    if begun is None:
        return None
    if isinstance(begun, bytes):
        return {"trace_id": begun[TRACE_ID].decode(), "span_id": begun[SPAN_ID].decode()}
    return {"trace_id": begun.trace_id.hex(), "span_id": begun.span_id.hex()}


class Tracer:
    """`begin` is on the request path: a few dictionary look-ups where a request has no context. Thread-safe."""

    def __init__(
        self,
        sampler: Sampler,
        propagators: Sequence[str],
        *,
        respond: bool,
        metadata_keys: Sequence[str] = (),
        baggage_keys: Sequence[str] = (),
        first_key: int = 0,
    ) -> None:
        """`metadata_keys` and `baggage_keys` become attributes numbered from `first_key` on, in this order."""
        self._sampler = sampler
        self._threshold = sampler.threshold
        self._all, self._none = sampler.ratio >= 1, sampler.ratio <= 0
        self._trace_context = "tracecontext" in propagators
        self._metadata_keys = {key.lower(): first_key + index for index, key in enumerate(metadata_keys)}
        first_key += len(self._metadata_keys)
        self._baggage_keys = {key: first_key + index for index, key in enumerate(baggage_keys)}
        self._baggage = "baggage" in propagators
        self._respond = respond and self._trace_context
        self._echo = respond and self._baggage
        self._wanted = {TRACEPARENT, TRACESTATE} if self._trace_context else set()
        self._wanted |= {*self._metadata_keys}
        if self._baggage:
            self._wanted.add(BAGGAGE)
        self._ids: Iterator[Id] = iter(())
        self._roots: Iterator[bytes] = iter(())

    @property
    def responds(self) -> bool:
        """Whether replies carry the context."""
        return self._respond

    def begin(self, metadata: Metadata) -> Begun:
        wanted = self._wanted
        for key, _ in metadata:
            if key in wanted:
                return self._continue(metadata)
        return self._root()

    def whole(self, begun: Begun) -> Trace:
        """What can be added to."""
        if isinstance(begun, Trace):
            return begun
        back = ((BACK, begun),) if self._respond else ()
        ids = bytes.fromhex(begun[TRACE_ID].decode()), bytes.fromhex(begun[SPAN_ID].decode())
        return Trace(*ids, begun[-1] & SAMPLED, back)

    def new_id(self) -> Id:
        """A trace id, a span id, and the traceparent of both: random, from the operating system, never used twice."""
        for identity in self._ids:  # the iterator of a list: one step, whichever thread takes it
            return identity
        ids = make_ids()
        first = ids.pop()
        self._ids = iter(ids)
        return first

    def _root(self) -> bytes:
        """Made many at a time, which is quicker; each is taken once, as the ids are."""
        for header in self._roots:
            return header
        block, headers = make_headers()
        if not self._all:
            kept = np.zeros(len(block), bool)
            if not self._none:
                kept = block[:, 8:16].copy().view(">u8")[:, 0] < np.uint64(self._threshold)
            headers[:, -1] = ord("0") + kept
        roots = texts_of(headers)
        first = roots.pop()
        self._roots = iter(roots)
        return first

    def _continue(self, metadata: Metadata) -> Trace:
        """A request with context, or with metadata that becomes an attribute."""
        values: dict[str, list[str]] = {}
        for key, value in metadata:
            if key in self._wanted and isinstance(value, str):
                values.setdefault(key, []).append(value)
        parents = values.get(TRACEPARENT, ()) if self._trace_context else ()
        trace = self._child(parents) or self.whole(self._root())
        if trace.marks & Mark.PARENT and TRACESTATE in values:
            state = valid_state(",".join(values[TRACESTATE]))
            trace.text = fitting(state)
            trace.state_bytes = len(trace.text)
            trace.marks |= Mark.TEXT_CUT if len(trace.text) < len(state) else 0
            if state and self._respond:
                trace.headers += ((TRACESTATE.encode(), state.encode()),)
        baggage = ",".join(values.get(BAGGAGE, ())) if self._baggage else ""
        if baggage and self._echo and ECHOED.fullmatch(baggage):
            trace.headers += ((BAGGAGE.encode(), baggage.encode()),)
        for key, number in self._metadata_keys.items():
            if key in values:
                trace.add(number, ",".join(values[key]))
        if baggage and self._baggage_keys:
            for name, value in members_of(baggage, self._baggage_keys):
                trace.add(self._baggage_keys[name], value)
        return trace

    def _child(self, headers: Sequence[str]) -> Trace | None:
        """None: there is no parent, or not one valid one."""
        match = PARENT.fullmatch(headers[0]) if len(headers) == 1 else None
        if match is None or (match[1] == "00" and len(match[0]) != CURRENT_LENGTH):
            return None
        trace_id, parent_flags = bytes.fromhex(match[2]), int(match[4], 16)
        _, span_id, header = self.new_id()
        flags = parent_flags & RANDOM
        if self._sampler.child(trace_id, parent_flags):
            flags |= SAMPLED
        back = ((BACK, b"00-%b%b%02x" % (match[2].encode(), header[35:53], flags)),) if self._respond else ()
        trace = Trace(trace_id, span_id, flags, back)
        trace.parent_id = bytes.fromhex(match[3])
        trace.marks = Mark.PARENT
        return trace


def make_headers() -> tuple[Block, Block]:
    """uint8[IDS_AT_ONCE, 24], trace and span ids; uint8[IDS_AT_ONCE, 55], the `traceparent` of each, sampled."""
    block = os.urandom(IDS.size * IDS_AT_ONCE)
    digits = np.frombuffer(block.hex().encode(), np.uint8).reshape(IDS_AT_ONCE, -1)
    headers = HEADERS.copy()
    headers[:, TRACE_ID] = digits[:, :32]
    headers[:, SPAN_ID] = digits[:, 32:]
    return np.frombuffer(block, np.uint8).reshape(IDS_AT_ONCE, -1), headers


def texts_of(headers: Block) -> list[bytes]:
    texts: list[bytes] = headers.view(WHOLE).ravel().tolist()  # type: ignore[assignment]  # an item of this kind is bytes
    return texts


def make_ids() -> list[Id]:
    """IDS_AT_ONCE of them."""
    block, headers = make_headers()
    trace_ids, span_ids = zip(*IDS.iter_unpack(block.tobytes()), strict=True)
    return list(zip(trace_ids, span_ids, texts_of(headers), strict=True))


def valid_state(state: str) -> str:
    """The list's members without blanks between them; "" where one is wrong or there are too many."""
    members = [member.strip(" \t") for member in state.split(",", MAX_SPLIT)]
    members = [member for member in members if member]
    keys = {member.partition("=")[0] for member in members}
    if len(members) > MAX_MEMBERS or len(keys) < len(members) or not all(MEMBER.fullmatch(m) for m in members):
        return ""
    joined = ",".join(members)
    return joined if len(joined) <= MAX_STATE else ""


def fitting(state: str) -> bytes:
    """As many whole members from the left as a record holds: those on the right are the oldest."""
    data = state.encode()
    if len(data) <= TEXT_BYTES:
        return data
    return data[: data.rfind(b",", 0, TEXT_BYTES + 1)] if b"," in data[: TEXT_BYTES + 1] else b""


def members_of(baggage: str, wanted: Collection[str]) -> Iterator[tuple[str, str]]:
    """The first member of each wanted name, with its value decoded; properties after `;` are left out.

    Of a list of more than MAX_BAGGAGE members those beyond are not looked at.
    """
    left = set(wanted)
    for member in baggage.split(",", MAX_BAGGAGE)[:MAX_BAGGAGE]:
        name, equals, value = member.partition(";")[0].partition("=")
        name = name.strip()
        if equals and name in left:
            left.remove(name)
            yield name, unquote(value.strip(), errors="replace")
