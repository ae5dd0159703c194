"""The route of a model: what operators write, as a value. `route_document` reads it, `router` decides by it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from runtime.errors import NotFound
from runtime.repository.layout import version_number

LEAST_WEIGHT, GREATEST_WEIGHT = 1e-6, 1e9
"""Of a variant that gets anything: far from where a double's range ends."""


class Source(Enum):
    """Where a sticky key comes from."""

    METADATA = "metadata"
    PARAMETER = "parameter"
    REQUEST_ID = "request_id"


class Match(Enum):
    """How a condition compares a metadata value, always the whole of it but for `PREFIX`."""

    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class Sticky:
    """`name` of the metadata key, in lower case, or of the request parameter; "" for the request id."""

    source: Source
    name: str = ""


@dataclass(frozen=True, slots=True)
class Variant:
    """One arm of a split. `target`: a version's number or a label. `weight`: relative to the others'; 0: nothing."""

    name: str
    target: str
    weight: float


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds if one of the values of the metadata key compares well: a key may be sent more than once."""

    key: str
    match: Match
    text: str


@dataclass(frozen=True, slots=True)
class Rule:
    """Applies if all conditions hold. Leads to `target`, or by weight where there is a `split`; one of the two."""

    name: str
    when: tuple[Condition, ...]
    target: str = ""
    split: tuple[Variant, ...] = ()


@dataclass(frozen=True, slots=True)
class Shadow:
    """A version that gets copies of answered requests; its answers are compared and thrown away.

    `target`: a version's number or a label. `share`: 0 < share <= 1, of the runs whose requests are copied. `of`: only
    of requests that this version or label answered; "": of all that `target` itself did not answer. Answers of floats
    agree within `absolute` + `relative` * |the primary's|. `worst`: how many of the worst disagreements are kept;
    `inputs`: with their inputs, but for the features in `redact`.
    """

    target: str
    share: float = 1.0
    of: str = ""
    absolute: float = 1e-6
    relative: float = 1e-4
    worst: int = 16
    inputs: bool = False
    redact: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """Rules in order, then the split by weight; without a split the model's default. Empty: the default alone.

    `sticky`: the key that makes a client keep its variant; None: each request is drawn. `salt`: what keys are hashed
    with; "" is the model's name, so that two models do not choose the same clients.
    """

    rules: tuple[Rule, ...] = ()
    split: tuple[Variant, ...] = ()
    sticky: Sticky | None = None
    salt: str = ""
    shadows: tuple[Shadow, ...] = ()

    def targets(self) -> Iterator[tuple[str, str]]:
        """(where in the route, target) of each arm and each shadow."""
        for index, rule in enumerate(self.rules):
            if rule.target:
                yield f"rules[{index}].to", rule.target
            for variant in rule.split:
                yield f"rules[{index}].split.{variant.name}", variant.target
        for variant in self.split:
            yield f"split.{variant.name}", variant.target
        for index, shadow in enumerate(self.shadows):
            yield f"shadows[{index}].to", shadow.target
            if shadow.of:
                yield f"shadows[{index}].of", shadow.of

    def unknown_targets(self, versions: Collection[int], labels: Mapping[str, int]) -> list[str]:
        """A problem for each arm that leads to no version or label of the model; "" could not be read, and has one."""
        problems = []
        for path, target in self.targets():
            if not target:
                continue
            number = version_number(target)
            if number is None and target not in labels:
                problems.append(f"{path}: the model has no label {target!r}; labels: {_list(sorted(labels))}")
            elif number is not None and number not in versions:
                problems.append(f"{path}: the model has no version {target}; versions: {_list(sorted(versions))}")
        return problems

    def with_share(self, name: str, share: float) -> Route:
        """The same with another weight for one variant of `split`, so that it gets `share`, 0..1, of what is split.

        The others' weights stay, so only keys that come to the variant, or leave it, move. NotFound for a name that is
        not there; ValueError for a share that no weight gives.
        """
        variant = next((variant for variant in self.split if variant.name == name), None)
        if variant is None:
            known = _list([variant.name for variant in self.split])
            raise NotFound(f"the split has no variant {name!r}; variants: {known}", field="variant")
        others = math.fsum(other.weight for other in self.split if other is not variant)
        if not 0 <= share <= 1 or (share < 1 and not others):
            raise ValueError(f"expected a share of 0..1 for {name!r}, and 1 where no other has a weight, got {share}")
        if share == 1:
            arms = [replace(arm, weight=(arm.weight or 1.0) if arm is variant else 0.0) for arm in self.split]
        else:
            weight = others * share / (1 - share)
            if weight and not LEAST_WEIGHT <= weight <= GREATEST_WEIGHT:
                raise ValueError(
                    f"the share {share} for {name!r} needs a weight of {weight:g} beside {others:g} of the others; "
                    f"expected {LEAST_WEIGHT:g}..{GREATEST_WEIGHT:g}: take another share, or other weights"
                )
            arms = [replace(arm, weight=weight if arm is variant else arm.weight) for arm in self.split]
        return replace(self, split=tuple(arms))


def _list(names: Collection[object]) -> str:
    shown = [str(name) for name in list(names)[:20]]
    more = len(names) - len(shown)
    return (", ".join(shown) or "none") + (f" and {more} more" if more else "")
