"""Counts of named values lie within the stated bounds, however they are merged; declared ones are exact."""

from __future__ import annotations

import struct
from collections import Counter

import datasketches
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch_samples import SEEDS

from runtime.sketch.categories import MAX_CATEGORIES, CategoryCounts
from runtime.sketch.errors import BadValues, Malformed, NotMergeable
from runtime.sketch.frequent import FrequentValues, frequent_bytes, most_used
from runtime.sketch.keys import KeyKind, Keys, name_of

MASK = (1 << 64) - 1


def murmur(data: bytes) -> int:
    """MurmurHash64A as its author wrote it, seed 0."""
    m, r = 0xC6A4A7935BD1E995, 47
    h = len(data) * m & MASK
    whole = len(data) // 8 * 8
    for (k,) in struct.iter_unpack("<Q", data[:whole]):
        k = k * m & MASK  # noqa: PLW2901
        k ^= k >> r  # noqa: PLW2901
        h = (h ^ (k * m & MASK)) * m & MASK
    if len(data) > whole:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & MASK
    h ^= h >> r
    h = h * m & MASK
    return h ^ (h >> r)


def of(texts: list[str], lg_slots: int = 4) -> FrequentValues:
    values = FrequentValues(lg_slots=lg_slots)
    values.observe(Keys.of_texts(texts))
    return values


def check(values: FrequentValues, exact: Counter[str]) -> None:
    total = sum(exact.values())
    capacity = (1 << values.lg_slots) // 2
    found = {each.value: each for each in values.top()}
    counted = sum(each.at_least for each in found.values())
    assert values.total == total
    assert values.used == len(found) <= most_used(values.lg_slots)
    assert values.offset * (capacity + 1) <= total - counted
    for value, each in found.items():
        assert each.at_least <= exact[str(value)] <= each.at_most
    for value, count in exact.items():
        if count * (capacity + 1) > total:
            assert value in found
        if value not in found:
            assert count <= values.offset


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_hashes_are_those_of_murmur(texts: list[bytes]) -> None:
    assert Keys.of_texts(texts).hashes.tolist() == [murmur(text) for text in texts]


