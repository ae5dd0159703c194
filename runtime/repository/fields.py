"""How settings in model.yaml are declared: each with its default, what is expected of it, and its meaning."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def option(default: Any, expected: str, meaning: str, **limits: Any) -> Any:
    """A field whose refusal reads "expected `expected`"; `items` in `limits` says the same of its entries."""
    extra = {"expected": expected, "items": limits.pop("items", expected), "keys": limits.pop("keys", "a text")}
    return Field(default, description=meaning, json_schema_extra=extra, **limits)


def integer(default: int | None, low: int, high: int, meaning: str) -> Any:
    return option(default, f"an integer {low}..{high}", meaning, ge=low, le=high)


def section(kind: type[BaseModel], meaning: str) -> Any:
    return Field(default_factory=kind, description=meaning, json_schema_extra={"expected": "a mapping"})


def null_as_empty(value: Any) -> Any:
    """A section whose lines are all commented out is null to YAML."""
    return {} if value is None else value


def as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
