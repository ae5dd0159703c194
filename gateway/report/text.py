"""Numbers, shares, times and names as people read them. Pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime, tzinfo

from google.protobuf.timestamp_pb2 import Timestamp

NOTHING = "–"
NAME_CHARACTERS = 120
"""Longer names are cut where they are shown: of ten thousand characters nobody reads more."""

LEAST_P = 1e-12
"""Tails are not right further out, and nobody is more certain for it."""


def clean(text: str, limit: int = NAME_CHARACTERS) -> str:
    """On one line, at most `limit` characters; controls and marks that turn the direction of text are spelled out."""
    words = " ".join(text.split())
    if len(words) > limit:
        words = words[: limit - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in words)


def number(value: float | None, digits: int = 4) -> str:
    """0.012345 → "0.01235", 1234567 → "1,234,567", 1.2e12 → "1.2e+12"; the sign of NaN and None is "–"."""
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    if 1e-4 <= abs(value) < 10 ** max(digits, 7):
        decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
        text = f"{value:,.{decimals}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, _, exponent = f"{value:.{digits - 2}e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{exponent[0]}{exponent[1:].lstrip('0')}"


def share(part: float, whole: float) -> str:
    """3 of 4 → "75 %"; what rounds to nothing and is not says so."""
    if not whole:
        return NOTHING
    percent = 100 * part / whole
    if 0 < percent < 0.01:
        return "< 0.01 %"
    return f"{number(percent, 3 if percent < 99.95 or part == whole else 4)} %"


def p_value(p: float) -> str:
    return f"< {LEAST_P:.0e}" if p < LEAST_P else number(p, 2 if p < 0.995 else 1)


def age(seconds: float) -> str:
    """4,800 → "1 h 20 min"."""
    whole = max(round(seconds), 0)
    for unit, size, lesser, lesser_size in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            many, rest = divmod(whole, size)
            return f"{many} {unit}" + (f" {rest // lesser_size} {lesser}" if rest // lesser_size and many < 10 else "")
    return f"{whole} s"


def window_name(seconds: float) -> str:
    """600 → "10 min"."""
    return age(seconds)


def at(timestamp: Timestamp, zone: tzinfo | None = UTC) -> datetime:
    """`zone` None: local time."""
    return timestamp.ToDatetime(tzinfo=UTC).astimezone(zone)


def moment(timestamp: Timestamp, zone: tzinfo | None = UTC) -> str:
    """As "2025-06-15 15:06 UTC"."""
    return at(timestamp, zone).strftime("%Y-%m-%d %H:%M %Z")


def seconds_of(timestamp: Timestamp) -> float:
    return timestamp.ToNanoseconds() / 1e9


def listed(names: list[str], most: int = 3) -> str:
    """As "a, b and c"; beyond `most`, "a, b, c and 4 more"."""
    shown = names[:most]
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def counted(count: int, noun: str, plural: str = "") -> str:
    """1, "row" → "1 row"; 3,000 → "3,000 rows"."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
