"""The tables and examples of docs/routing.md, from gateway/routing/, and docs/reference/route.md."""

from __future__ import annotations

import inspect
import textwrap
from collections import Counter
from collections.abc import Mapping

from gateway.routing import assignment
from gateway.routing.assignment import Assignment
from gateway.routing.decision import PRECEDENCE
from gateway.routing.router import Router
from generator.markdown import NOTHING, code, heading, number, table
from runtime.routing import document as route_document
from runtime.routing import pattern, reading, route, shadow_document
from runtime.routing.document import parse_route
from runtime.routing.route import Shadow

KEYS = [b"user-%d" % number for number in range(100_000)]
Split = Mapping[str, float]


INTRODUCTION = f"""
A route is a mapping in YAML or JSON: what `driftgate route set` and the RPC `SetRoute` take, and what stands under
`route` in `model.yaml`. Every line may be left out, and `{{}}` is the default alone. A route with anything wrong in it
is refused as a whole, and every problem is named at once, with its place. Keys are given once, YAML aliases are not
allowed. What decides in which order, and which clients move: [routing](../routing.md). Step by step:
[route traffic](../how-to/routes.md).

A target is {reading.TARGET}. It must be served when the route is set.
"""


def page() -> str:
    """docs/reference/route.md."""
    parts = [heading("Route", "runtime/routing/"), INTRODUCTION, "## Settings\n", settings()]
    return "\n".join([*parts, "\n## Bounds\n", bounds()]).rstrip("\n") + "\n"


def settings() -> str:
    usual = Shadow("")
    target, key = "a target", f"a key of at most {route_document.NAME_LIMIT} characters, not grpc-"
    condition = "a text, or one of `{exact: text}`, `{prefix: text}`, `{regex: text}`"
    rows = (
        ("sticky", "`request_id`, `{metadata: key}` or `{parameter: name}`", NOTHING,
         "What a client keeps its variant by. Without it, each request is drawn."),
        ("salt", "a text", "the model's name", "What keys are hashed with. Another one chooses other clients."),
        ("rules", "a list", "`[]`", "The first rule that applies, decides."),
        ("rules[].name", reading.NAME, "needed", "What it is called in the variants that it leads to."),
        ("rules[].when.KEY", condition, "needed", f"What one of the values of this metadata key must be; {key}."),
        ("rules[].to", target, NOTHING, "Where it leads. One of `to` and `split` is needed."),
        ("rules[].split", "as `split`", NOTHING, "By weight, as `split`."),
        ("split.NAME", "a weight, or a mapping of `to` and `weight`", NOTHING,
         "A variant, of which the name is the target too unless it has a `to`. A share is a weight among all."),
        ("split.NAME.to", target, "NAME", "Where the variant leads."),
        ("split.NAME.weight", f"0, or {route.LEAST_WEIGHT:g} to {route.GREATEST_WEIGHT:,.0f}", "needed",
         "Relative to the others'; 0: it gets nothing and keeps its place."),
        ("shadows[].to", target, "needed", "Which version gets copies. Its answers are compared and thrown away."),
        ("shadows[].percent", f"a number {shadow_document.LEAST_PERCENT:g}..100", code(f"{usual.share * 100:g}"),
         "Of the runs, whose requests are copied."),
        ("shadows[].of", target, NOTHING,
         "Only of what this version answered; without it, of all that the shadow itself did not answer."),
        ("shadows[].tolerance.absolute", "a number of 0 or more", code(f"{usual.absolute:g}"),
         "Numbers that differ by no more agree, where no class is predicted from them."),
        ("shadows[].tolerance.relative", "a number of 0 or more", code(f"{usual.relative:g}"),
         "The same, of the size of what clients got; the two are added."),
        ("shadows[].worst", f"an integer 0..{shadow_document.WORST_LIMIT}", code(str(usual.worst)),
         "So many of the worst disagreements are kept."),
        ("shadows[].inputs", "true or false", "`false`", "Keep them with their inputs, which are what clients sent."),
        ("shadows[].redact", "a list of names of features", "`[]`", "Keep these features' values out of it."),
    )  # fmt: skip
    return table(("setting", "allowed", "default", "meaning"), [(code(name), *rest) for name, *rest in rows])


def precedence() -> str:
    rows = [
        (str(place), what, ", ".join(code(reason.name.lower()) for reason in reasons))
        for place, (_, reasons, what) in enumerate(PRECEDENCE, 1)
    ]
    return table(("", "what decides", "reason"), rows)


def document() -> str:
    return f"```yaml\n{_example()}\n```"


def shadows() -> str:
    """The example of shadows, as the module shows it."""
    return f"```yaml\n{_first_block(inspect.getdoc(shadow_document))}\n```"


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
        ("shadows", number(shadow_document.SHADOWS_LIMIT)),
        ("disagreements that a shadow keeps", number(shadow_document.WORST_LIMIT)),
        ("names of features that it keeps out", number(shadow_document.REDACTED_LIMIT)),
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
    return _first_block(inspect.getdoc(route_document))


def _first_block(text: str | None) -> str:
    return textwrap.dedent((text or "").split("\n\n")[1])


def _arms(split: Split) -> list[str]:
    names = list(split)
    by_key = Assignment("churn", names, list(split.values())).by_key
    return [names[by_key(key)] for key in KEYS]


def _share(split: Split, name: str) -> float:
    return split.get(name, 0) / sum(split.values())


def _shown(split: Split) -> str:
    return ", ".join(f"{name} {weight:g}" for name, weight in split.items())
