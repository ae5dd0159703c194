"""A YAML document as a mapping, or every way in which it is not one.

Stricter than YAML: keys are given once, and there are no aliases, so a document is no larger than its text.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Hashable
from typing import Any

import yaml

DOCUMENT_LIMIT_BYTES = 1 << 20


def read_document(text: str) -> tuple[dict[Any, Any], list[str]]:
    """(the mapping, the problems); an empty document is an empty mapping, and one with problems may be partial."""
    if len(text) > DOCUMENT_LIMIT_BYTES or len(text.encode(errors="replace")) > DOCUMENT_LIMIT_BYTES:
        return {}, [f"the file is longer than {DOCUMENT_LIMIT_BYTES} bytes"]
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return {}, [f"line {line}: the character U+{ord(text[error.position]):04X} is not allowed in YAML"]
    try:
        document = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        # The mark is where reading stopped; the context is where the construct that went wrong began.
        what = " ".join(part for part in (error.context, error.problem) if part)
        return {}, [f"{_place(error.problem_mark or error.context_mark)}: not valid YAML: {what}"]
    except RecursionError:
        return {}, ["the document nests too deeply"]
    finally:
        loader.dispose()
    if document is None:
        return {}, loader.problems
    if not isinstance(document, dict):
        return {}, [*loader.problems, f"expected a mapping of settings, got {describe(document)}"]
    return document, loader.problems


def describe(value: object) -> str:
    """`value` as its author sees it in the file, short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else f"{value[:57]}...")
    if isinstance(value, dict | list | tuple | set):
        return _SHORT.repr(value)
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    return str(value)


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxlong = 3, 4, 6, 40


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.problems: list[str] = []

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem=f"aliases (*{event.anchor}) are not allowed: write the value out", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            made = super().construct_object(node, deep)
            str(made if type(made) is int else "")  # hexadecimal ones may be longer than Python writes in decimal
        except (ValueError, OverflowError):
            problem = f"{describe(node.value)} is no number or date that can be"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None
        return made

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in lines:
                    first = lines[key.value]
                    self.problems.append(
                        f"{_place(key.start_mark)}: the key {key.value!r} was already given in line {first}"
                    )
                lines.setdefault(key.value, key.start_mark.line + 1)
        return super().construct_mapping(node, deep)


# YAML 1.1 takes 1e-3 for text; YAML 1.2, and everybody else, for a number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _place(mark: yaml.Mark | None) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "somewhere"
