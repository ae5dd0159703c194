"""Which of a model's versions are to be served: the manifest's `versions`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """The newest `count`, all of them, or the ones named in `versions`.

    ValueError if `count` or a version is below 1, or if "specific" names none.
    """

    kind: Literal["latest", "all", "specific"] = "latest"
    count: int = 1
    versions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.count < 1 or any(version < 1 for version in self.versions):
            raise ValueError("counts and versions start at 1")
        if (self.kind == "specific") != bool(self.versions):
            raise ValueError("specific names versions, and nothing else does")

    def select(self, available: Sequence[int]) -> tuple[int, ...]:
        """The versions of `available` to serve, ascending; `missing` names those that are wanted but not there."""
        found = sorted(set(available))
        if self.kind == "latest":
            return tuple(found[-self.count :])
        if self.kind == "specific":
            return tuple(version for version in found if version in self.versions)
        return tuple(found)

    def missing(self, available: Sequence[int]) -> tuple[int, ...]:
        """The versions named by "specific" that are not in `available`, ascending."""
        return tuple(sorted(set(self.versions) - set(available)))

    def __str__(self) -> str:
        if self.kind == "latest":
            return f"latest({self.count})"
        if self.kind == "specific":
            return f"specific({', '.join(map(str, sorted(self.versions)))})"
        return "all"
