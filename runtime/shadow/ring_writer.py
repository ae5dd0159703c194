"""The writing end of a ring of copies: a worker's. What holds between the two ends is in ring_layout.py."""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.onnx.dtypes import BY_NAME
from runtime.shadow.ring_layout import (
    ARRAY,
    BATCHED,
    BEGIN,
    COPIES_AT,
    COPY,
    END,
    GAP,
    LARGEST,
    LAST_SERIAL,
    NEWEST,
    OUTCOME_AT,
    PAIR_WORDS,
    PAIRS,
    SERIAL,
    SHED_AT,
    STATUS,
    STATUSES,
    TAKEN,
    TEXT_BYTES,
    TEXT_SIZE,
    UNPLACED,
    WRITTEN,
    Shed,
    Status,
    aligned,
    pair_at,
    text_at,
)
from runtime.shadow.ring_map import map_copy_ring
from runtime.shm.order import order
from runtime.shm.segment import Segment

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]

MAX_FORMS = 64
"""Combinations of shapes whose tables are remembered; a version has one for each number of rows and outputs asked."""


class CopyWriter:
    """The one writer of a ring; its threads take turns for as long as a copy's memory is written."""

    def __init__(self, segment: Segment) -> None:
        self._ring = map_copy_ring(segment)
        self._words = self._ring.words
        self._buffer = segment.buffer
        self.lock = threading.Lock()
        self._used: set[int] = set()
        self._given_back: dict[int, None] = {}  # the longest ago first
        self.largest_bytes = self._ring.room // LARGEST
        self._mend()

    def _mend(self) -> None:
        """A writer before may have been killed between its newest copy and the count of it."""
        words = self._words
        newest = words[NEWEST]
        if newest >= words[END]:  # nothing was written yet, or the last was not published
            return
        _, pair, _, serial, written, *_ = COPY.unpack_from(self._buffer, COPIES_AT + newest % self._ring.room)
        if pair < PAIRS and words[pair_at(pair) + SERIAL] == serial:
            at = pair_at(pair) + WRITTEN
            words[at] = max(words[at], written)

    def place(self, text: bytes) -> PairPlace | None:
        """A place for the pair that `text` describes: the one it had before, or one that nobody uses. It is the
        caller's until it is given back. None: there is no room for it.
        """
        if len(text) > TEXT_BYTES:
            log.warning("the names of a version's tensors take %d bytes, more than the %d that copies have room for: "
                        "it is not shadowed", len(text), TEXT_BYTES)  # fmt: skip
            return None
        with self.lock:
            known = next((pair for pair in range(PAIRS) if self._holds(pair, text)), None)
            pair = known if known is not None else self._free()
            if pair is None:
                log.warning("all %d places for pairs of versions are taken: one more is not shadowed", PAIRS)
                return None
            if known is None:
                self._give(pair, text)
            self._used.add(pair)
            self._given_back.pop(pair, None)
            return PairPlace(self, self._words, pair)

    def give_back(self, place: PairPlace) -> None:
        with self.lock:
            self._used.discard(place.pair)
            self._given_back[place.pair] = None

    def unplaced(self, requests: int) -> None:
        """Counts requests that would have been copied, of a pair without a place."""
        with self.lock:
            self._words[UNPLACED] += requests

    def write(self, place: PairPlace, form: Form, head: CopyHead, contents: Sequence[Array | bytes]) -> None:
        """One copy, or the count of one that was shed. `contents`: of each array that `form` describes.

        A place that was given back and became another pair's takes nothing: its last user was a moment late.
        """
        with self.lock:
            words = self._words
            if words[place.at + SERIAL] != place.serial:
                return
            size = aligned(form.contents_at(head.ids_bytes) + form.contents_bytes)
            if size > self.largest_bytes:
                place.shed(Shed.TOO_LARGE, head.requests)
                return
            begin = self._room_for(size)
            if begin is None:
                place.shed(Shed.QUEUE_FULL, head.requests)
                return
            written = words[place.at + WRITTEN] + head.requests
            self._fill(COPIES_AT + begin % self._ring.room, size, place, form, head, written, contents)
            words[NEWEST] = begin
            order()
            words[END] = begin + size
            order()
            words[place.at + WRITTEN] = written

    def _room_for(self, size: int) -> int | None:
        """Where a copy may begin, behind a gap if need be; None: the ring is too full."""
        words, room = self._words, self._ring.room
        end, begin = words[END], words[BEGIN]
        order()
        left = room - end % room
        gap = left if left < size else 0
        if end + gap + size - begin > room:
            return None
        if gap:
            COPY.pack_into(self._buffer, COPIES_AT + end % room, gap, GAP, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        return int(end + gap)

    def _fill(
        self,
        at: int,
        size: int,
        place: PairPlace,
        form: Form,
        head: CopyHead,
        written: int,
        contents: Sequence[Array | bytes],
    ) -> None:
        buffer = self._buffer
        tables = form.tables_bytes + head.ids_bytes
        COPY.pack_into(
            buffer, at, size, place.pair, form.flags, place.serial, written, head.unix_ns, head.run_ns,
            head.requests, form.inputs, form.outputs, tables,
        )  # fmt: skip
        text = head.tables(form)
        buffer[at + COPY.size : at + COPY.size + len(text)] = text
        begin = at + form.contents_at(head.ids_bytes)
        for content, offset, length in zip(contents, form.offsets, form.sizes, strict=True):
            if length:
                buffer[begin + offset : begin + offset + length] = content  # type: ignore[assignment]  # one memcpy

    def _holds(self, pair: int, text: bytes) -> bool:
        at = pair_at(pair)
        words = self._words
        return bool(words[at + SERIAL]) and words[at + TEXT_SIZE] == len(text) and self._ring.text(pair) == text

    def _free(self) -> int | None:
        """A pair that is nobody's yet, or else one that nobody uses and of which nothing waits.

        The one that was given back longest ago: whoever adds up the counters has then seen its last.
        """
        words = self._words
        fresh = (pair for pair in range(PAIRS) if not words[pair_at(pair) + SERIAL])
        unused = [pair for pair in range(PAIRS) if pair not in self._used and pair not in self._given_back]
        idle = (pair for pair in (*unused, *self._given_back) if self._over(pair_at(pair)))
        return next(fresh, next(idle, None))

    def _over(self, at: int) -> bool:
        words = self._words
        told = sum(words[at + outcome] for outcome in OUTCOME_AT.values())
        return bool(words[at + WRITTEN] == words[at + TAKEN] == told)

    def _give(self, pair: int, text: bytes) -> None:
        words, at = self._words, pair_at(pair)
        words[at + SERIAL] = 0
        order()
        for word in range(at + 1, at + PAIR_WORDS):
            words[word] = 0
        self._buffer[text_at(pair) : text_at(pair) + len(text)] = text
        words[at + TEXT_SIZE] = len(text)
        words[LAST_SERIAL] = serial = words[LAST_SERIAL] + 1
        order()
        words[at + SERIAL] = serial


class PairPlace:
    """A pair's place in a ring, for as long as its writer uses it."""

    __slots__ = ("_ready", "_status_at", "_words", "at", "pair", "serial", "writer")

    def __init__(self, writer: CopyWriter, words: memoryview, pair: int) -> None:
        self.writer = writer
        self.pair = pair
        self.at = pair_at(pair)
        self._words = words
        self._status_at = self.at + STATUS
        self.serial = words[self.at + SERIAL]
        self._ready = self.serial * STATUSES + Status.READY.value

    def why_not(self) -> Shed | None:
        """Why copies of the pair are of no use now; None: they are."""
        status = self._words[self._status_at]
        if status == self._ready:
            return None
        return Shed.INCOMPATIBLE if status == self._ready + 1 else Shed.NO_SHADOW

    def shed(self, reason: Shed, requests: int) -> None:
        """The caller holds the writer's lock. Counts nothing if the place has become another pair's."""
        if self._words[self.at + SERIAL] == self.serial:
            self._words[self.at + SHED_AT[reason]] += requests


class CopyHead:
    """What a copy holds of its run but for the arrays."""

    __slots__ = ("ids", "ids_bytes", "requests", "rows", "run_ns", "unix_ns")

    def __init__(self, rows: Sequence[int], ids: Sequence[str], unix_ns: int, run_ns: int) -> None:
        self.rows = rows
        self.requests = len(rows)
        self.ids = [text.encode("utf-8", "surrogatepass") for text in ids] if any(ids) else ()
        self.ids_bytes = sum(map(len, self.ids))
        self.unix_ns = unix_ns
        self.run_ns = run_ns

    def tables(self, form: Form) -> bytes:
        lengths = [len(text) for text in self.ids] or [0] * self.requests
        head: bytes = _words32(2 * self.requests).pack(*self.rows, *lengths)
        return b"".join((head, form.arrays, *self.ids))


class Form:
    """The shapes of a copy's arrays, put down once for all copies that have them."""

    __slots__ = ("arrays", "contents_bytes", "flags", "inputs", "offsets", "outputs", "sizes", "tables_bytes")

    def __init__(
        self, requests: int, inputs: int, arrays: Sequence[tuple[int, str, tuple[int, ...], int]], *, batched: bool
    ) -> None:
        """`arrays`: (number in the signature, datatype, shape, bytes) of the inputs, then of the outputs."""
        self.flags = BATCHED if batched else 0
        self.inputs = inputs
        self.outputs = len(arrays) - inputs
        self.sizes = tuple(size for *_, size in arrays)
        ends = np.cumsum([0, *(aligned(size) for size in self.sizes)]).tolist()
        self.offsets: tuple[int, ...] = tuple(ends[:-1])
        self.contents_bytes: int = ends[-1]
        self.arrays = b"".join(
            ARRAY.pack(number, BY_NAME[datatype].element_type, len(shape), size)
            + struct.pack(f"<{len(shape)}q", *shape)
            for number, datatype, shape, size in arrays
        )
        self.tables_bytes = 8 * requests + len(self.arrays)

    def contents_at(self, ids_bytes: int) -> int:
        """From the copy's beginning."""
        return aligned(COPY.size + self.tables_bytes + ids_bytes)


class Forms:
    """Writes runs of one version: remembers the forms of its arrays."""

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str], *, batched: bool) -> None:
        """`inputs`, `outputs`: datatypes, in the order of the signature."""
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        self._batched = batched
        self._texts = "BYTES" in (*inputs, *outputs)
        self._forms: dict[Any, Form] = {}

    def of(
        self, requests: int, inputs: Sequence[Array], numbers: Sequence[int], answers: Sequence[Array]
    ) -> tuple[Form, Sequence[Array | bytes]]:
        """The form of a run, and its arrays' contents. `numbers`: of the outputs that `answers` are."""
        arrays = (*inputs, *answers)
        if self._texts:
            datatypes = (*self._inputs, *(self._outputs[number] for number in numbers))
            contents: Sequence[Array | bytes] = [
                _texts(array) if datatype == "BYTES" else array
                for array, datatype in zip(arrays, datatypes, strict=True)
            ]
            return self._form(requests, arrays, numbers, contents), contents
        key = (requests, numbers, *[array.shape for array in arrays])
        form = self._forms.get(key)
        if form is None:
            if len(self._forms) >= MAX_FORMS:
                self._forms.clear()
            form = self._forms[key] = self._form(requests, arrays, numbers, arrays)
        return form, arrays

    def _form(
        self, requests: int, arrays: Sequence[Array], numbers: Sequence[int], contents: Sequence[Array | bytes]
    ) -> Form:
        inputs = len(self._inputs)
        all_numbers = (*range(inputs), *numbers)
        datatypes = (*self._inputs, *(self._outputs[number] for number in numbers))
        rows = [
            (number, datatype, array.shape, len(content) if isinstance(content, bytes) else content.nbytes)
            for number, datatype, array, content in zip(all_numbers, datatypes, arrays, contents, strict=True)
        ]
        return Form(requests, inputs, rows, batched=self._batched)


def _texts(array: Array) -> bytes:
    """BYTES: the lengths of all elements, then their UTF-8."""
    encoded = [str(text).encode("utf-8", "surrogatepass") for text in array.ravel().tolist()]
    return b"".join((_words32(len(encoded)).pack(*map(len, encoded)), *encoded))


def _words32(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}I")
