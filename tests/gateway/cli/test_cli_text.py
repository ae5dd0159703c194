"""Values as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.text import byte_count, one_line, seconds, short_digest


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (1024**3, "1.0 GiB"),
        (3 * 1024**4, "3.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
        (-2048, "-2.0 KiB"),
    ],
)
def test_bytes_are_shown_in_the_unit_that_keeps_them_short(count: int, shown: str) -> None:
    assert byte_count(count) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 ms"),
        (0.0123, "12 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (83, "1 min 23 s"),
        (3600, "60 min 0 s"),
    ],
)
def test_durations_are_shown_in_the_unit_that_keeps_them_short(value: float, shown: str) -> None:
    assert seconds(value) == shown


@pytest.mark.parametrize(
    ("digest", "shown"), [("sha256:" + "ab" * 32, "ab" * 6), ("", "-"), ("sha256:", "-"), ("abc", "abc")]
)
def test_a_short_digest_is_its_first_twelve_digits(digest: str, shown: str) -> None:
    assert short_digest(digest) == shown


@given(st.text())
def test_any_text_becomes_one_harmless_line(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert one_line(line) == line


def test_readable_text_of_any_language_stays_as_it_is() -> None:
    assert one_line("modèle 模型 → «ok»") == "modèle 模型 → «ok»"
