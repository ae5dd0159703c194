"""Patterns of operators, on texts of clients: never slow, never large."""

from __future__ import annotations

import pytest

from runtime.routing.pattern import PATTERN_LIMIT, TEXT_LIMIT, Pattern, PatternError


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("a+", "aaa", True), ("a+", "aaab", False), ("a+", "baaa", False), ("", "", True), ("", "a", False),
        ("a|b", "b", True), ("a|bc", "bc", True), ("(?i)gold", "GoLd", True), (r"\d{3}", "123", True),
        (r"\p{L}+", "größe", True), (".", "ß", True), (".", "\n", False), ("a\0b", "a\0b", True),
    ],
)  # fmt: skip
def test_a_pattern_matches_whole_texts(pattern: str, text: str, matches: bool) -> None:
    assert Pattern(pattern).matches(text) is matches


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", r"missing \)"),
        ("(?=a)", "invalid perl operator"),
        (r"(a)\1", "invalid escape sequence"),
        ("a{1001}", "invalid repetition size"),
        ("a" * (PATTERN_LIMIT + 1), "257 characters; the limit is 256"),
        ("(abc){900}", "instructions; the limit is"),
        ("(((a{100}){100}){100})", "repetition size|too large"),
        ("\ud800", "half a character"),
    ],
)
def test_what_is_wrong_with_a_pattern_is_said(pattern: str, why: str) -> None:
    with pytest.raises(PatternError, match=why):
        Pattern(pattern)


SLOW = ["(a*)*b", "(a|a)*b", "(a|aa)+$b", "(.*)(.*)(.*)(.*)(.*)x", "(.*a){20}", "[ab]*a[ab]{200}", "((a|b)*a){90}"]


@pytest.mark.timeout(60)  # other engines would take years
@pytest.mark.parametrize("pattern", SLOW)
def test_a_pattern_that_stops_other_engines_is_done_with_the_longest_text(pattern: str) -> None:
    compiled = Pattern(pattern)
    text = "ab" * (TEXT_LIMIT // 2 - 1) + "bb"
    compiled.matches("a" * TEXT_LIMIT)
    compiled.matches(text)


def test_a_longer_text_matches_nothing() -> None:
    assert Pattern("a*").matches("a" * TEXT_LIMIT)
    assert not Pattern("a*").matches("a" * (TEXT_LIMIT + 1))
