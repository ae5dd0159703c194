"""A route with the part that a rollout takes: pure."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from route_samples import ROUTES

from gateway.control.traffic import Traffic, with_traffic
from gateway.routing.router import Router
from runtime.routing.document import from_json, parse_route, to_json
from runtime.routing.route import Route, Shadow, Variant

TRAFFIC = st.builds(Traffic, st.just(7), st.just(8), st.floats(0, 100), st.floats(1e-6, 100) | st.just(0.0))


def test_no_rollout_leaves_the_route_as_it_is() -> None:
    route = parse_route("split: {a: 1, b: 1}")
    assert with_traffic(route, None) is route


def test_a_step_is_a_split_between_baseline_and_candidate_under_the_operators_rules_and_key() -> None:
    route = parse_route("sticky: request_id\nsalt: s\nrules: [{name: r, when: {x: y}, to: 3}]")
    step = with_traffic(route, Traffic(2, 3, 5, 0))
    assert step == parse_route(
        "sticky: request_id\nsalt: s\nrules: [{name: r, when: {x: y}, to: 3}]\n"
        "split: {baseline: {to: 2, weight: 95}, candidate: {to: 3, weight: 5}}"
    )


def test_variants_are_there_at_both_ends_of_a_rollout() -> None:
    for weight in (0.0, 100.0):
        assert with_traffic(Route(), Traffic(2, 3, weight, 0)).split == (
            Variant("baseline", "2", 100 - weight),
            Variant("candidate", "3", weight),
        )


def test_copies_are_of_the_baseline_and_take_the_place_of_the_operators_own_to_the_candidate() -> None:
    assert with_traffic(Route(), Traffic(2, 3, 0, 10)).shadows == (Shadow("3", 0.1, of="2"),)
    route = parse_route("shadows: [{to: next, tolerance: {absolute: 0.5}, worst: 3}, {to: 4, percent: 50}]")
    assert with_traffic(route, Traffic(2, 3, 0, 10), {"next": 3}).shadows == (
        Shadow("4", 0.5),
        Shadow("3", 0.1, of="2", absolute=0.5, worst=3),
    )
    assert with_traffic(route, Traffic(2, 3, 5, 0), {"next": 3}).shadows == route.shadows


def test_a_rollout_finds_room_beside_all_shadows_that_operators_may_have() -> None:
    route = parse_route("shadows: [{to: 4}, {to: 5}, {to: 6}, {to: 9}]")
    step = with_traffic(route, Traffic(2, 3, 0, 10))
    assert [shadow.target for shadow in from_json(to_json(step)).shadows] == ["4", "5", "6", "9", "3"]


@given(ROUTES, TRAFFIC)
def test_workers_read_the_route_of_any_step_as_it_was_meant(route: Route, traffic: Traffic) -> None:
    step = with_traffic(route, traffic)
    assert from_json(to_json(step)) == step
    assert {decision.variant for decision in Router("m", step).decisions} >= {"baseline", "candidate"}


@given(ROUTES, st.text(min_size=1), st.floats(0, 100), st.floats(0, 100))
def test_a_client_that_has_the_candidate_keeps_it_while_its_weight_rises(
    route: Route, key: str, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    route = Route(sticky=parse_route("sticky: {parameter: user}").sticky, salt=route.salt)
    before, after = (
        Router("m", with_traffic(route, Traffic(7, 8, weight, 0))).decide(
            "", (), {"user": key.encode("ascii", "replace").decode()}
        )
        for weight in (low, high)
    )
    assert before.variant == "baseline" or after.variant == "candidate"
