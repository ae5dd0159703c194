"""Frequent values and counts of categories as bytes.

    frequent values
    ┌─────────┬─────────────┬───────────┬────────────┬─────────────┐
    │ kind u8 │ lg_slots u8 │ total u64 │ offset u64 │ entries u32 │
    └─────────┴─────────────┴───────────┴────────────┴─────────────┘
    then each, by ascending hash
    ┌──────────┬───────────┬───────────┬────────┬───────┐
    │ hash u64 │ count u64 │ length u8 │ cut u8 │ bytes │
    └──────────┴───────────┴───────────┴────────┴───────┘
    categories
    ┌─────────┬────────────────┐  then each            ┌────────────┬───────┐  then the counts, other, missing:
    │ kind u8 │ categories u16 │  as declared:         │ length u32 │ bytes │  u64[categories + 2]
    └─────────┴────────────────┘                       └────────────┴───────┘
kind: 0 texts, 1 integers (8 bytes each).
"""

from __future__ import annotations

import struct

import numpy as np

from runtime.sketch.categories import MAX_CATEGORIES, CategoryCounts
from runtime.sketch.codec_numbers import MOST_IN_COUNTER
from runtime.sketch.codec_reader import Reader, require
from runtime.sketch.errors import Malformed
from runtime.sketch.frequent import GREATEST_LG_SLOTS, LEAST_LG_SLOTS, FrequentValues, most_used
from runtime.sketch.keys import KeyKind, Keys, name_of
from runtime.sketch.keys_kernels import (
    MOST_TEXT_BYTES,
    OFFSET,
    TEXT_AT,
    TEXT_CUT,
    TEXT_LENGTH,
    TOTAL,
    USED,
)

FREQUENT = struct.Struct("<BBQQI")
ENTRY = struct.Struct("<QQBB")
CATEGORIES = struct.Struct("<BH")
NAME = struct.Struct("<I")
INTEGER_BYTES = 8


def write_frequent(values: FrequentValues) -> bytes:
    slots = np.flatnonzero(values.counts)
    slots = slots[np.argsort(values.hashes[slots])]
    parts = [FREQUENT.pack(values.kind, values.lg_slots, values.total, values.offset, len(slots))]
    for slot in slots.tolist():
        data, cut = values.kept(slot)
        parts += [ENTRY.pack(int(values.hashes[slot]), int(values.counts[slot]), len(data), cut), data]
    return b"".join(parts)


def read_frequent(reader: Reader) -> FrequentValues:
    kind, lg_slots, total, offset, entries = reader.fields(FREQUENT)
    require(kind in (KeyKind.TEXT, KeyKind.INTEGER), f"a kind of 0 or 1, got {kind}")
    require(LEAST_LG_SLOTS <= lg_slots <= GREATEST_LG_SLOTS, f"3 to 16 as lg_slots, got {lg_slots}")
    require(entries <= most_used(lg_slots), f"{most_used(lg_slots)} entries or less, got {entries}")
    require(total <= MOST_IN_COUNTER, f"a total of {MOST_IN_COUNTER} or less, got {total}")
    values = FrequentValues(KeyKind(kind), lg_slots)
    last, counted = -1, 0
    for _ in range(entries):
        hashed, count, length, cut = reader.fields(ENTRY)
        require(hashed > last, "entries by ascending hash")
        require(count, "no entry that counts nothing")
        _read_entry(values, hashed, count, cut, reader.take(length))
        last, counted = hashed, counted + count
    taken = offset * ((1 << lg_slots) // 2 + 1)
    require(counted + taken <= total, f"counts and what was taken from them within the total of {total}")
    require(offset or counted == total, f"counts that add up to the total of {total}, got {counted}")
    values.head[TOTAL], values.head[OFFSET], values.head[USED] = total, offset, entries
    return values


def _read_entry(values: FrequentValues, hashed: int, count: int, cut: int, data: bytes) -> None:
    require(cut in (0, 1), f"0 or 1 for cut, got {cut}")
    require(len(data) <= MOST_TEXT_BYTES, f"{MOST_TEXT_BYTES} bytes of a value or less, got {len(data)}")
    require(count <= MOST_IN_COUNTER, f"counts of {MOST_IN_COUNTER} or less, got {count}")
    if cut:
        require(values.kind is KeyKind.TEXT and len(data) == MOST_TEXT_BYTES, "only long texts cut, and at their limit")
    else:
        if values.kind is KeyKind.INTEGER:
            require(len(data) == INTEGER_BYTES, f"{INTEGER_BYTES} bytes of an integer, got {len(data)}")
        require(int(Keys.of_texts([data]).hashes[0]) == hashed, "the hash of the value beside it")
    slot = hashed % len(values.counts)
    while values.counts[slot]:
        slot = (slot + 1) % len(values.counts)
    values.hashes[slot], values.counts[slot] = hashed, count
    values.texts[slot, TEXT_LENGTH], values.texts[slot, TEXT_CUT] = len(data), cut
    values.texts[slot, TEXT_AT : TEXT_AT + len(data)] = np.frombuffer(data, np.uint8)


def write_categories(counts: CategoryCounts) -> bytes:
    parts = [CATEGORIES.pack(counts.kind, len(counts.declared))]
    for name in counts.declared:
        data = (
            name.encode("utf-8", "surrogatepass") if isinstance(name, str) else name.to_bytes(8, "little", signed=True)
        )
        parts += [NAME.pack(len(data)), data]
    return b"".join([*parts, counts.counts.astype("<i8").tobytes()])


def read_categories(reader: Reader) -> CategoryCounts:
    kind, count = reader.fields(CATEGORIES)
    require(kind in (KeyKind.TEXT, KeyKind.INTEGER), f"a kind of 0 or 1, got {kind}")
    require(1 <= count <= MAX_CATEGORIES, f"1 to {MAX_CATEGORIES} categories, got {count}")
    names = [_read_name(reader, KeyKind(kind)) for _ in range(count)]
    require(len(set(names)) == count, "categories that differ")
    counts = CategoryCounts(names)  # type: ignore[arg-type]  # all of one type
    counts.counts[:] = np.frombuffer(reader.take(8 * (count + 2)), "<i8")
    require(((counts.counts >= 0) & (counts.counts <= MOST_IN_COUNTER)).all(), "counts that are not negative")
    return counts


def _read_name(reader: Reader, kind: KeyKind) -> str | int:
    (length,) = reader.fields(NAME)
    data = reader.take(length)
    if kind is KeyKind.INTEGER:
        require(length == INTEGER_BYTES, f"{INTEGER_BYTES} bytes of an integer, got {length}")
        return name_of(kind, data)
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise Malformed(f"expected UTF-8 in the name of a category, got {data!r}") from error
