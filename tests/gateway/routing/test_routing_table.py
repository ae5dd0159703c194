"""Which version a name means, and what is said where it means none that answers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from route_samples import REQUESTS, ROUTES, Asked

from gateway.routing.decision import DEFAULT, Decision
from gateway.routing.router import Router
from gateway.routing.table import ModelRoute, RouteTable
from runtime.errors import NotFound, NotReady
from runtime.routing.document import parse_route
from runtime.routing.route import Route
from runtime.shm.record_layout import Reason


def table(
    available: tuple[int, ...] = (1, 2, 10),
    labels: Mapping[str, int] | None = None,
    default: str = "",
    unavailable: Mapping[int, str] | None = None,
) -> RouteTable[str]:
    targets = {version: f"target {version}" for version in available}
    return RouteTable([ModelRoute("m", targets, labels or {}, default, unavailable or {})])


@pytest.mark.parametrize(
    ("version", "default", "expected"),
    [
        ("1", "", "target 1"),
        ("10", "", "target 10"),
        ("stable", "", "target 2"),
        ("", "", "target 10"),  # the newest by number, not by spelling
        ("", "1", "target 1"),
        ("", "stable", "target 2"),
        ("", "gone", None),
        ("3", "", None),
        ("gone", "", None),
        ("nobody", "", None),
        ("01", "", None),
    ],
)
def test_a_name_leads_to_its_version(version: str, default: str, expected: str | None) -> None:
    assert table(labels={"stable": 2, "gone": 7}, default=default).find("m", version) == expected


def test_a_default_that_is_not_available_is_not_replaced_by_another_version() -> None:
    routes = table(default="3", unavailable={3: "loading"})
    assert routes.find("m", "") is None
    assert routes.why_not("m", "").message == "model 'm' version 3 is not ready: loading"


def test_without_a_default_the_newest_available_one_answers_although_a_newer_one_is_on_its_way() -> None:
    assert table(unavailable={11: "loading"}).find("m", "") == "target 10"


THERE = "; versions: 1, 2, 4, 10; labels: lost, next"


@pytest.mark.parametrize(
    ("version", "error", "message"),
    [
        ("4", NotReady, "model 'm' version 4 is not ready: failed: the file is empty"),
        ("next", NotReady, "model 'm' version 4 is not ready: failed: the file is empty"),
        ("3", NotFound, "model 'm' has no version or label '3'" + THERE),
        ("lost", NotFound, "model 'm' has no version or label 'lost'" + THERE),
        ("²", NotFound, "model 'm' has no version or label '²'" + THERE),
        ("٤", NotFound, "model 'm' has no version or label '٤'" + THERE),
        ("04", NotFound, "model 'm' has no version or label '04'" + THERE),
        ("-1", NotFound, "model 'm' has no version or label '-1'" + THERE),
        ("9" * 300, NotFound, f"model 'm' has no version or label '{'9' * 100}'{THERE}"),
    ],
)
def test_a_miss_says_what_there_is(version: str, error: type, message: str) -> None:
    routes = table(labels={"next": 4, "lost": 99}, unavailable={4: "failed: the file is empty"})
    found = routes.why_not("m", version)
    assert (type(found), found.message) == (error, message)
    assert found.field == ("model_version" if error is NotFound else "")


def test_an_unknown_model_is_answered_with_those_there_are() -> None:
    routes: RouteTable[str] = RouteTable(ModelRoute(name, {}) for name in ("b", "a"))
    found = routes.why_not("c" * 500, "")
    assert (type(found), found.field) == (NotFound, "model_name")
    assert found.message == f"no model '{'c' * 200}'; known models: a, b"
    empty: RouteTable[str] = RouteTable()
    assert empty.why_not("m", "").message == "no model 'm'; known models: none"


def test_a_hundred_models_are_not_all_listed() -> None:
    routes: RouteTable[str] = RouteTable(ModelRoute(f"m{number:03}", {}) for number in range(100))
    message = routes.why_not("x", "").message
    assert message.endswith("m018, m019 and 80 more")


def test_a_model_without_any_version_says_so() -> None:
    found = table(available=()).why_not("m", "")
    assert (type(found), found.message) == (
        NotReady, "model 'm' has no version that is served: it was unloaded or none was loaded"
    )  # fmt: skip


def test_a_version_that_went_between_look_up_and_answer_is_not_ready() -> None:
    assert table().why_not("m", "2").message == "model 'm' version 2 is not ready: it is not served"


NAMES = st.sampled_from(["", "1", "2", "3", "4", "stable", "canary", "x", "²", "00"])


@given(
    st.sets(st.integers(1, 4)),
    st.dictionaries(st.sampled_from(["stable", "canary"]), st.integers(1, 4)),
    st.sampled_from(["", "1", "3", "stable", "canary"]),
    st.dictionaries(st.integers(1, 4), st.just("loading")),
    NAMES,
)
def test_every_name_is_either_found_or_explained(
    available: set[int], labels: dict[str, int], default: str, unavailable: dict[int, str], name: str
) -> None:
    routes = table(tuple(available), labels, default, unavailable)
    found = routes.find("m", name)
    named = labels.get(name) if not name.isascii() or not name.isdigit() else int(name) if name[0] != "0" else None
    if name == "":
        named = routes.models["m"].default_version()
    assert found == (f"target {named}" if named in available else None)
    if found is None:
        error = routes.why_not("m", name)
        known = named in unavailable or name == ""
        assert type(error) is (NotReady if known else NotFound)


def routed(
    text: str, default: str = "", unavailable: Mapping[int, str] | None = None, labels: Mapping[str, int] | None = None
) -> RouteTable[str]:
    targets = {version: f"target {version}" for version in (1, 2)}
    router = Router("m", parse_route(text))
    return RouteTable([ModelRoute("m", targets, labels or {"stable": 1}, default, unavailable or {}, router)])


def test_with_a_route_a_name_still_takes_one_look_up_and_no_name_comes_to_the_junction() -> None:
    routes = routed("split: {stable: 1}")
    assert routes.route("m", "2") == ("target 2", ("pinned", Reason.VERSION))
    assert routes.route("m", "stable") == ("target 1", ("stable", Reason.LABEL))
    assert routes.route("m", "") is None
    way = routes.junctions["m"].lead((), None, "")
    assert (way.target, way.version, way.routing) == ("target 1", 1, ("stable", Reason.DRAWN))
    assert table().junctions == {}


@pytest.mark.parametrize(("default", "expected"), [("", "target 2"), ("stable", "target 1"), ("3", None)])
def test_what_describes_the_model_is_its_default_whatever_its_route_says(default: str, expected: str | None) -> None:
    assert routed("split: {stable: 1}", default).find("m", "") == expected


def test_equal_decisions_are_one_routing_by_value_over_all_tables() -> None:
    """Records number routings by value: tables come and go, and may not fill what remembers them."""
    first, second = (routed("split: {stable: 1, '2': 1}").junctions["m"]._ways.values() for _ in range(2))
    assert {way.routing for way in first} == {way.routing for way in second}


LED = " (the model's route leads this request there, as variant 'v')"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("", "model 'm' version 3 is not ready: loading"),
        ("3", f"model 'm' version 3 is not ready: loading{LED}"),
        ("7", f"model 'm' has no version or label '7'; versions: 1, 2, 3; labels: stable{LED}"),
    ],
)
def test_where_a_route_leads_to_nothing_the_server_is_at_fault(target: str, message: str) -> None:
    routes = routed("split: {v: {to: 3, weight: 1}}", "3", {3: "loading"})
    error = routes.why_not_led("m", Decision(target, "v", Reason.DRAWN) if target else DEFAULT)
    assert (type(error), error.message) == (NotReady, message)


@given(
    ROUTES,
    st.dictionaries(st.sampled_from(["stable", "canary"]), st.integers(1, 3)),
    st.sampled_from(["", "1", "3", "canary"]),
    st.lists(REQUESTS, max_size=8),
)
def test_a_junction_leads_where_the_decision_says(
    route: Route, labels: dict[str, int], default: str, requests: list[Asked]
) -> None:
    router = Router("m", route, draw=lambda: 0.5)
    targets = {1: "target 1", 2: "target 2"}
    routes = RouteTable([ModelRoute("m", targets, labels, default, {3: "loading"}, router)])
    for asked in requests:
        decision = router.decide("", *asked[1:])
        way = routes.junctions["m"].lead(*asked[1:])
        assert way.decision is decision
        assert way.routing == (decision.variant, decision.reason)
        assert way.target == routes.find("m", decision.target)
        if way.target is None:
            assert type(routes.why_not_led("m", decision)) is NotReady
