"""Decides, request by request, where a model's traffic goes: a route made ready for it.

The order is that of `decision.PRECEDENCE`. Nothing here changes after it was made, so threads share a router, and a new
route is a new router, which takes the place of the old one by one assignment.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from gateway.routing.assignment import Assignment, Figures
from gateway.routing.decision import DEFAULT, Decision, named
from gateway.routing.explanation import ArmStep, DefaultStep, Explanation, KeyStep, NameStep, SplitStep, Story
from runtime.routing.pattern import Pattern
from runtime.routing.route import Condition, Match, Route, Rule, Source, Sticky, Variant
from runtime.shm.record_layout import Reason

Metadata = Sequence[tuple[str, str | bytes]]
"""As gRPC gives it: keys in lower case, and more than once where the client sent them so."""

Parameters = Mapping[str, str | int | float | bool]
"""A request's parameters by name, each the one value that is set."""

KeyOf = Callable[[Metadata, Parameters | None, str], bytes]
NO_METADATA: Metadata = ()


class Router:
    """`decisions`: all that it gives out but for requests that name a version or label."""

    def __init__(self, model: str, route: Route, draw: Callable[[], float] | None = None) -> None:
        """`draw` gives points, 0 <= p < 1, for requests without a key; of its own it has a generator of random seed."""
        self.model = model
        self.route = route
        self._draw = draw if draw is not None else random.Random().random  # noqa: S311  # no secret depends on it
        self._key_of = _key_reader(route.sticky)
        salt = route.salt or model
        self._rules = tuple(_Rule(rule, salt) for rule in route.rules)
        self._looked_at = frozenset(condition.key for rule in route.rules for condition in rule.when)
        self._split = _Split("", route.split, salt) if route.split else None

    def __repr__(self) -> str:
        return f"<Router {self.model} of {len(self._rules)} rules and {len(self.route.split)} variants>"

    @property
    def decisions(self) -> tuple[Decision, ...]:
        arms: list[Decision] = []
        for rule in self._rules:
            arms += [rule.decision] if rule.split is None else [*rule.split.sticky, *rule.split.drawn]
        return (*arms, *((*self._split.sticky, *self._split.drawn) if self._split is not None else (DEFAULT,)))

    def decide(
        self,
        version: str,
        metadata: Metadata = NO_METADATA,
        parameters: Parameters | None = None,
        request_id: str = "",
        story: Story | None = None,
    ) -> Decision:
        """`version`: the request's model_version, a number, a label or "". Never fails; `story` takes the steps."""
        if story is not None:
            story.steps.append(NameStep(version))
        if version:
            return named(version)
        split = self._split
        if self._rules:
            rule = self._applying(metadata, story)
            if rule is not None:
                if rule.split is None:
                    return rule.decision
                split = rule.split
        if split is None:
            if story is not None:
                story.steps.append(DefaultStep())
            return DEFAULT
        key = self._key_of(metadata, parameters, request_id)
        figures: Figures | None = {} if story is not None else None
        point = None
        if key:
            arm = split.assignment.by_key(key, figures)
            decision = split.sticky[arm]
        else:
            point = self._draw()
            arm = split.assignment.drawn(point)
            decision = split.drawn[arm]
        if story is not None:
            sticky = self.route.sticky
            story.steps.append(KeyStep(sticky.source if sticky else None, sticky.name if sticky else "", key))
            story.steps.append(split.step(arm, point, figures or {}))
        return decision

    def explain(
        self,
        version: str,
        metadata: Metadata = NO_METADATA,
        parameters: Parameters | None = None,
        request_id: str = "",
    ) -> Explanation:
        """What `decide` does with such a request, and all it looks at; one without a key is drawn like any other."""
        story = Story()
        decision = self.decide(version, metadata, parameters, request_id, story)
        return Explanation(self.model, decision, tuple(story.steps))

    def _applying(self, metadata: Metadata, story: Story | None) -> _Rule | None:
        looked_at = self._looked_at
        values: dict[str, list[str]] = {}
        for key, value in metadata:
            if key in looked_at and isinstance(value, str):
                values.setdefault(key, []).append(value)
        if not values and story is None:  # each rule has a condition, and none of them can hold
            return None
        for rule in self._rules:
            if rule.applies(values, story):
                return rule
        return None


