"""Which version a name means, and what is said where it means none that answers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.table import ModelRoute, RouteTable
from runtime.errors import NotFound, NotReady


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
