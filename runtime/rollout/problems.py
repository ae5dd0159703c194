"""What is wrong with a plan, as lines for its author: path, what is expected, what came."""

from __future__ import annotations

import difflib
import typing
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from runtime.repository.document import describe

PROBLEMS_LIMIT = 100  # in one message


class PlanError(ValueError):
    """A plan with problems; `problems`: one line each, "path: what is expected, what came"."""

    def __init__(self, problems: list[str]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"the plan has {count}:\n" + "\n".join(f"  {line}" for line in problems[:PROBLEMS_LIMIT]))
        self.problems = tuple(problems)


def explained(error: ValidationError, root: type[BaseModel]) -> list[str]:
    return [_line(dict(item), root) for item in error.errors(include_url=False)]


def _line(item: dict[str, Any], root: type[BaseModel]) -> str:
    location, path = item["loc"], _path(item["loc"])
    if item["type"] == "value_error":
        return f"{path}: {item['ctx']['error']}"
    section, field = _find(location, root)
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(location[-1])[:100], section.model_fields, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        return f"{path}: unknown key; {hint}known keys are {', '.join(section.model_fields)}"
    texts = field.json_schema_extra if field is not None else None
    expected = texts["expected"] if isinstance(texts, dict) else "a mapping"
    if item["type"] == "missing":
        return f"{path}: missing; expected {expected}"
    return f"{path}: expected {expected}, got {describe(item['input'])}"


def _find(location: tuple[int | str, ...], root: type[BaseModel]) -> tuple[type[BaseModel], FieldInfo | None]:
    """(the section that `location` leads into, its field)."""
    section, field = root, None
    for part in location:
        if isinstance(part, int):
            continue
        if field is not None:
            section = _section_of(field.annotation) or section
        field = section.model_fields.get(part)
        if field is None:
            break
    if location and isinstance(location[-1], int) and field is not None and _section_of(field.annotation):
        return section, None  # an entry of a list that is no mapping
    return section, field


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := _section_of(part))), None)


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else ("." if path else "") + part[:100]
    return path or "the plan"
