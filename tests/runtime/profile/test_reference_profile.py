"""A profile keeps what it was given, as bytes that say when they are something else."""

from __future__ import annotations

import hashlib
import math
import re
import struct
import tracemalloc
import zlib
from functools import cache

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from profile_models import NAMES, summary_of

from runtime.profile.reference import HEAD, MAX_BODY_BYTES, MAX_LABELS, VERSION, Profile
from runtime.sketch.errors import Malformed

ABOUT = {"data": "train.parquet", "version_digest": "sha256:" + "0" * 64, "parameter.depth": "3 ⇒ ∞"}
LABELS = {"yes": 3, "no": 10, "": 1}


def profile_of(name: str = "mlp") -> Profile:
    return Profile.of_data(summary_of(name), ABOUT, 1_700_000_000.5, LABELS)


@cache
def written() -> bytes:
    return profile_of().encode()


def sealed(body: bytes, *, kind: int = 0, rows: int = 7, size: int | None = None, packed: bytes | None = None) -> bytes:
    """A profile with this body and a checksum that fits."""
    head = HEAD.pack(b"DGPR", VERSION, kind, 1.0, rows, len(body) if size is None else size)
    data = head + (zlib.compress(body) if packed is None else packed)
    return data + struct.pack("<I", zlib.crc32(data))


def body_of(data: bytes) -> bytes:
    return zlib.decompress(data[HEAD.size : -4])


@pytest.mark.parametrize("name", NAMES)
def test_it_is_read_as_it_was_written(name: str) -> None:
    made = profile_of(name)
    read = Profile.decode(made.encode())
    assert (read.kind, read.rows, read.created_at_seconds) == ("profile", made.rows, 1_700_000_000.5)
    assert (read.about, read.labels) == (ABOUT, LABELS)
    assert read.schema == made.schema
    assert read.summary.encode() == made.summary.encode()
    assert read.encode() == made.encode()
    assert read.same_but_time(made)


def test_its_digest_is_that_of_its_bytes_and_it_names_the_version_it_was_made_with() -> None:
    made = profile_of()
    assert made.digest == "sha256:" + hashlib.sha256(made.encode()).hexdigest() == Profile.decode(made.encode()).digest
    assert made.version_digest == ABOUT["version_digest"]
    assert Profile.of_live(summary_of("mlp"), {}, 0.0).version_digest == ""


def test_the_first_live_rows_are_a_profile_too() -> None:
    live = Profile.of_live(summary_of("mlp"), {"model": "mlp"}, 5.0)
    read = Profile.decode(live.encode())
    assert (read.kind, read.rows, read.labels) == ("live", 7, {})
    assert not read.same_but_time(profile_of())


def test_made_at_another_time_it_says_the_same_with_another_digest() -> None:
    one, other = (Profile.of_data(summary_of("mlp"), ABOUT, at, LABELS) for at in (1.0, 2.0))
    assert one.same_but_time(other)
    assert one.digest != other.digest


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"about": {"a": "x" * 5000}}, "texts of 4096 characters"),
        ({"about": {str(at): "" for at in range(300)}}, "256 facts"),
        ({"labels": {str(at): 1 for at in range(MAX_LABELS + 1)}}, "labels or less"),
        ({"labels": {"a": -1}}, "counts of 0 or more"),
        ({"created_at_seconds": math.nan}, "a time"),
        ({"rows": -1}, "rows of 0 or more"),
        ({"kind": "guess"}, "a kind of profile or live"),
    ],
    ids=str,
)
def test_what_could_not_be_read_again_is_refused(change: dict[str, object], complaint: str) -> None:
    made = profile_of()
    fields = {"about": {}, "created_at_seconds": 0.0, "kind": "profile", "rows": 7, "labels": {}}
    with pytest.raises(Malformed, match=complaint):
        Profile(schema=made.schema, summary=made.summary, **(fields | change))


@given(st.binary(max_size=200))
def test_any_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        Profile.decode(data)
    with pytest.raises(Malformed):
        Profile.decode(b"DGPR" + data)


@given(st.integers(0, 10**9), st.integers(1, 255))
def test_a_changed_byte_is_malformed(place: int, change: int) -> None:
    data = bytearray(written())
    data[place % len(data)] ^= change
    with pytest.raises(Malformed):
        Profile.decode(bytes(data))


@given(st.integers(0, 10**9))
def test_a_part_is_malformed(length: int) -> None:
    with pytest.raises(Malformed):
        Profile.decode(written()[: length % len(written())])
    with pytest.raises(Malformed):
        Profile.decode(written() + b"\0")


@given(st.data())
@effort(max_examples=300)
def test_a_body_that_was_changed_and_sealed_anew_is_malformed_or_can_be_used(data: st.DataObject) -> None:
    body = bytearray(body_of(written()))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
    try:
        read = Profile.decode(sealed(bytes(body)))
    except Malformed:
        return
    assert read.summary.copy().encode() == read.summary.encode()


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"about":{},"labels":[]}', b"[" * 100_000, b"\xff"])
def test_facts_that_are_none_are_malformed(text: bytes) -> None:
    body = body_of(written())
    schema_bytes = struct.unpack_from("<I", body)[0]
    summary_bytes = struct.unpack_from("<I", body, 4 + schema_bytes)[0]
    with pytest.raises(Malformed):
        Profile.decode(sealed(body[: 8 + schema_bytes + summary_bytes] + struct.pack("<I", len(text)) + text))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "bytes, got 0"),
        (b"PAR1" + bytes(60), "begins with b'DGPR'"),
        (b"DGPR" + struct.pack("<H", 9) + bytes(60), "of version 1, got 9"),
        (sealed(b"x", kind=7), "a kind of 0 or 1"),
        (sealed(b"x", size=MAX_BODY_BYTES + 1), "or less, got"),
        (sealed(b"abcd", size=3), "of 3 bytes"),
        (sealed(b"abcd", size=5), "of 5 bytes"),
        (sealed(b"", packed=b"no zlib"), "decompressed"),
        (sealed(b"ab", packed=zlib.compress(b"ab") + b"more"), "of 2 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_says_what_is_wrong(data: bytes, complaint: str) -> None:
    with pytest.raises(Malformed, match=complaint):
        Profile.decode(data)


def test_rows_that_are_not_the_summarys_are_malformed() -> None:
    with pytest.raises(Malformed, match="a summary of 8 rows, got 7"):
        Profile.decode(sealed(body_of(written()), rows=8))


def test_few_bytes_that_stand_for_very_many_take_little_memory() -> None:
    """A body says how long it is, and no more is ever decompressed; a schema says how large a summary is."""
    bomb = sealed(b"", size=1000, packed=zlib.compress(bytes(200_000_000)))
    huge = written_with_schema(rows=1 << 30)
    tracemalloc.start()
    try:
        for data in (bomb, huge):
            with pytest.raises(Malformed):
                Profile.decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


def written_with_schema(rows: int) -> bytes:
    """With a schema whose sample of rows is of so many."""
    body = body_of(written())
    schema_bytes = struct.unpack_from("<I", body)[0]
    text, changes = re.subn(rb'"rows":\d+', b'"rows":%d' % rows, body[4 : 4 + schema_bytes])
    assert changes == 1
    return sealed(struct.pack("<I", len(text)) + text + body[4 + schema_bytes :])
