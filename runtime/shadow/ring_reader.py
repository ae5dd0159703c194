"""The reading end of a ring of copies: the shadow process's. What holds between the two ends is in ring_layout.py."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.onnx.dtypes import DATATYPES
from runtime.shadow.copied_pair import CopiedPair
from runtime.shadow.pair import Copy
from runtime.shadow.ring_layout import (
    ARRAY,
    BATCHED,
    BEGIN,
    COPIES_AT,
    COPY,
    END,
    GAP,
    OUTCOME_AT,
    PAIRS,
    SERIAL,
    STATUS,
    STATUSES,
    TAKEN,
    Status,
    aligned,
    pair_at,
)
from runtime.shadow.ring_map import CopyRing
from runtime.shm.order import order

Array = npt.NDArray[Any]

_DATATYPES = {datatype.element_type: datatype for datatype in DATATYPES}


@dataclass(frozen=True, slots=True)
class PairSlot:
    """A pair's place in one ring, for as long as it is this pair's: another pair has another serial."""

    ring: int
    pair: int
    serial: int
    described: CopiedPair


@dataclass(frozen=True, slots=True)
class Taken:
    """The head of the copy that was taken last. `requests` count once; what became of them is to be told."""

    pair: int
    serial: int
    requests: int
    unix_ns: int


class CopyReader:
    """The one reader of a ring, at `number` among the rings of all workers. Single-threaded.

    `look` shows the oldest copy's head, `take` makes it this reader's, with or without reading it.
    """

    def __init__(self, ring: CopyRing, number: int) -> None:
        self._ring = ring
        self._words = ring.words
        self._buffer = ring.segment.buffer
        self._number = number
        for pair in range(PAIRS):  # what a reader before held is gone with it
            self._words[pair_at(pair) + STATUS] = 0

    def slots(self) -> list[PairSlot]:
        """The pairs that are described now."""
        found = []
        for pair in range(PAIRS):
            serial = self._words[pair_at(pair) + SERIAL]
            if not serial:
                continue
            order()
            text = self._ring.text(pair)
            order()
            if self._words[pair_at(pair) + SERIAL] == serial:  # else it has become another's
                found.append(PairSlot(self._number, pair, serial, CopiedPair.from_json(text)))
        return found

    def serials(self) -> tuple[int, ...]:
        """What `slots` would find, without reading it."""
        return tuple(self._words[pair_at(pair) + SERIAL] for pair in range(PAIRS))

    def set_status(self, slot: PairSlot, status: Status) -> None:
        """The writer copies nothing for a pair that is not READY."""
        self._words[pair_at(slot.pair) + STATUS] = slot.serial * STATUSES + status.value

    def untold(self, slot: PairSlot) -> int:
        """Requests that were taken and are not told of."""
        at = pair_at(slot.pair)
        return int(self._words[at + TAKEN]) - sum(int(self._words[at + outcome]) for outcome in OUTCOME_AT.values())

    def tell(self, slot: PairSlot, outcomes: Mapping[str, int]) -> None:
        """What became of requests that were taken (OUTCOMES), once it has been reported."""
        if self._words[pair_at(slot.pair) + SERIAL] != slot.serial:
            return  # nothing waited of it, so there is nothing to tell
        for outcome, requests in outcomes.items():
            self._words[pair_at(slot.pair) + OUTCOME_AT[outcome]] += requests

    def look(self) -> Taken | None:
        """The oldest copy, which stays; None: there is none.

        What a reader before had taken is passed over, also where its place has become another pair's since.
        """
        words = self._words
        while True:
            begin = words[BEGIN]
            end = words[END]
            if begin == end:
                return None
            order()
            at = COPIES_AT + begin % self._ring.room
            size, pair, _, serial, written, unix_ns, _, requests, *_ = COPY.unpack_from(self._buffer, at)
            if pair != GAP and words[pair_at(pair) + SERIAL] == serial and words[pair_at(pair) + TAKEN] < written:
                return Taken(pair, serial, requests, unix_ns)
            self._release(begin + size)

    def drop(self) -> None:
        """Takes the oldest copy, which `look` has shown, and does not read it."""
        begin, size = self._take()
        self._release(begin + size)

    def take(self, described: CopiedPair) -> Copy:
        """Takes the oldest copy, which `look` has shown: it is read out of the ring, in one piece."""
        begin, size = self._take()
        at = COPIES_AT + begin % self._ring.room
        memory = np.frombuffer(self._buffer, np.uint8, size, at).copy()
        self._release(begin + size)
        return read_copy(memory, described)

    def _take(self) -> tuple[int, int]:
        words = self._words
        begin = words[BEGIN]
        size, pair, _, _, written, *_ = COPY.unpack_from(self._buffer, COPIES_AT + begin % self._ring.room)
        words[pair_at(pair) + TAKEN] = written
        order()
        return begin, size

    def _release(self, begin: int) -> None:
        order()  # all that was read was read before
        self._words[BEGIN] = begin


def read_copy(memory: npt.NDArray[np.uint8], described: CopiedPair) -> Copy:
    """`memory`: one copy, as it lies in the ring; the arrays are views of it."""
    data = memory.data
    _, _, flags, _, _, unix_ns, run_ns, requests, inputs, outputs, tables = COPY.unpack_from(data, 0)
    numbers = struct.unpack_from(f"<{2 * requests}I", data, COPY.size)
    rows, lengths = numbers[:requests], numbers[requests:]
    at = COPY.size + 8 * requests
    content_at = aligned(COPY.size + tables)
    arrays: list[tuple[int, Array]] = []
    for _ in range(inputs + outputs):
        number, element_type, dimensions, size = ARRAY.unpack_from(data, at)
        shape = struct.unpack_from(f"<{dimensions}q", data, at + ARRAY.size)
        at += ARRAY.size + 8 * dimensions
        arrays.append((number, _array(memory[content_at : content_at + size], element_type, shape)))
        content_at += aligned(size)
    ids = []
    for length in lengths:
        ids.append(bytes(data[at : at + length]).decode("utf-8", "surrogatepass"))
        at += length
    return Copy(
        unix_ns=unix_ns,
        inputs={described.inputs[number][0]: array for number, array in arrays[:inputs]},
        outputs={described.outputs[number][0]: array for number, array in arrays[inputs:]},
        rows=tuple(rows),
        request_ids=tuple(ids),
        run_ns=run_ns,
        batched=bool(flags & BATCHED),
    )


def _array(content: npt.NDArray[np.uint8], element_type: int, shape: tuple[int, ...]) -> Array:
    datatype = _DATATYPES[element_type]
    if datatype.size_bytes:
        return content.view(datatype.numpy).reshape(shape)
    count = int(np.prod(shape, dtype=np.int64))
    data = content.tobytes()
    array = np.empty(count, object)
    at = 4 * count
    for index, length in enumerate(struct.unpack_from(f"<{count}I", data, 0)):
        array[index] = data[at : at + length].decode("utf-8", "surrogatepass")
        at += length
    return array.reshape(shape)
