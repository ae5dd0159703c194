"""The header that says which version answered, read back as a client would."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ITEM = re.compile(
    r'(?P<version>[0-9]+);digest="(?P<digest>[^"]*)"(;variant="(?P<variant>([^"\\]|\\.)*)";reason=(?P<reason>[a-z_]+))?'
)


@dataclass(frozen=True, slots=True)
class AnsweredBy:
    version: int = 0
    digest: str = ""
    variant: str = ""
    reason: str = ""


def answered_by(metadata: Mapping[str, Any]) -> AnsweredBy:
    """Of an answer's metadata; nothing but defaults where it has no such header."""
    value = metadata.get("driftgate-answered-by")
    if value is None:
        return AnsweredBy()
    item = ITEM.fullmatch(value)
    assert item is not None, value
    variant = re.sub(r"\\(.)", r"\1", item["variant"] or "")
    return AnsweredBy(int(item["version"]), item["digest"], variant, item["reason"] or "")
