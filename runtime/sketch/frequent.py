"""The frequent ones among named values: a Misra-Gries summary.

Guarantee: with 2^lg_slots slots, k = 2^(lg_slots - 1) and N values seen, a value's true count lies from its `count` to
its `count + offset`, and offset <= (N - sum of counts) / (k + 1). Every value seen more than N / (k + 1) times is
there: with lg_slots 8 those above 0.78 %. While no more than 3/4 of the slots are used, offset is 0: counts are exact.
Memory: 64 + 80 * 2^lg_slots bytes; 20,544 at lg_slots 8. Of a text the first 62 bytes are kept, and whether it was cut;
it is told from others by a hash of all of it.
Merge: adds counts and offsets, and makes room in the same way; the same bound holds for what all have seen. What is
kept of the rare values depends on the order.

Misra, Gries, "Finding repeated elements", 1982. Merge: Agarwal, Cormode, Huang, Phillips, Wei, Yi, "Mergeable
summaries", PODS 2012, section 2. Room is made for many at once as in Anderson et al., "A high-performance algorithm for
identifying frequent items in data streams", IMC 2017: from all counts the (k + 1)th greatest is taken, so that each
such step takes at least k + 1 times what it adds to offset. Nothing is decided by a tie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.sketch.errors import BadValues, Malformed, NotMergeable
from runtime.sketch.keys import KeyKind, Keys, name_of
from runtime.sketch.keys_kernels import (
    OFFSET,
    TEXT_AT,
    TEXT_BYTES,
    TEXT_CUT,
    TEXT_LENGTH,
    TOTAL,
    USED,
    add_keys,
    merge_keys,
)

HEAD_BYTES = 64
DEFAULT_LG_SLOTS = 8
LEAST_LG_SLOTS, GREATEST_LG_SLOTS = 3, 16


def frequent_bytes(lg_slots: int) -> int:
    return HEAD_BYTES + (16 + TEXT_BYTES) * (1 << lg_slots)


def most_used(lg_slots: int) -> int:
    """Slots that may be in use."""
    return (1 << lg_slots) - (1 << lg_slots) // 4


@dataclass(frozen=True, slots=True)
class Frequent:
    """A value that may be frequent: seen `at_least` to `at_most` times. `cut`: `value` is only its beginning."""

    value: str | int
    at_least: int
    at_most: int
    cut: bool


class FrequentValues:
    """In the caller's memory where a buffer is given; it holds zeros or frequent values of this kind and size.

    head: int64[8], hashes: uint64[slots], counts: int64[slots], texts: uint8[slots, 64] (length, cut, bytes).
    Raises ValueError for an lg_slots outside of 3 to 16, Malformed for too small a buffer. One writer at a time.
    """

    def __init__(
        self,
        kind: KeyKind = KeyKind.TEXT,
        lg_slots: int = DEFAULT_LG_SLOTS,
        buffer: bytearray | memoryview | None = None,
    ) -> None:
        if not LEAST_LG_SLOTS <= lg_slots <= GREATEST_LG_SLOTS:
            raise ValueError(f"expected an lg_slots of {LEAST_LG_SLOTS} to {GREATEST_LG_SLOTS}, got {lg_slots}")
        size, slots = frequent_bytes(lg_slots), 1 << lg_slots
        memory = bytearray(size) if buffer is None else buffer
        if len(memory) < size:
            raise Malformed(f"expected {size} bytes or more for frequent values, got {len(memory)}")
        self.kind = kind
        self.lg_slots = lg_slots
        self.head: npt.NDArray[np.int64] = np.frombuffer(memory, "<i8", HEAD_BYTES // 8)
        self.hashes: npt.NDArray[np.uint64] = np.frombuffer(memory, "<u8", slots, HEAD_BYTES)
        self.counts: npt.NDArray[np.int64] = np.frombuffer(memory, "<i8", slots, HEAD_BYTES + 8 * slots)
        texts = np.frombuffer(memory, np.uint8, slots * TEXT_BYTES, HEAD_BYTES + 16 * slots)
        self.texts: npt.NDArray[np.uint8] = texts.reshape(slots, TEXT_BYTES)

    def observe(self, keys: Keys) -> None:
        """Counts the keys; missing ones are not counted here. Raises BadValues for keys of the other kind."""
        if keys.kind is not self.kind:
            raise BadValues(f"expected keys of kind {self.kind.name}, got {keys.kind.name}")
        add_keys(keys.data, keys.ends, keys.hashes, self.head, self.hashes, self.counts, self.texts)

    def merge(self, other: FrequentValues) -> None:
        """Adds what `other` has seen. Raises NotMergeable for another kind or size."""
        if (other.kind, other.lg_slots) != (self.kind, self.lg_slots):
            raise NotMergeable(
                f"expected frequent values of kind {self.kind.name} and lg_slots {self.lg_slots}, "
                f"got {other.kind.name} and {other.lg_slots}"
            )
        if other is self:
            other = self.copy()
        merge_keys(
            self.head, self.hashes, self.counts, self.texts, other.head, other.hashes, other.counts, other.texts
        )  # fmt: skip

    def copy(self) -> FrequentValues:
        copy = FrequentValues(self.kind, self.lg_slots)
        copy.head[:] = self.head
        copy.hashes[:] = self.hashes
        copy.counts[:] = self.counts
        copy.texts[:] = self.texts
        return copy

    @property
    def total(self) -> int:
        return int(self.head[TOTAL])

    @property
    def offset(self) -> int:
        """The most by which a count is too low, and by which a value that is not there was seen."""
        return int(self.head[OFFSET])

    @property
    def used(self) -> int:
        return int(self.head[USED])

    def top(self, most: int | None = None) -> list[Frequent]:
        """By count from the greatest; equal ones by their bytes, then their hash."""
        slots = np.flatnonzero(self.counts)
        found = [(-int(self.counts[slot]), self.kept(slot), int(self.hashes[slot])) for slot in slots.tolist()]
        return [
            Frequent(name_of(self.kind, data, cut=cut), -count, -count + self.offset, cut)
            for count, (data, cut), _ in sorted(found)[:most]
        ]

    def kept(self, slot: int) -> tuple[bytes, bool]:
        """What is kept of the value in a slot, and whether it was longer."""
        text = self.texts[slot]
        return text[TEXT_AT : TEXT_AT + int(text[TEXT_LENGTH])].tobytes(), bool(text[TEXT_CUT])

    def __repr__(self) -> str:
        return f"FrequentValues(total={self.total}, used={self.used}, offset={self.offset})"
