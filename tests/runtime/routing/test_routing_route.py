"""A route as a value: what it leads to, and what it is with another share."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.router import Router
from runtime.errors import NotFound
from runtime.routing.document import from_json, parse_route, to_json
from runtime.routing.route import Route

ROUTE = parse_route("""
rules:
  - {name: a, when: {x: y}, to: 4}
  - {name: b, when: {x: z}, split: {canary: 1, new: {to: next, weight: 1}}}
split: {stable: 1, 3: 2}
sticky: request_id
""")


def test_every_arm_that_leads_nowhere_is_named() -> None:
    assert ROUTE.unknown_targets([1, 2, 3, 4], {"stable": 1, "canary": 2, "next": 3}) == []
    assert ROUTE.unknown_targets([1, 2], {"stable": 1}) == [
        "rules[0].to: the model has no version 4; versions: 1, 2",
        "rules[1].split.canary: the model has no label 'canary'; labels: stable",
        "rules[1].split.new: the model has no label 'next'; labels: stable",
        "split.3: the model has no version 3; versions: 1, 2",
    ]


def variants(route: Route, count: int = 5_000) -> list[str]:
    made = Router("m", route)
    return [made.decide("", request_id=str(number)).variant for number in range(count)]


def test_a_share_is_raised_step_by_step_and_keys_come_to_the_variant_alone() -> None:
    route = parse_route("split: {a: 90, b: 5, c: 5}\nsticky: request_id")
    before = variants(route)
    for share in (0.0, 0.2, 0.5, 0.99, 1.0):
        after_route = route.with_share("b", share)
        after = variants(after_route)
        moved = Counter(pair for pair in zip(before, after, strict=True) if pair[0] != pair[1])
        assert all(pair[1 if share > 0 else 0] == "b" for pair in moved) or not share
        assert abs(after.count("b") - 5_000 * share) <= 5 * (5_000 * share * (1 - share)) ** 0.5
        if share:
            route, before = after_route, after


@given(st.floats(0.001, 0.999))
def test_a_share_given_is_the_share_that_weights_have(share: float) -> None:
    split = parse_route("split: {a: 90, b: 5, c: 5}").with_share("b", share).split
    assert split[1].weight / sum(arm.weight for arm in split) == pytest.approx(share)
    assert (split[0].weight, split[2].weight) == (90, 5)


def test_a_route_with_another_share_is_stored_like_any_other() -> None:
    route = ROUTE.with_share("3", 1 / 3)
    assert from_json(to_json(route)) == route


def test_a_share_that_cannot_be_given_is_refused() -> None:
    with pytest.raises(NotFound, match="no variant 'x'; variants: stable, 3"):
        ROUTE.with_share("x", 0.5)
    with pytest.raises(ValueError, match=r"expected a share of 0\.\.1 for '3', .* got 1\.5"):
        ROUTE.with_share("3", 1.5)
    with pytest.raises(ValueError, match="where no other has a weight"):
        parse_route("split: {a: 1, b: 0}").with_share("a", 0.5)
    with pytest.raises(ValueError, match="needs a weight of 1e-11"):
        parse_route("split: {a: 1, b: 0}").with_share("b", 1e-11)
