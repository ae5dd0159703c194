"""What a route says of one request: where it goes, by which arm, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from runtime.repository.layout import version_number
from runtime.shm.record_layout import Reason

R = TypeVar("R")

NAMES_KEPT = 1024
NAME_KEPT_CHARACTERS = 63  # as many as a label may have: no client fills memory with names that lead nowhere

PRECEDENCE: tuple[tuple[str, tuple[Reason, ...], str], ...] = (
    ("name", (Reason.VERSION, Reason.LABEL), "The client names a version or a label in `model_version`."),
    ("rules", (Reason.RULE,), "The first rule in order all of whose conditions hold. It leads to a target."),
    ("rules", (Reason.STICKY, Reason.DRAWN), "The same, where the rule leads to a split of its own."),
    ("split", (Reason.STICKY, Reason.DRAWN), "The route's split, by weight."),
    ("default", (Reason.DEFAULT,), "The model's default, where the route has no split."),
)
"""(part of the route, the reasons that it gives, when it decides), the first that decides wins."""


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """`target`: a version's number or a label; "" is the model's default. `variant`: which arm of the route it was.

    Compared and hashed as the object that it is: a router makes each of its decisions once, and gives it out again.
    """

    target: str
    variant: str
    reason: Reason


DEFAULT = Decision("", "default", Reason.DEFAULT)


def _named(version: str) -> Decision:
    if version_number(version) is not None:
        return Decision(version, "pinned", Reason.VERSION)
    return Decision(version, version, Reason.LABEL)


_kept = lru_cache(NAMES_KEPT)(_named)


def named(version: str) -> Decision:
    """For a client that names a version or a label, whether or not there is one."""
    return _kept(version) if len(version) <= NAME_KEPT_CHARACTERS else _named(version)


def grouped(requests: Iterable[R], decisions: Iterable[Decision]) -> dict[Decision, list[R]]:
    """The requests of each decision, in their order; ValueError if there are not as many decisions as requests."""
    groups: dict[Decision, list[R]] = {}
    for request, decision in zip(requests, decisions, strict=True):
        group = groups.get(decision)
        if group is None:
            groups[decision] = [request]
        else:
            group.append(request)
    return groups
