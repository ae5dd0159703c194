"""Bytes of sketches: what was written is read back, and nothing else is."""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.sketch.block import Block
from runtime.sketch.categories import CategoryCounts
from runtime.sketch.codec import CHECKSUM, ENVELOPE, MAGIC, Sketch, decode, encode
from runtime.sketch.distinct import DistinctCount
from runtime.sketch.errors import Malformed
from runtime.sketch.exponential import ExponentialHistogram
from runtime.sketch.frequent import FrequentValues
from runtime.sketch.keys import KeyKind, Keys
from runtime.sketch.layout import MOST_COUNTED, BlockShape
from runtime.sketch.moments import Moments


def histogram() -> ExponentialHistogram:
    return ExponentialHistogram.of(np.array([1.0, 300.0, -0.5, 0.0, math.nan, math.inf, 2e-5, 1.0]))


def full() -> ExponentialHistogram:
    made = ExponentialHistogram.of(np.array([1.0]))
    made.heads[0, 0] = MOST_COUNTED + 9
    made.buckets[0, 0, -1] = MOST_COUNTED
    return made


def moments() -> Moments:
    made = Moments()
    made.observe([1.0, 2.0, 4.0], [3.0, math.nan, 1.0])
    return made


def distinct(values: int, lg_k: int) -> DistinctCount:
    made = DistinctCount(lg_k)
    made.observe(np.arange(values))
    return made


def frequent(values: int) -> FrequentValues:
    made = FrequentValues(lg_slots=4)
    made.observe(Keys.of_texts([f"{n % values}" * (n % 70) for n in range(300)]))
    return made


def integers() -> FrequentValues:
    made = FrequentValues(KeyKind.INTEGER, 3)
    made.observe(Keys.of_integers(np.array([1, -1, 5, 5])))
    return made


def categories(*declared: Any) -> CategoryCounts:
    made = CategoryCounts(declared)
    made.observe(Keys.of_texts(["a", "é", "z", None]) if made.kind is KeyKind.TEXT else Keys.of_integers(np.arange(9)))
    return made


def block(lg_k: int, rows: int) -> Block:
    made = Block.create(BlockShape(3, lg_k))
    made.set_range(1, -1, 1)
    made.set_sentinel(2, 7)
    rng = np.random.default_rng(rows)
    made.observe(rng.normal(size=(rows, 3)).round(2), rng.normal(size=rows))
    return made


SKETCHES: dict[str, Sketch] = {
    "empty histogram": ExponentialHistogram(),
    "histogram": histogram(),
    "histogram of extremes": ExponentialHistogram.of(np.array([5e-324, 1.7e308, -5e-324, -1e308])),
    "full histogram": full(),
    "empty moments": Moments(),
    "moments": moments(),
    "empty distinct count": DistinctCount(),
    "sparse distinct count": distinct(20, 8),
    "dense distinct count": distinct(5000, 8),
    "empty frequent values": FrequentValues(),
    "frequent values": frequent(8),
    "frequent values with an offset": frequent(60),
    "frequent integers": integers(),
    "categories": categories("a", "é", "", "\ud800"),
    "integer categories": categories(4, -1, True),
    "block": block(4, 40),
    "block without registers": block(0, 40),
    "empty block": block(4, 0),
}  # fmt: skip
ENCODED = [encode(sketch) for sketch in SKETCHES.values()]


def sealed(body: bytes) -> bytes:
    """With the length and checksum that it ought to have."""
    front = ENVELOPE.unpack_from(body)
    body = ENVELOPE.pack(*front[:3], len(body) - ENVELOPE.size) + body[ENVELOPE.size :]
    return body + CHECKSUM.pack(zlib.crc32(body))


def arrays(sketch: Sketch) -> list[bytes]:
    if isinstance(sketch, Block):
        return [bytes(sketch.memory)]
    if isinstance(sketch, ExponentialHistogram):
        return [sketch.heads.tobytes(), sketch.buckets.tobytes()]
    if isinstance(sketch, Moments):
        return [sketch.row.tobytes()]
    if isinstance(sketch, DistinctCount):
        return [sketch.registers.tobytes()]
    if isinstance(sketch, CategoryCounts):
        return [sketch.counts.tobytes(), repr(sketch.declared).encode()]
    return [sketch.head.tobytes(), repr(sketch.top()).encode()]


@pytest.mark.parametrize("name", SKETCHES)
def test_every_sketch_is_read_back_as_it_was(name: str) -> None:
    data = encode(SKETCHES[name])
    found = decode(data)
    assert type(found) is type(SKETCHES[name])
    if name != "integer categories":  # True is 1 when it is back
        assert arrays(found) == arrays(SKETCHES[name])
    assert encode(found) == data


@given(st.lists(st.lists(st.floats(), max_size=30), min_size=2, max_size=4))
def test_merged_histograms_have_the_bytes_of_the_whole_in_any_order(parts: list[list[float]]) -> None:
    forward, backward = ExponentialHistogram(), ExponentialHistogram()
    for part in parts:
        forward.merge(ExponentialHistogram.of(np.array(part, np.float64)))
    for part in reversed(parts):
        backward.merge(ExponentialHistogram.of(np.array(part, np.float64)))
    whole = ExponentialHistogram.of(np.array([value for part in parts for value in part], np.float64))
    assert encode(forward) == encode(backward) == encode(whole)


