"""Bytes of comparisons: what was written is read back, and nothing else is."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shadow_samples import KEY, iris_comparison

from runtime.shadow.codec import FRONT, LENGTH, MAGIC, VERSION
from runtime.shadow.comparison import PairComparison
from runtime.shadow.pair import PairSettings
from runtime.sketch.errors import Malformed

DATA = iris_comparison(inputs=True).to_bytes()


def sealed(body: bytes) -> bytes:
    return body + LENGTH.pack(zlib.crc32(body))


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The same with other JSON, and a checksum that is right."""
    _, _, size = FRONT.unpack_from(DATA)
    document = json.loads(DATA[FRONT.size : FRONT.size + size])
    change(document)
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    return sealed(FRONT.pack(MAGIC, VERSION, len(text)) + text + DATA[FRONT.size + size : -LENGTH.size])


@pytest.mark.parametrize("made", [iris_comparison(), iris_comparison(inputs=True), PairComparison(KEY, PairSettings())])
def test_what_is_written_is_read_back(made: PairComparison) -> None:
    read = PairComparison.from_bytes(made.to_bytes())
    assert read.to_bytes() == made.to_bytes()
    assert read.key == made.key
    assert list(read.disagreements) == list(made.disagreements)
    assert read.shed_requests == made.shed_requests


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(at: int, by: int) -> None:
    damaged = bytearray(DATA)
    damaged[at] ^= by
    with pytest.raises(Malformed):
        PairComparison.from_bytes(bytes(damaged))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    for each in (data, sealed(FRONT.pack(MAGIC, VERSION, len(data)) + data), DATA + data + b"x"):
        with pytest.raises(Malformed):
            PairComparison.from_bytes(each)


@given(st.integers(0, len(DATA) - 1))
def test_a_part_is_refused(size: int) -> None:
    with pytest.raises(Malformed):
        PairComparison.from_bytes(DATA[:size])
    with pytest.raises(Malformed):
        PairComparison.from_bytes(sealed(DATA[:size]))


def test_another_version_is_named() -> None:
    with pytest.raises(Malformed, match="expected version 1 of the format, got 2"):
        PairComparison.from_bytes(sealed(FRONT.pack(MAGIC, 2, 0)))


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(compared=-1),
        lambda document: document.update(compared=1.0),
        lambda document: document.update(compared=True),
        lambda document: document.update(most=1_001),
        lambda document: document.update(most=1),
        lambda document: document.update(worst=[[1]]),
        lambda document: document.update(extra=1),
        lambda document: document.pop("sheds"),
        lambda document: document["sheds"].update(bored=1),
        lambda document: document["key"].update(model=None, extra=2),
        lambda document: document["outputs"]["label"].update(rows="5"),
        lambda document: document["outputs"]["label"].update(differs=True),
        lambda document: document["outputs"]["label"].update(confusion=[[True, "a"]]),
        lambda document: document["outputs"].pop("probabilities"),
        lambda document: document.update(failure=None),
        lambda document: document.update(tolerances=[[1]]),
    ],
)
def test_json_that_no_comparison_has_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(Malformed):
        PairComparison.from_bytes(changed(change))


def test_the_changed_bytes_are_read_where_nothing_was_changed() -> None:
    assert PairComparison.from_bytes(changed(lambda _: None)).to_bytes() == DATA
