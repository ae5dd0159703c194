"""Frozen values to JSON and back, without loss: one text for one value."""

from __future__ import annotations

import json
from collections.abc import Hashable
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def encode(value: Any) -> str:
    plain = _adapter(type(value)).dump_python(value, mode="json")
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def decode(kind: type[T], text: str) -> T:
    """Raises ValueError for what is no such value."""
    value: T = _adapter(kind).validate_python(json.loads(text))
    return value
