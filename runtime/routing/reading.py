"""How a route's document is read: on after a problem, with something in place of what is wrong."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from runtime.repository.document import describe
from runtime.repository.layout import LABEL_PATTERN, version_number

NAME = "a letter, then up to 62 letters, digits, '.', '_' or '-'"
TARGET = f"a version's number or a label ({NAME})"


EXACT = 2**53
"""From here on not every integer is a double."""


class Reader:
    """`problems`: one line for each: where, what is expected, what came."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def wrong(self, path: str, expected: str, got: object) -> None:
        self.problems.append(f"{path or 'the document'}: expected {expected}, got {describe(got)}")

    def known(self, document: object, path: str, keys: tuple[str, ...]) -> Mapping[Any, Any]:
        """`document` if it is a mapping, else an empty one. Keys other than `keys` are problems."""
        if not isinstance(document, dict):
            self.wrong(path, f"a mapping with {', '.join(keys)}", document)
            return {}
        for key in document:
            if key not in keys:
                close = difflib.get_close_matches(str(key)[:100], keys, 1)
                hint = f"did you mean {close[0]}? " if close else ""
                self.problems.append(f"{under(path, key)}: unknown key; {hint}known keys are {', '.join(keys)}")
        return document

    def target(self, value: object, path: str) -> str:
        text = str(value) if type(value) is int else value
        if not isinstance(text, str) or not is_target(text):
            self.wrong(path, TARGET, value)
            return ""
        return text


def is_target(text: str) -> bool:
    return version_number(text) is not None or LABEL_PATTERN.fullmatch(text) is not None


def encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def plain(number: float) -> float:
    """As its author would have written it: 95, not 95.0. Read again, it is the same number."""
    return int(number) if float(number).is_integer() and abs(number) < EXACT else number


def under(path: str, key: object) -> str:
    shown = str(key) if isinstance(key, str | int) and re.fullmatch(r"[\w.-]{1,100}", str(key)) else describe(key)
    return f"{path}.{shown}" if path else shown
