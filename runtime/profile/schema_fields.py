"""Which values the fields of a stored schema may hold: what is read may come from anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


def _is_count(value: Any) -> bool:
    return type(value) is int and -1 <= value < 1 << 31


def _are(kind: type, value: Any) -> bool:
    return isinstance(value, tuple) and all(type(item) is kind for item in value)


def _is_number(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and math.isfinite(value))


_VALID: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("name", "tensor", "datatype"), lambda value: isinstance(value, str)),
    **dict.fromkeys(("width", "column", "rows"), _is_count),
    **dict.fromkeys(("lg_k", "lg_slots"), lambda value: type(value) is int and 0 <= value <= 16),
    **dict.fromkeys(("each", "counted", "texts"), lambda value: isinstance(value, bool)),
    **dict.fromkeys(("missing", "reject_below"), _is_number),
    **dict.fromkeys(("names", "classes", "notes"), lambda value: _are(str, value)),
    "role": lambda value: value in ("input", "output"),
    "columns": lambda value: value is None or _are(int, value),
    "declared": lambda value: bool(value) and (_are(str, value) or _are(int, value)),
    "limits": lambda value: all(len(limits) == 3 and all(map(_is_number, limits)) for limits in value.values()),
}


def check_field(name: str, value: Any) -> None:
    """Raises ValueError for a value that the field never has."""
    if name in _VALID and not _VALID[name](value):
        raise ValueError(f"{name} is {value!r}"[:200])
