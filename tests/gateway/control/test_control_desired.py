"""From what is in the store and the repository to what workers are told: pure steps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.control.desired import (
    Candidate,
    choose_versions,
    model_order,
    names_at_load,
    next_versions,
    operators_route,
    pinned_by_names,
    route_text,
    with_default,
    with_label,
    with_route,
    without_label,
    without_version,
)
from gateway.errors import Precondition
from gateway.store.contract import DesiredModel, DesiredVersion
from runtime.errors import NotFound
from runtime.repository.manifest import manifest_of, parse_manifest
from runtime.routing.document import RouteError, parse_route
from runtime.routing.route import Route
from runtime.types import Artifact


def manifest(versions: Any) -> Any:
    return manifest_of({"versions": versions}, "model.yaml")


def candidate(version: int, digest: str = "sha256:a", **settings: Any) -> Candidate:
    artifact = Artifact(
        model="m", version=version, digest=digest, folder=f"/cache/{digest}", file_bytes=10, model_filename="net.onnx"
    )
    return Candidate(artifact, settings)


def desired(*versions: int, served: bool = True, **fields: Any) -> DesiredModel:
    return DesiredModel("m", served, tuple(DesiredVersion(v, "sha256:a", 1) for v in versions), **fields)


@pytest.mark.parametrize(
    ("policy", "wanted", "keep", "chosen"),
    [
        ("latest", (), (), (5,)),
        ({"latest": 2}, (), (), (3, 5)),
        ("all", (), (), (1, 3, 5)),
        ({"specific": [1, 9]}, (), (), (1,)),
        ("latest", (), (1,), (1, 5)),  # a label pins its version
        ("latest", (3,), (), (3,)),
        ("latest", (3, 1), (5,), (1, 3, 5)),
    ],
)
def test_an_operators_choice_or_the_policy_selects_and_names_pin(
    policy: Any, wanted: tuple[int, ...], keep: tuple[int, ...], chosen: tuple[int, ...]
) -> None:
    assert choose_versions("m", (1, 3, 5), manifest(policy), wanted, keep) == chosen


@pytest.mark.parametrize(
    ("available", "policy", "wanted", "says"),
    [
        ((1, 2), "all", (2, 3, 4), "model 'm' has no complete version 3, 4 in the repository; it has 1, 2"),
        ((), "latest", (), "model 'm' has no version to serve: the policy latest(1) selects none of none"),
        ((1,), {"specific": [7]}, (), "model 'm' has no version to serve: the policy specific(7) selects none of 1"),
    ],
)
def test_what_is_not_there_is_not_found(
    available: tuple[int, ...], policy: Any, wanted: tuple[int, ...], says: str
) -> None:
    with pytest.raises(NotFound) as caught:
        choose_versions("m", available, manifest(policy), wanted, ())
    assert caught.value.message == says


def generations(before: DesiredModel | None, *candidates: Candidate, force: bool = False, last: int = 0) -> list[int]:
    by_version = {one.artifact.version: one for one in candidates}
    found = next_versions(before, by_version, force=force, last_generation=last)
    assert [version.version for version in found] == sorted(by_version)
    return [version.generation for version in found]


def test_only_what_differs_is_loaded_anew() -> None:
    before = DesiredModel(
        "m", True, (DesiredVersion(1, "sha256:a", 1, {"k": 1}), DesiredVersion(2, "sha256:b", 4, {"k": 1}))
    )
    same = (candidate(1, "sha256:a", k=1), candidate(2, "sha256:b", k=1))
    assert generations(None, *same) == [1, 1]
    assert generations(before, *same) == [1, 4]
    assert generations(before, candidate(1, "sha256:c", k=1), same[1]) == [5, 4]
    assert generations(before, same[0], candidate(2, "sha256:b", k=2)) == [1, 5]
    assert generations(before, *same, candidate(3, k=1)) == [1, 4, 5]
    assert generations(before, *same, force=True) == [5, 5]


def test_a_generation_is_never_given_out_twice_also_not_after_a_failure() -> None:
    assert generations(desired(1), candidate(1), candidate(2), last=7) == [1, 8]
    assert generations(desired(1, served=False), candidate(1)) == [2], "what was unloaded is loaded anew"


@given(
    st.dictionaries(st.integers(1, 4), st.tuples(st.sampled_from("ab"), st.integers(1, 9))),
    st.dictionaries(st.integers(1, 4), st.sampled_from("ab"), min_size=1),
    st.integers(0, 12),
    st.booleans(),
)
def test_a_new_generation_is_above_all_before_it(
    served: dict[int, tuple[str, int]], found: dict[int, str], last: int, force: bool
) -> None:
    before = DesiredModel("m", True, tuple(DesiredVersion(v, d, g) for v, (d, g) in sorted(served.items())))
    chosen = next_versions(
        before, {v: candidate(v, digest) for v, digest in found.items()}, force=force, last_generation=last
    )
    for version in chosen:
        if version not in before.versions or force:
            assert version.generation > max([last, *(g for _, g in served.values())])
        else:
            assert served[version.version] == (found[version.version], version.generation)


def test_a_label_leads_to_a_version_that_is_served() -> None:
    model = with_label(desired(1, 2), "stable", 1)
    assert with_label(model, "stable", 2).labels == {"stable": 2}
    for broken in (model, desired(1, 2, served=False)):
        with pytest.raises(NotFound, match=r"version 3 of model 'm' is not served; served: .*: load it first"):
            with_label(broken, "canary", 3)


def test_a_label_is_removed_unless_the_default_needs_it() -> None:
    model = desired(1, labels={"stable": 1, "canary": 1}, default_target="stable")
    assert without_label(model, "canary").labels == {"stable": 1}
    with pytest.raises(Precondition, match="label 'stable' is the default of model 'm': set another default first"):
        without_label(model, "stable")
    with pytest.raises(NotFound, match="model 'm' has no label 'x'; it has canary, stable"):
        without_label(model, "x")


@pytest.mark.parametrize("target", ["", "2", "stable"])
def test_a_default_is_a_served_version_a_label_or_the_newest(target: str) -> None:
    assert with_default(desired(1, 2, labels={"stable": 1}), target).default_target == target


@pytest.mark.parametrize("target", ["3", "x", "²", "02", "-1", "9" * 40])
def test_a_default_that_names_nothing_is_not_found(target: str) -> None:
    with pytest.raises(NotFound):
        with_default(desired(1, 2, labels={"stable": 1}), target)


def test_a_version_that_is_named_stays() -> None:
    model = desired(1, 2, 3, labels={"b": 2, "a": 2}, default_target="1")
    with pytest.raises(Precondition, match="version 2 of model 'm' is named by a, b: point these at another"):
        without_version(model, 2)
    with pytest.raises(Precondition, match="version 1 of model 'm' is named by the default"):
        without_version(model, 1)
    left = without_version(model, 3)
    assert ([v.version for v in left.versions], left.served, left.pinned_versions) == ([1, 2], True, (1, 2))


def test_a_model_without_its_last_version_is_not_served() -> None:
    assert without_version(desired(1), 1).served is False


def test_names_pin_what_is_served() -> None:
    model = desired(1, 2, 3, labels={"a": 2, "gone": 9}, default_target="3")
    assert pinned_by_names(model) == (2, 3)
    assert pinned_by_names(desired(1, labels={"a": 1}, default_target="a")) == (1,)


ROUTE = "rules: [{name: r, when: {x: y}, to: 3}]\nsplit: {stable: 9, c: {to: 2, weight: 1}}\nshadows: [{to: 4, of: 2}]"


def routed(*versions: int, **fields: Any) -> DesiredModel:
    return desired(*versions, labels={"stable": 1}, route=route_text(parse_route(ROUTE)), **fields)


def test_a_route_pins_what_it_names_by_number_in_rules_splits_and_shadows() -> None:
    assert pinned_by_names(routed(1, 2, 3, 4, 5)) == (1, 2, 3, 4)
    assert pinned_by_names(routed(2, 5)) == (2,), "as far as it is served"


def test_a_version_or_label_that_the_route_names_stays() -> None:
    model = routed(1, 2, 3, 4, 5)
    with pytest.raises(Precondition, match=r"version 3 of model 'm' is named by route\.rules\[0\]\.to: point"):
        without_version(model, 3)
    with pytest.raises(
        Precondition, match=r"version 2 of model 'm' is named by route\.shadows\[0\]\.of, route\.split\.c"
    ):
        without_version(model, 2)
    with pytest.raises(Precondition, match=r"label 'stable' of model 'm' is named by route\.split\.stable: point"):
        without_label(model, "stable")
    assert [v.version for v in without_version(model, 5).versions] == [1, 2, 3, 4]
    assert with_label(model, "stable", 5).labels == {"stable": 5}, "a label that a route names may move"


def test_a_route_leads_to_what_is_served_and_every_other_target_is_named() -> None:
    model = with_route(desired(1, 2, 3, 4, labels={"stable": 1}), parse_route(ROUTE))
    assert operators_route(model) == parse_route(ROUTE)
    assert with_route(model, Route()).route == "", "an empty route is none"
    with pytest.raises(RouteError) as caught:
        with_route(desired(2, 3), parse_route(ROUTE))
    assert caught.value.problems == (
        "split.stable: the model has no label 'stable'; labels: none",
        "shadows[0].to: the model has no version 4; versions: 2, 3",
    )
    with pytest.raises(RouteError, match="the model has no version 2; versions: none"):
        with_route(desired(2, served=False), parse_route("split: {2: 1}"))


def test_names_are_the_manifests_at_the_first_load_and_the_operators_from_then_on() -> None:
    found = parse_manifest(
        "labels: {stable: 1, old: 9}\ndefault: stable\nroute: {split: {stable: 1, 2: 1}}", "model.yaml"
    )
    first = names_at_load(None, found, (1, 2))
    assert (first.labels, first.default_target) == ({"stable": 1}, "stable")
    assert first.route == '{"split":{"stable":1,"2":1}}'
    later = names_at_load(desired(1, 2, labels={"b": 2}, default_target="b"), found, (1, 2))
    assert (later.labels, later.default_target, later.route) == ({"b": 2}, "b", "")


def test_a_load_without_what_the_route_leads_to_is_refused_with_every_target() -> None:
    found = parse_manifest("route: {split: {stable: 1, 2: 1}}", "model.yaml")
    with pytest.raises(Precondition) as caught:
        names_at_load(None, found, (1,))
    assert caught.value.message == (
        "model.yaml's route leads to what would not be served (change route, labels or versions):\n"
        "split.stable: the model has no label 'stable'; labels: none;\n"
        "split.2: the model has no version 2; versions: 1"
    )
    with pytest.raises(
        Precondition, match=r"the route leads to what .* \(change the route, or load these too\):\nrules"
    ):
        names_at_load(routed(1, 2, 4), manifest("all"), (1, 2, 4))


def test_workers_are_told_where_the_files_are_and_what_lacks_them() -> None:
    model = desired(1, 2, labels={"a": 1}, default_target="a")
    order = model_order(
        model,
        {(1, "sha256:a"): candidate(1)},
        prepare=[(DesiredVersion(3, "sha256:c", 2, {"instances": 2}), candidate(3, "sha256:c"))],
        prepare_on=0,
        unavailable={1: "not loaded", 4: "incomplete: it is empty"},
        route=parse_route("split: {a: 9, 2: 1}"),
    )
    assert [(v.version, v.digest, v.folder, v.model_filename) for v in order.serve] == [
        (1, "sha256:a", "/cache/sha256:a", "net.onnx")
    ]
    assert [(v.version, v.generation, v.manifest) for v in order.prepare] == [(3, 2, {"instances": 2})]
    assert (order.labels, order.default_target, order.prepare_on) == ({"a": 1}, "a", 0)
    assert order.route == '{"split":{"a":9,"2":1}}'
    assert order.unavailable == {
        2: "its files are neither in the repository nor in the cache", 4: "incomplete: it is empty"
    }  # fmt: skip


def test_nothing_of_an_unloaded_model_is_ordered() -> None:
    order = model_order(
        desired(1, served=False),
        {(1, "sha256:a"): candidate(1)},
        prepare=(),
        prepare_on=-1,
        unavailable={1: "unloaded"},
        route=Route(),
    )
    assert (order.serve, order.unavailable, order.route) == ((), {1: "unloaded"}, "")
