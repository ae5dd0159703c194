"""Requests that differ from one already checked in nothing but their id and their values.

A client sends the same message again and again: same model, same inputs, same shapes, other numbers. When a request
has been decoded and checked, its layout is remembered: every byte of the message except the content of `id` and of
`raw_input_contents`. A later message of the same length whose other bytes are equal, byte for byte, parses to the same
fields, so its values can be taken from their places without parsing or checking again. Anything else, however little
it differs, goes through the decoder.

Where the route table alone says which version answers, the layout remembers that too. Where the model's route decides,
request by request, it remembers the junction and what was made of the message for each version so far.
"""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

from gateway.routing.router import Parameters
from gateway.routing.table import Junction, Way
from runtime.batching.request import Request

T = TypeVar("T")

ID_FIELD = 3
RAW_FIELD = 7
LENGTH_DELIMITED = 2
MAX_FIXED_BYTES = 4096  # of one layout; larger headers are decoded anew each time
MAX_LAYOUTS_PER_KEY = 4
MAX_KEYS = 256
VIEWED_BYTES = 1 << 16
"""Of values: from here on they are not copied out of the message, which lives as long as they do."""


class Form(NamedTuple):
    """What a version's decoder makes of the bytes that are fixed: all of a Request but its id and values."""

    shapes: list[tuple[int, ...]]
    outputs: tuple[int, ...]
    rows: int
    key: Any


class Layout(Generic[T]):
    """One remembered message. `fixed`: (where, bytes) that must be equal; `raws`: (from, to) of each input's values.

    `target`: which version answers, or, where `junction` decides, the one that it was learned from. `parameters`: what
    the junction decides by.
    """

    __slots__ = (
        "_first",
        "_fixed",
        "_form",
        "_forms",
        "_id",
        "_raws",
        "_routing",
        "_viewed",
        "junction",
        "parameters",
        "target",
        "timeout_seconds",
    )

    def __init__(
        self,
        fixed: list[tuple[int, bytes]],
        id_range: tuple[int, int],
        raws: list[tuple[int, int]],
        request: Request,
        target: T,
        timeout_seconds: float,
    ) -> None:
        self._first = fixed[0][1]
        self._fixed = fixed[1:]
        self._id = id_range
        self._raws = raws
        self._viewed = sum(end - start for start, end in raws) >= VIEWED_BYTES
        self._form = _form_of(request)
        self._forms: dict[T | None, Form] = {target: self._form}
        self._routing = request.routing
        self.target = target
        self.timeout_seconds = timeout_seconds
        self.junction: Junction[T] | None = None
        self.parameters: Parameters | None = None

    def read(self, payload: bytes) -> Request | None:
        """The request in `payload`, whose length is this layout's; None if it is another message."""
        if not payload.startswith(self._first):
            return None
        for where, content in self._fixed:
            if not payload.startswith(content, where):
                return None
        start, end = self._id
        try:
            request_id = payload[start:end].decode() if end else ""
        except UnicodeDecodeError:
            return None  # not a valid message; the decoder says so
        values: Any = memoryview(payload) if self._viewed else payload
        request = Request([values[start:end] for start, end in self._raws], *self._form)
        request.id = request_id
        request.routing = self._routing
        return request

    def fit(self, request: Request, way: Way[T]) -> T | None:
        """Makes what `read` gave a request for the version that `way` leads to, which is the answer.

        None: nothing is known of that version yet, or it cannot answer.
        """
        target = way.target
        form = self._forms.get(target)
        if form is None:
            return None
        request.shapes, request.outputs, request.rows, request.key = form
        request.routing = way.routing
        return target

    def add(self, read: Request, decoded: Request, target: T) -> None:
        """The same message, `read` here and `decoded` for another version, which Decoder.plain has allowed."""
        if read.inputs == decoded.inputs:
            self._forms[target] = _form_of(decoded)


class Layouts(Generic[T]):
    """Bounded: MAX_LAYOUTS_PER_KEY for each of MAX_KEYS lengths; then the oldest makes room."""

    def __init__(self) -> None:
        self._layouts: dict[tuple[int, bytes], list[Layout[T]]] = {}

    def find(self, payload: bytes) -> tuple[Layout[T], Request] | None:
        for layout in self._layouts.get(_key(payload), ()):
            request = layout.read(payload)
            if request is not None:
                return layout, request
        return None

    def learn(
        self,
        payload: bytes,
        request: Request,
        target: T,
        timeout_seconds: float,
        junction: Junction[T] | None = None,
        parameters: Parameters | None = None,
    ) -> None:
        """Remembers a request that has just been decoded from `payload`, which Decoder.plain has allowed.

        `junction`: what decided that it goes to `target`, with `parameters`; the next may go elsewhere.
        """
        layout = _layout_of(payload, request, target, timeout_seconds)
        if layout is None:
            return
        layout.junction, layout.parameters = junction, parameters
        key = _key(payload)
        known = self._layouts.get(key, [])
        if not known and len(self._layouts) >= MAX_KEYS:
            # Under contention another thread may have removed it, or have added one more: the bound is not exact.
            self._layouts.pop(next(iter(self._layouts), key), None)
        # A new list, assigned at once: other threads read without a lock.
        self._layouts[key] = [layout, *known[: MAX_LAYOUTS_PER_KEY - 1]]


def _form_of(request: Request) -> Form:
    return Form(request.shapes, request.outputs, request.rows, request.key)


def _key(payload: bytes) -> tuple[int, bytes]:
    """Messages of one layout have one length and one model, whose name a serializer writes first."""
    return len(payload), payload[: 2 + payload[1]] if len(payload) > 1 else b""


def _layout_of(payload: bytes, request: Request, target: T, timeout_seconds: float) -> Layout[T] | None:
    """None where a message cannot be remembered: typed contents, strings, odd encodings."""
    holes = _holes(payload)
    if holes is None:
        return None
    id_range, raws = holes
    values = [payload[start:end] for start, end in raws]
    if values != request.inputs:  # strings are lists
        return None
    ranges = sorted([id_range, *raws] if id_range[1] else raws)
    fixed: list[tuple[int, bytes]] = []
    position = 0
    for start, end in ranges:
        fixed.append((position, payload[position:start]))
        position = end
    fixed.append((position, payload[position:]))
    if sum(len(content) for _, content in fixed) > MAX_FIXED_BYTES:
        return None
    return Layout(fixed, id_range, raws, request, target, timeout_seconds)


def _holes(payload: bytes) -> tuple[tuple[int, int], list[tuple[int, int]]] | None:
    """Where the id's content and each raw content lie; None if a field is of a kind that this walk does not expect."""
    id_range = (0, 0)
    raws: list[tuple[int, int]] = []
    position = 0
    while position < len(payload):
        tag = payload[position]
        if tag & 7 != LENGTH_DELIMITED or tag > 0x7F:
            return None
        length, start = _varint(payload, position + 1)
        end = start + length
        if tag >> 3 == ID_FIELD:
            if id_range[1]:
                return None
            id_range = (start, end) if length else (0, 0)
        elif tag >> 3 == RAW_FIELD:
            raws.append((start, end))
        position = end
    return (id_range, raws) if raws else None


def _varint(payload: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = payload[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
