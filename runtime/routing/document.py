"""A route as YAML or JSON: reads it with every problem named, and writes it so that it reads back equal.

    sticky: {metadata: x-user-id}        # or {parameter: name}, or request_id; left out: each request is drawn
    salt: spring-campaign                # left out: the model's name
    rules:                               # the first that applies wins
      - name: testers
        when: {x-tier: gold, x-user-id: {prefix: "test-"}}     # all must hold
        to: canary                       # a version's number or a label
      - name: europe
        when: {x-region: {regex: "eu-.*"}}
        split: {stable: 50, canary: 50}
    split:
      stable: 95                         # weight of the version or label of this name
      challenger: {to: 7, weight: 5}     # or of a variant with a name of its own
    shadows:                             # versions that get copies of answered requests
      - {to: 8, percent: 10, of: stable} # of: whose requests; left out: everybody's

Stricter than YAML, as `runtime.repository.document` says: keys are given once, and there are no aliases.
"""

from __future__ import annotations

import json
import re
from typing import Any

from runtime.errors import InvalidRequest
from runtime.repository.document import read_document
from runtime.repository.layout import LABEL_PATTERN
from runtime.routing.pattern import Pattern, PatternError
from runtime.routing.reading import NAME, TARGET, Reader, encodes, is_target, plain, under
from runtime.routing.route import (
    GREATEST_WEIGHT,
    LEAST_WEIGHT,
    Condition,
    Match,
    Route,
    Rule,
    Source,
    Sticky,
    Variant,
)
from runtime.routing.shadow_document import SHADOWS_LIMIT, read_shadows, shadow_document

RULES_LIMIT = 64
"""A request with metadata that rules look at tries them in order; with 64 that takes some ten microseconds."""

CONDITIONS_LIMIT = 8
VARIANTS_LIMIT = 16
"""Each takes a hash and a logarithm a request."""

TEXT_LIMIT = 1024
"""Characters of a condition's text, as of a value that a regular expression looks at."""

NAME_LIMIT = 128
"""Characters of a metadata key, a parameter's name, a salt."""

PROBLEMS_SHOWN = 100

_KEY = re.compile(r"[0-9a-z_.-]{1,128}")
_WEIGHT = f"0 or a number {LEAST_WEIGHT:g}..{GREATEST_WEIGHT:g}"
_STICKY = "request_id, {metadata: key} or {parameter: name}"
_METADATA_KEY = f"a metadata key of 1 to {NAME_LIMIT} lower-case letters, digits, '-', '_' and '.'"


