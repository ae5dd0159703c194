"""The tables and examples of docs/routing.md, from gateway/routing/."""

from __future__ import annotations

import inspect
import textwrap
from collections import Counter
from collections.abc import Mapping

from gateway.routing import assignment
from gateway.routing.assignment import Assignment
from gateway.routing.decision import PRECEDENCE
from gateway.routing.router import Router
from generator.markdown import code, number, table
from runtime.routing import document as route_document
from runtime.routing import pattern, route
from runtime.routing.document import parse_route

KEYS = [b"user-%d" % number for number in range(100_000)]
Split = Mapping[str, float]


def precedence() -> str:
    rows = [
        (str(place), what, ", ".join(code(reason.name.lower()) for reason in reasons))
        for place, (_, reasons, what) in enumerate(PRECEDENCE, 1)
    ]
    return table(("", "what decides", "reason"), rows)


def document() -> str:
    return f"```yaml\n{_example()}\n```"


def story() -> str:
    """The explanation of one request under the example of `document`."""
    router = Router("churn", parse_route(_example()))
    lines = router.explain("", [("x-region", "eu-west-1"), ("x-user-id", "user-7")]).lines()
    return "```text\n" + "\n".join(lines) + "\n```"


def shares() -> str:
    """What moves when weights change."""
    changes: tuple[tuple[Split, Split], ...] = (
        ({"stable": 95, "canary": 5}, {"stable": 80, "canary": 20}),
        ({"stable": 80, "canary": 20}, {"stable": 95, "canary": 5}),
        ({"a": 90, "b": 5, "c": 5}, {"a": 90, "b": 23.75, "c": 5}),
        ({"a": 90, "b": 5, "c": 5}, {"a": 90, "b": 5}),
        ({"a": 90, "b": 5, "c": 5}, {"a": 75, "b": 20, "c": 5}),
    )
    rows = []
    for before, after in changes:
        moved = Counter((old, new) for old, new in zip(_arms(before), _arms(after), strict=True) if old != new)
        names = sorted({*before, *after})
        gains = [_share(after, name) - _share(before, name) for name in names]
        least = sum(gain for gain in gains if gain > 0)
        ways = ", ".join(f"{old} to {new} {number(count)}" for (old, new), count in sorted(moved.items()))
        counted = f"{number(moved.total())}: {ways}"
        rows.append((_shown(before), _shown(after), counted, number(round(least * len(KEYS)))))
    return table(("weights", "new weights", f"keys that move, of {number(len(KEYS))}", "least, on average"), rows)


def figures() -> str:
    """What anybody needs to compute the same, with numbers to check it against."""
    found: assignment.Figures = {}
    Assignment("churn", ["stable", "canary"], [95, 5]).by_key(b"user-7", found)
    rows = [
        (name, f"`{assignment.seed_of('churn', name):016x}`", f"`{found[arm][0]:016x}`", f"{found[arm][1]:.6f}")
        for arm, name in enumerate(("stable", "canary"))
    ]
    return table(("variant", "seed, of the salt `churn`", "hash of `user-7`", "figure at 95 and 5"), rows)


def bounds() -> str:
    rows = [
        ("rules", number(route_document.RULES_LIMIT)),
        ("conditions of a rule", number(route_document.CONDITIONS_LIMIT)),
        ("variants of a split", number(route_document.VARIANTS_LIMIT)),
        ("a weight", f"0, or {route.LEAST_WEIGHT:g} to {route.GREATEST_WEIGHT:,.0f}"),
        ("characters of a condition's text", number(route_document.TEXT_LIMIT)),
        ("characters of a metadata key, a parameter's name, a salt", number(route_document.NAME_LIMIT)),
        ("characters of a regular expression", number(pattern.PATTERN_LIMIT)),
        ("instructions that it becomes", number(pattern.PROGRAM_LIMIT)),
        ("characters of a value that it looks at; a longer one does not match", number(pattern.TEXT_LIMIT)),
    ]
    return table(("of a route", "at most"), rows)


def _example() -> str:
    """The route that the module shows; it must be one."""
    return textwrap.dedent((inspect.getdoc(route_document) or "").split("\n\n")[1])


def _arms(split: Split) -> list[str]:
    names = list(split)
    by_key = Assignment("churn", names, list(split.values())).by_key
    return [names[by_key(key)] for key in KEYS]


def _share(split: Split, name: str) -> float:
    return split.get(name, 0) / sum(split.values())


def _shown(split: Split) -> str:
    return ", ".join(f"{name} {weight:g}" for name, weight in split.items())