def test_a_sketch_read_back_goes_on_counting() -> None:
    whole, found = histogram(), decode(encode(histogram()))
    assert isinstance(found, ExponentialHistogram)
    for each in (whole, found):
        each.observe(np.array([1e-9, 5.0, -70.0]))
    assert encode(whole) == encode(found)
    left, right = frequent(60), decode(encode(frequent(60)))
    assert isinstance(right, FrequentValues)
    right.observe(Keys.of_texts(["new"]))
    assert right.total == left.total + 1


def test_the_bytes_of_a_small_histogram_are_those_of_the_documentation() -> None:
    data = encode(ExponentialHistogram.of(np.array([1.0, 2.0, 2.0, -4.0, 0.0, math.nan])))
    expected = (
        b"DGSK" + struct.pack("<HHI", 1, 1, 1 + 72 + 16 + 33 + 16 + 1)
        + b"\x00" + struct.pack("<9Q", 3, 1, 1, 1, 0, 0, 0, 0, 0)
        + struct.pack("<dd", 1.0, 2.0) + b"\x01" + bytes(31) + b"\x02"
        + struct.pack("<dd", 4.0, 4.0) + b"\x01"
    )  # fmt: skip
    assert data == expected + struct.pack("<I", zlib.crc32(expected))


@pytest.mark.parametrize("data", ENCODED)
def test_bytes_cut_anywhere_or_with_more_behind_are_refused(data: bytes) -> None:
    for end in range(0, len(data), max(1, len(data) // 60)):
        with pytest.raises(Malformed):
            decode(data[:end])
    with pytest.raises(Malformed, match="as said at the front"):
        decode(data + b"\0")
    body = data[: -CHECKSUM.size]
    for end in range(ENVELOPE.size, len(body), max(1, len(body) // 60)):
        with pytest.raises(Malformed):
            decode(sealed(body[:end]))
    with pytest.raises(Malformed, match="to end at byte"):
        decode(sealed(body + b"\0"))


@settings(max_examples=300)
@given(st.sampled_from(ENCODED), st.data())
def test_changed_bytes_are_refused(data: bytes, draw: Any) -> None:
    at = draw.draw(st.integers(0, len(data) - 1))
    changed = bytearray(data)
    changed[at] ^= draw.draw(st.integers(1, 255))
    with pytest.raises(Malformed):
        decode(bytes(changed))


@settings(max_examples=1500)
@given(st.sampled_from(ENCODED), st.data())
def test_changed_bytes_under_a_right_checksum_are_refused_or_read_as_what_they_say(data: bytes, draw: Any) -> None:
    """What is taken has one form only: it is written as it was read, and can be used."""
    body = bytearray(data[: -CHECKSUM.size])
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(ENVELOPE.size - 6, len(body)))
        what = draw.draw(st.integers(0, 2))
        piece = draw.draw(st.one_of(st.binary(max_size=9), st.sampled_from([bytes(8), b"\xff" * 8, b"\x80", b"\x01"])))
        body[at : at + (len(piece) if what == 0 else what - 1)] = piece
    if len(body) < ENVELOPE.size:
        return
    changed = sealed(bytes(body))
    try:
        sketch = decode(changed)
    except Malformed:
        return
    assert encode(sketch) == changed
    use(sketch)


def use(sketch: Sketch) -> None:
    if isinstance(sketch, ExponentialHistogram):
        sketch.observe(np.array([1.0, -1e300]))
        sketch.merge(sketch.copy())
        assert not np.isnan(sketch.quantiles([0, 0.5, 1])).any()
    elif isinstance(sketch, Moments):
        sketch.summary()
    elif isinstance(sketch, DistinctCount):
        assert sketch.estimate() >= 0
    elif isinstance(sketch, FrequentValues):
        sketch.observe(Keys.of_texts(["a"]) if sketch.kind is KeyKind.TEXT else Keys.of_integers(np.array([1])))
        sketch.merge(sketch.copy())
        sketch.top()
    elif isinstance(sketch, CategoryCounts):
        sketch.merge(sketch.copy())
    else:
        sketch.observe(np.ones((3, sketch.shape.features)), np.ones(3))
        sketch.merge(sketch.copy())


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    for each in (data, MAGIC + data):
        with pytest.raises(Malformed):
            decode(each)


def test_a_claim_of_many_features_takes_no_memory() -> None:
    body = ENVELOPE.pack(MAGIC, 1, 6, 0) + struct.pack("<IBQ", 1 << 20, 16, 1)
    with pytest.raises(Malformed, match="more bytes"):
        decode(sealed(body))


def test_another_version_or_kind_is_refused_by_name() -> None:
    data = encode(ExponentialHistogram())[: -CHECKSUM.size]
    with pytest.raises(Malformed, match="version 1 of the format, got 2"):
        decode(sealed(data[:4] + b"\x02" + data[5:]))
    with pytest.raises(Malformed, match="kind of 1 to 7, got 9"):
        decode(sealed(data[:6] + b"\x09" + data[7:]))


def test_what_is_no_sketch_is_not_written() -> None:
    with pytest.raises(TypeError, match="expected a sketch, got dict"):
        encode({})  # type: ignore[arg-type]