@settings(max_examples=80)
@given(st.lists(st.lists(st.integers(0, 60), max_size=120), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_bounds_hold_for_any_tree_of_merges(parts: list[list[int]], random: object) -> None:
    exact = Counter(str(value) for part in parts for value in part)
    forest = [of([str(value) for value in part]) for part in parts]
    while len(forest) > 1:
        left = forest.pop(random.randrange(len(forest)))  # type: ignore[attr-defined]
        left.merge(forest.pop(random.randrange(len(forest))))  # type: ignore[attr-defined]
        forest.append(left)
    check(forest[0], exact)


@pytest.mark.parametrize("exponent", [1.1, 1.5, 3.0])
def test_the_frequent_values_of_a_skewed_sample_are_those_that_datasketches_finds(exponent: float) -> None:
    for seed in SEEDS:
        names = [f"name {n}" for n in np.random.default_rng(seed).zipf(exponent, 5000).tolist()]
        exact = Counter(names)
        ours = FrequentValues()
        for part in np.array_split(np.array(names, object), 9):
            ours.observe(Keys.of_texts(part))
        check(ours, exact)
        peer = datasketches.frequent_strings_sketch(8)
        for name in names:
            peer.update(name)
        certain = peer.get_frequent_items(datasketches.frequent_items_error_type.NO_FALSE_POSITIVES)
        found = {each.value: each for each in ours.top()}
        for name, _, lower, upper in certain:
            if lower > len(names) / 129:  # above our bound, so it must be here, with a range that meets the peer's
                assert found[name].at_least <= upper
                assert found[name].at_most >= lower


def test_few_values_are_counted_exactly_and_sorted_by_count_then_name() -> None:
    values = of(["b", "a", "c", "a", "b", "é" * 100])
    assert [(each.value, each.at_least, each.at_most, each.cut) for each in values.top(3)] == [
        ("a", 2, 2, False), ("b", 2, 2, False), ("c", 1, 1, False),
    ]  # fmt: skip
    assert values.top()[-1].cut
    assert values.top()[-1].value == "é" * 31
    assert "total=6, used=4, offset=0" in repr(values)


def test_a_text_that_is_cut_ends_with_a_whole_character() -> None:
    for end in ("é", "€", "🙂"):
        for before in range(58, 63):
            (kept,) = of(["a" * before + end * 5]).top()
            assert kept.cut
            assert str(kept.value).rstrip(end) == "a" * before
    assert name_of(KeyKind.TEXT, b"\xff\xfe") == "\ufffd\ufffd"
    assert name_of(KeyKind.TEXT, b"ab\xc3") == "ab\ufffd"


def test_long_texts_with_the_same_beginning_are_told_apart() -> None:
    values = of(["x" * 100 + "1", "x" * 100 + "2"])
    assert [(each.value, each.at_least) for each in values.top()] == [("x" * 62, 1), ("x" * 62, 1)]


def test_integers_are_counted_by_value() -> None:
    values = FrequentValues(KeyKind.INTEGER)
    for dtype in (np.int8, np.int64):
        values.observe(Keys.of_integers(np.array([-1, 5, 5], dtype)))
    assert {each.value: each.at_least for each in values.top()} == {5: 4, -1: 2}
    values.observe(Keys.of_integers(np.array([True])))
    assert values.top()[-1].value == 1


def test_a_sketch_merged_with_itself_has_seen_everything_twice() -> None:
    values = of(["a", "a", "b"])
    values.merge(values)
    assert [(each.value, each.at_least) for each in values.top()] == [("a", 4), ("b", 2)]
    assert values.total == 6


def test_keys_take_arrays_of_texts_bytes_and_objects_and_pass_over_none() -> None:
    expected = Keys.of_texts(["a", "bc", ""]).hashes.tolist()
    for texts in (
        np.array(["a", "bc", ""]),
        np.array([b"a", b"bc", b""]),
        np.array([["a", "bc", "", None]], object),
        [b"a", "bc", ""],
    ):
        assert Keys.of_texts(texts).hashes.tolist() == expected
    keys = Keys.of_texts([None, "a", None])
    assert (len(keys), keys.missing) == (1, 2)
    assert len(Keys.of_texts([])) == 0


@pytest.mark.parametrize("texts", [[1], [1.5, "a"], [["a"]]])
def test_what_is_no_text_is_refused(texts: list[object]) -> None:
    with pytest.raises(BadValues, match="texts, bytes or None"):
        Keys.of_texts(texts)  # type: ignore[arg-type]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(BadValues, match="got float64"):
        Keys.of_integers(np.zeros(2))
    with pytest.raises(BadValues, match="kind TEXT, got INTEGER"):
        of([]).observe(Keys.of_integers(np.array([1])))
    with pytest.raises(NotMergeable, match="lg_slots 4"):
        of([]).merge(FrequentValues())
    with pytest.raises(ValueError, match="3 to 16"):
        FrequentValues(lg_slots=2)
    with pytest.raises(Malformed, match=f"expected {frequent_bytes(8)} bytes"):
        FrequentValues(buffer=bytearray(10))


@given(st.lists(st.lists(st.sampled_from(["red", "green", "blue", "new", None]), max_size=30), max_size=5))
def test_declared_categories_are_counted_exactly_over_any_merges(parts: list[list[str | None]]) -> None:
    whole = CategoryCounts(["red", "green", "blue"])
    for part in parts:
        one = CategoryCounts(["red", "green", "blue"])
        one.observe(Keys.of_texts(part))
        whole.merge(one)
    exact = Counter(value for part in parts for value in part)
    assert whole.by_category() == {name: exact[name] for name in ("red", "green", "blue")}
    assert (whole.other, whole.missing) == (exact["new"], exact[None])
    assert whole.copy().counts.tolist() == whole.counts.tolist()


def test_integer_categories_and_booleans_are_counted() -> None:
    counts = CategoryCounts([0, 1, -7])
    counts.observe(Keys.of_integers(np.array([0, 1, 1, -7, 9])))
    counts.observe(Keys.of_integers(np.array([True, False])))
    assert (counts.by_category(), counts.other) == ({0: 2, 1: 3, -7: 1}, 1)
    assert repr(counts) == "CategoryCounts({0: 2, 1: 3, -7: 1}, other=1, missing=0)"


@pytest.mark.parametrize(
    "declared", [[], ["a", "a"], ["a", 1], [1 << 63], [1.5], [str(n) for n in range(MAX_CATEGORIES + 1)]]
)
def test_declarations_that_mean_nothing_are_refused(declared: list[str]) -> None:
    with pytest.raises(ValueError, match="expected"):
        CategoryCounts(declared)


def test_categories_refuse_other_kinds_other_declarations_and_small_buffers() -> None:
    counts = CategoryCounts(["a"])
    with pytest.raises(BadValues, match="kind TEXT"):
        counts.observe(Keys.of_integers(np.array([1])))
    with pytest.raises(NotMergeable, match="different categories"):
        counts.merge(CategoryCounts(["b"]))
    with pytest.raises(Malformed, match="expected 24 bytes"):
        CategoryCounts(["a"], bytearray(8))