class _Split:
    """`sticky` and `drawn`: the decision for each arm, by how the arm was found."""

    __slots__ = ("assignment", "drawn", "rule", "sticky", "variants")

    def __init__(self, rule: str, variants: tuple[Variant, ...], salt: str) -> None:
        self.rule = rule
        self.variants = variants
        # An arm's name without the rule's: a client that is in the canary of one split is early in that of another.
        self.assignment = Assignment(salt, [v.name for v in variants], [v.weight for v in variants])
        names = [f"{rule}/{v.name}" if rule else v.name for v in variants]
        self.sticky, self.drawn = (
            tuple(Decision(v.target, name, reason) for v, name in zip(variants, names, strict=True))
            for reason in (Reason.STICKY, Reason.DRAWN)
        )

    def step(self, chosen: int, point: float | None, figures: Figures) -> SplitStep:
        """What an explanation says of a choice that was made by `point`, or else by `figures`."""
        arms = []
        for arm, (variant, share) in enumerate(zip(self.variants, self.assignment.shares, strict=True)):
            hashed, figure = figures.get(arm, (None, None))
            begin, end = self.assignment.interval(arm) if point is not None else (None, None)
            arms.append(ArmStep(variant.name, variant.target, variant.weight, share, hashed, figure, begin, end))
        return SplitStep(self.rule, tuple(arms), point, chosen)


class _Rule:
    __slots__ = ("_conditions", "decision", "name", "split")

    def __init__(self, rule: Rule, salt: str) -> None:
        self.name = rule.name
        self._conditions = tuple((condition, condition.key, _test(condition)) for condition in rule.when)
        self.split = _Split(rule.name, rule.split, salt) if rule.split else None
        self.decision = Decision(rule.target, f"{rule.name}/{rule.target}", Reason.RULE)

    def applies(self, values: Mapping[str, Sequence[str]], story: Story | None) -> bool:
        applies = True
        for condition, key, test in self._conditions:
            came = values.get(key, ())
            holds = False
            for value in came:
                if test(value):
                    holds = True
                    break
            if story is not None:
                story.condition(key, condition.match, condition.text, came, holds=holds)
            if not holds:
                applies = False
                break
        if story is not None:
            story.rule(self.name, applies=applies)
        return applies


def _test(condition: Condition) -> Callable[[str], bool]:
    text = condition.text
    match condition.match:
        case Match.EXACT:
            return lambda value: value == text
        case Match.PREFIX:
            return lambda value: value.startswith(text)
        case Match.REGEX:
            return Pattern(text).matches


def _key_reader(sticky: Sticky | None) -> KeyOf:
    """Gives a request's key as bytes, b"" for none. An empty value is none: not all who send one are one client."""
    if sticky is None:
        return lambda _metadata, _parameters, _request_id: b""
    name = sticky.name

    def from_metadata(metadata: Metadata, _parameters: Parameters | None, _request_id: str) -> bytes:
        for key, value in metadata:
            if key == name and value:
                return value if isinstance(value, bytes) else value.encode()
        return b""

    def from_parameter(_metadata: Metadata, parameters: Parameters | None, _request_id: str) -> bytes:
        value = parameters.get(name) if parameters else None
        if value is None:
            return b""
        if isinstance(value, bool):  # before str: True is "True" to Python, and "true" to everybody else
            return b"true" if value else b"false"
        return str(value).encode()

    def from_request_id(_metadata: Metadata, _parameters: Parameters | None, request_id: str) -> bytes:
        return request_id.encode()

    return {Source.METADATA: from_metadata, Source.PARAMETER: from_parameter, Source.REQUEST_ID: from_request_id}[
        sticky.source
    ]
