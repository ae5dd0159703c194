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
    next_versions,
    pinned_by_names,
    with_default,
    with_label,
    without_label,
    without_version,
)
from gateway.errors import Precondition
from gateway.store.contract import DesiredModel, DesiredVersion
from runtime.errors import NotFound
from runtime.repository.manifest import manifest_of
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


def test_workers_are_told_where_the_files_are_and_what_lacks_them() -> None:
    model = desired(1, 2, labels={"a": 1}, default_target="a")
    order = model_order(
        model,
        {(1, "sha256:a"): candidate(1)},
        prepare=[(DesiredVersion(3, "sha256:c", 2, {"instances": 2}), candidate(3, "sha256:c"))],
        prepare_on=0,
        unavailable={1: "not loaded", 4: "incomplete: it is empty"},
    )
    assert [(v.version, v.digest, v.folder, v.model_filename) for v in order.serve] == [
        (1, "sha256:a", "/cache/sha256:a", "net.onnx")
    ]
    assert [(v.version, v.generation, v.manifest) for v in order.prepare] == [(3, 2, {"instances": 2})]
    assert (order.labels, order.default_target, order.prepare_on) == ({"a": 1}, "a", 0)
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
    )
    assert (order.serve, order.unavailable) == ((), {1: "unloaded"})