class RouteError(InvalidRequest):
    """A route with problems; `problems` has one line for each: where, what is expected, what came."""

    reason = "ROUTE_INVALID"

    def __init__(self, source: str, problems: list[str]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{source} has {count}:\n" + ";\n".join(problems[:PROBLEMS_SHOWN]), field="route")
        self.problems = tuple(problems)


def parse_route(text: str, source: str = "the route") -> Route:
    """The route in YAML `text` (JSON is YAML too); RouteError, with every problem, under the name `source`."""
    document, problems = read_document(text)
    return route_of(document, source, problems)


def route_of(document: object, source: str = "the route", problems: list[str] | None = None) -> Route:
    """The route that a document's mapping means; RouteError if it, or `problems` before it, say otherwise."""
    route, found = read_route(document)
    if problems or found:
        raise RouteError(source, [*(problems or ()), *found])
    return route


def read_route(document: object, path: str = "") -> tuple[Route, list[str]]:
    """(the route, the problems, each with its place under `path`). With problems it is what could be read: a dry run's.

    `document`: as YAML or JSON gives it; None is an empty route.
    """
    reader = _Reader()
    return reader.route({} if document is None else document, path), reader.problems


def document_of(route: Route) -> dict[str, Any]:
    """What `read_route` reads back as an equal route; nothing but JSON's types, and no more than is needed."""
    document: dict[str, Any] = {}
    if route.sticky is not None:
        sticky = route.sticky
        document["sticky"] = {sticky.source.value: sticky.name} if sticky.name else sticky.source.value
    if route.salt:
        document["salt"] = route.salt
    if route.rules:
        document["rules"] = [_rule_document(rule) for rule in route.rules]
    if route.split:
        document["split"] = _split_document(route.split)
    if route.shadows:
        document["shadows"] = [shadow_document(shadow) for shadow in route.shadows]
    return document


def to_json(route: Route) -> str:
    return json.dumps(document_of(route), ensure_ascii=False, separators=(",", ":"))


def from_json(text: str) -> Route:
    """RouteError for what `to_json` did not write.

    A rollout's shadow may stand beside as many as operators may have.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise RouteError("the stored route", ["it is not JSON"]) from None
    reader = _Reader(SHADOWS_LIMIT + 1)
    route = reader.route(document, "")
    if reader.problems:
        raise RouteError("the stored route", reader.problems)
    return route


def _rule_document(rule: Rule) -> dict[str, Any]:
    when = {c.key: c.text if c.match is Match.EXACT else {c.match.value: c.text} for c in rule.when}
    leads = {"split": _split_document(rule.split)} if rule.split else {"to": rule.target}
    return {"name": rule.name, "when": when, **leads}


def _split_document(split: tuple[Variant, ...]) -> dict[str, Any]:
    return {
        v.name: plain(v.weight) if v.target == v.name else {"to": v.target, "weight": plain(v.weight)} for v in split
    }


class _Reader(Reader):
    """Of a whole route."""

    def __init__(self, shadows_limit: int = SHADOWS_LIMIT) -> None:
        super().__init__()
        self._shadows_limit = shadows_limit

    def route(self, document: object, path: str) -> Route:
        fields = self.known(document, path, ("sticky", "salt", "rules", "split", "shadows"))
        sticky = self.sticky(fields.get("sticky"), under(path, "sticky"))
        salt = fields.get("salt", "")
        if not isinstance(salt, str) or len(salt) > NAME_LIMIT or not encodes(salt):
            self.wrong(under(path, "salt"), f"a text of at most {NAME_LIMIT} characters", salt)
            salt = ""
        rules = self.rules(fields.get("rules"), under(path, "rules"))
        split = self.split(fields["split"], under(path, "split")) if fields.get("split") is not None else ()
        shadows = read_shadows(self, fields.get("shadows"), under(path, "shadows"), self._shadows_limit)
        return Route(rules, split, sticky, salt, shadows)

    def sticky(self, document: object, path: str) -> Sticky | None:
        match document:
            case None:
                return None
            case "request_id":
                return Sticky(Source.REQUEST_ID)
            case {"metadata": key, **rest} if not rest:
                name = self.metadata_key(key, under(path, "metadata"))
                return Sticky(Source.METADATA, name) if name else None
            case {"parameter": str(name), **rest} if not rest and 1 <= len(name) <= NAME_LIMIT and encodes(name):
                return Sticky(Source.PARAMETER, name)
            case {"parameter": name, **rest} if not rest:
                self.wrong(under(path, "parameter"), f"a name of 1 to {NAME_LIMIT} characters", name)
            case _:
                self.wrong(path, _STICKY, document)
        return None

    def metadata_key(self, key: object, path: str) -> str:
        """The key in lower case, as it arrives; "" if it is none."""
        if not isinstance(key, str) or _KEY.fullmatch(key.lower()) is None:
            self.wrong(path, _METADATA_KEY, key)
            return ""
        if key.lower().startswith("grpc-"):
            self.wrong(path, "a key of the client's own: those that begin with grpc- are the protocol's", key)
            return ""
        return key.lower()

    def rules(self, document: object, path: str) -> tuple[Rule, ...]:
        if document is None:
            return ()
        if not isinstance(document, list) or len(document) > RULES_LIMIT:
            count = f"{len(document)} rules" if isinstance(document, list) else document
            self.wrong(path, f"a list of at most {RULES_LIMIT} rules", count)
            return ()
        rules: list[Rule] = []
        first: dict[str, int] = {}
        for index, item in enumerate(document):
            rule = self.rule(item, f"{path}[{index}]")
            if rule.name and rule.name in first:
                self.problems.append(f"{path}[{index}].name: {rule.name!r} is already that of rule {first[rule.name]}")
            first.setdefault(rule.name, index)
            rules.append(rule)
        return tuple(rules)

    def rule(self, document: object, path: str) -> Rule:
        fields = self.known(document, path, ("name", "when", "to", "split"))
        if not isinstance(document, dict):
            return Rule("", ())
        name = fields.get("name")
        if not isinstance(name, str) or LABEL_PATTERN.fullmatch(name) is None:
            self.wrong(under(path, "name"), NAME, name)
            name = ""
        when = self.conditions(fields.get("when"), under(path, "when"))
        target = ""
        split: tuple[Variant, ...] = ()
        if (fields.get("to") is None) == (fields.get("split") is None):
            got = "neither" if fields.get("to") is None else "both"
            self.problems.append(f"{path}: expected one of `to` and `split`, got {got}")
        if fields.get("to") is not None:
            target = self.target(fields["to"], under(path, "to"))
        if fields.get("split") is not None:
            split = self.split(fields["split"], under(path, "split"))
        return Rule(name, when, target, split)

    def conditions(self, document: object, path: str) -> tuple[Condition, ...]:
        if not isinstance(document, dict) or not 1 <= len(document) <= CONDITIONS_LIMIT:
            self.wrong(path, f"a mapping of 1 to {CONDITIONS_LIMIT} metadata keys to what they must be", document)
            return ()
        conditions: list[Condition] = []
        for key, value in document.items():
            place = under(path, key)
            name = self.metadata_key(key, place)
            if name.endswith("-bin"):
                self.wrong(place, "a key of texts: values of keys that end in -bin are bytes", key)
            if any(other.key == name for other in conditions if name):
                self.problems.append(f"{place}: the key {name!r} is given twice: upper and lower case are the same")
            condition = self.condition(name, value, place)
            if condition is not None:
                conditions.append(condition)
        return tuple(conditions)

    def condition(self, key: str, value: object, path: str) -> Condition | None:
        match = Match.EXACT
        kinds = tuple(kind.value for kind in Match)
        if isinstance(value, dict):
            if len(value) != 1 or next(iter(value)) not in kinds:
                self.wrong(path, f"a text, or one of {', '.join(f'{{{kind}: text}}' for kind in kinds)}", value)
                return None
            ((kind, value),) = value.items()
            match, path = Match(kind), under(path, kind)
        text = str(value) if type(value) is int else value
        if not isinstance(text, str) or len(text) > TEXT_LIMIT or not encodes(text):
            self.wrong(path, f"a text of at most {TEXT_LIMIT} characters (put it in quotes)", value)
            return None
        if match is Match.REGEX:
            try:
                Pattern(text)
            except PatternError as error:
                self.wrong(path, f"a regular expression that RE2 takes ({error})", text)
                return None
        return Condition(key, match, text)

    def split(self, document: object, path: str) -> tuple[Variant, ...]:
        if not isinstance(document, dict) or not 1 <= len(document) <= VARIANTS_LIMIT:
            self.wrong(path, f"a mapping of 1 to {VARIANTS_LIMIT} variants to weights", document)
            return ()
        before = len(self.problems)
        split = [self.variant(name, value, under(path, name)) for name, value in document.items()]
        names = [variant.name for variant in split]
        for name in sorted({name for name in names if name and names.count(name) > 1}):
            self.problems.append(f"{under(path, name)}: given twice, as a number and as a text")
        if len(self.problems) == before and not any(variant.weight for variant in split):
            self.problems.append(f"{path}: expected a weight above 0 for one variant at least, got 0 for all")
        return tuple(split)

    def variant(self, name: object, document: object, path: str) -> Variant:
        name = str(name) if type(name) is int else name
        if not isinstance(name, str) or not is_target(name):
            self.wrong(path, f"a variant's name: {TARGET}", name)
            name = ""
        target, weight = name, document
        if isinstance(document, dict):
            fields = self.known(document, path, ("to", "weight"))
            weight = fields.get("weight")
            path_of_weight = under(path, "weight")
            if fields.get("to") is not None:
                target = self.target(fields["to"], under(path, "to"))
        else:
            path_of_weight = path
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not (weight == 0 or (LEAST_WEIGHT <= weight <= GREATEST_WEIGHT)):  # type: ignore[operator]
            self.wrong(path_of_weight, _WEIGHT, weight)
            weight = 1.0
        return Variant(name, target, float(weight))  # type: ignore[arg-type]
