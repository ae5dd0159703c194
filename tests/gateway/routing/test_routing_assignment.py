"""Which arm has a key: as many keys as its weight says, the same ones everywhere, and few that move."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from gateway.routing.assignment import Assignment, seed_of

MILLION = 1_000_000
KEYS = [b"user-%d" % number for number in range(MILLION)]

WEIGHTS = st.one_of(st.sampled_from([0.0, 1.0, 5.0, 95.0, 1e-6, 1e9]), st.floats(1e-6, 1e9))
SPLITS = st.dictionaries(st.sampled_from("abcdef"), WEIGHTS, min_size=1).filter(lambda split: any(split.values()))


def assigned(split: Mapping[str, float], keys: list[bytes], salt: str = "salt") -> list[str]:
    names = list(split)
    by_key = Assignment(salt, names, list(split.values())).by_key
    return [names[by_key(key)] for key in keys]


def moves(before: list[str], after: list[str]) -> Counter[tuple[str, str]]:
    return Counter(pair for pair in zip(before, after, strict=True) if pair[0] != pair[1])


def within(count: int, share: float, total: int = MILLION) -> bool:
    """Five standard deviations of the binomial distribution."""
    return abs(count - total * share) <= 5 * math.sqrt(total * share * (1 - share))


@pytest.fixture(scope="module")
def five_percent() -> list[str]:
    return assigned({"stable": 95, "canary": 5}, KEYS)


def test_a_million_keys_are_shared_out_by_weight(five_percent: list[str]) -> None:
    assert within(five_percent.count("canary"), 0.05)


def test_from_5_to_20_percent_only_keys_that_the_canary_gains_move(five_percent: list[str]) -> None:
    twenty = assigned({"stable": 80, "canary": 20}, KEYS)
    assert within(twenty.count("canary"), 0.20)
    assert moves(five_percent, twenty) == {("stable", "canary"): twenty.count("canary") - five_percent.count("canary")}


def test_and_back_every_key_is_where_it_was(five_percent: list[str]) -> None:
    assert assigned({"canary": 5, "stable": 95}, KEYS) == five_percent


def test_the_shares_of_many_arms_are_those_of_their_weights() -> None:
    split = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 8.0, "e": 16.0, "none": 0.0}
    counts = Counter(assigned(split, KEYS))
    assert all(within(counts[name], weight / 31) for name, weight in split.items())


def test_an_arm_that_comes_takes_keys_of_all_others_by_their_shares_and_moves_no_others() -> None:
    keys = KEYS[:200_000]
    before, after = assigned({"a": 60, "b": 40}, keys), assigned({"a": 60, "b": 40, "c": 25}, keys)
    moved = moves(before, after)
    assert {to for _, to in moved} == {"c"}
    assert within(moved["a", "c"], 0.6 / 5, len(keys))
    assert within(moved["b", "c"], 0.4 / 5, len(keys))


@pytest.mark.parametrize("kind", ["numbers", "one byte more", "uuids", "little-endian words"])
def test_keys_that_resemble_each_other_are_shared_out_as_if_at_random(kind: str) -> None:
    words = random.Random(7)
    keys = {
        "numbers": [b"%d" % number for number in range(100_000)],
        "one byte more": [b"k" * number for number in range(20_000)],
        "uuids": [words.randbytes(16).hex().encode() for _ in range(100_000)],
        "little-endian words": [number.to_bytes(8, "little") for number in range(100_000)],
    }[kind]
    split = {"a": 5.0, "b": 15.0, "c": 80.0}
    counts = Counter(assigned(split, keys))
    expected = {name: len(keys) * weight / 100 for name, weight in split.items()}
    assert sum((counts[name] - mean) ** 2 / mean for name, mean in expected.items()) < chi2.isf(1e-6, 2)


def test_another_salt_chooses_other_clients_independently() -> None:
    keys = KEYS[:200_000]
    split = {"stable": 80, "canary": 20}
    both = Counter(zip(assigned(split, keys, "one"), assigned(split, keys, "two"), strict=True))
    assert within(both["canary", "canary"], 0.04, len(keys))


@given(SPLITS, SPLITS, st.lists(st.binary(), max_size=50))
def test_a_key_moves_only_to_an_arm_whose_weight_has_grown_beside_that_of_its_own(
    before: dict[str, float], after: dict[str, float], keys: list[bytes]
) -> None:
    for old, new in moves(assigned(before, keys), assigned(after, keys)):
        assert after.get(new, 0) * before[old] > after.get(old, 0) * before.get(new, 0)


@given(SPLITS, st.sampled_from("abcdef"), WEIGHTS, st.lists(st.binary(), max_size=50))
def test_changing_one_weight_moves_keys_to_that_arm_alone_or_from_it_alone(
    before: dict[str, float], name: str, weight: float, keys: list[bytes]
) -> None:
    after = before | {name: weight}
    if not any(after.values()):
        return
    for old, new in moves(assigned(before, keys), assigned(after, keys)):
        assert name == (new if weight > before.get(name, 0) else old)


@given(SPLITS, st.lists(st.binary(), max_size=50), st.randoms())
def test_the_order_in_which_arms_are_written_moves_nothing(
    split: dict[str, float], keys: list[bytes], shuffle: random.Random
) -> None:
    names = list(split)
    shuffle.shuffle(names)
    assert assigned({name: split[name] for name in names}, keys) == assigned(split, keys)


@given(SPLITS, st.floats(0, 1, exclude_max=True))
def test_a_point_lies_in_the_interval_of_its_arm_which_is_as_long_as_its_share(
    split: dict[str, float], point: float
) -> None:
    assignment = Assignment("", list(split), list(split.values()))
    arm = assignment.drawn(point)
    begin, end = assignment.interval(arm)
    assert begin <= point < end
    assert assignment.shares[arm] > 0
    assert end - begin == pytest.approx(assignment.shares[arm], abs=1e-9)


def test_the_hash_is_what_the_page_says() -> None:
    """These numbers never change: they decide which clients see which version, across restarts and releases."""
    assert seed_of("model", "canary") == SEED
    figures: dict[int, tuple[int, float]] = {}
    assert Assignment("model", ["stable", "canary"], [95, 5]).by_key(b"user-1", figures) == 0
    assert {arm: hashed for arm, (hashed, _) in figures.items()} == HASHES


SEED = 0x337FC6C8511F77CC
HASHES = {0: 0x9529D47E0A7FE1C7, 1: 0x87DB5B3D99F16AFD}

PROCESS = """
import json, sys
from runtime.routing.document import parse_route
from gateway.routing.router import Router
router = Router("model", parse_route(sys.argv[1]))
print(json.dumps([router.decide("", [("x-user", f"user-{n}")]).variant for n in range(20_000)]))
"""
ROUTE = "sticky: {metadata: x-user}\nsplit: {stable: 70, canary: 20, c: 10}"


def test_every_process_gives_every_key_the_same_variant() -> None:
    """Two processes with other seeds of Python's own hash, started anew: workers, replicas, restarts."""
    answers = []
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", PROCESS, ROUTE], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout))
    here = assigned({"stable": 70, "canary": 20, "c": 10}, KEYS[:20_000], salt="model")
    assert answers == [here, here]
