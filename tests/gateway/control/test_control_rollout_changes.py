"""What a rollout makes of a model's desired state: pure steps, each of which may be done twice."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.control.rollout_changes import Before, before_rollout, begun, promoted, require_fit, taken_back
from gateway.errors import Precondition
from gateway.store.contract import DesiredModel, DesiredVersion
from runtime.errors import NotFound


def desired(*versions: int, served: bool = True, **fields: Any) -> DesiredModel:
    return DesiredModel("m", served, _versions(*versions), **fields)


def _versions(*numbers: int) -> tuple[DesiredVersion, ...]:
    return tuple(DesiredVersion(number, "sha256:a", 1) for number in numbers)


def numbers(model: DesiredModel) -> list[int]:
    return [version.version for version in model.versions]


@pytest.mark.parametrize("before", [Before("", (), False), Before("stable", (1, 2), True)])
def test_what_was_before_comes_back_from_the_store(before: Before) -> None:
    assert Before.from_json(before.to_json()) == before


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"default_target": "", "pinned_versions": 3, "had_candidate": false}']
)
def test_what_the_store_holds_and_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # of JSON too
        Before.from_json(text)


def test_a_rollout_begins_with_a_served_baseline_another_candidate_and_no_split() -> None:
    require_fit(desired(1), 1, 2)
    with pytest.raises(NotFound, match="version 2 of model 'm' is not served"):
        require_fit(desired(1), 2, 3)
    with pytest.raises(NotFound, match="version 1 of model 'm' is not served"):
        require_fit(desired(1, served=False), 1, 2)
    with pytest.raises(Precondition, match="version 1 of model 'm' is the baseline already"):
        require_fit(desired(1), 1, 1)
    with pytest.raises(Precondition, match="the route of model 'm' has a split"):
        require_fit(desired(1, route='{"split":{"1":1}}'), 1, 2)
    require_fit(desired(1, route='{"rules":[{"name":"r","when":{"x":"y"},"to":"1"}]}'), 1, 2)


@pytest.mark.parametrize(("target", "held"), [("", "1"), ("stable", "stable"), ("1", "1")])
def test_the_default_stays_where_it_is_while_a_newer_version_is_tried(target: str, held: str) -> None:
    model = desired(1, labels={"stable": 1}, default_target=target)
    after = begun(model, _versions(1, 2), 1)
    assert (numbers(after), after.pinned_versions, after.default_target) == ([1, 2], (1, 2), held)
    assert begun(after, after.versions, 1) == after


@pytest.mark.parametrize(
    ("target", "labels", "default", "labels_after"),
    [
        ("stable", {"stable": 1, "old": 1}, "stable", {"stable": 2, "old": 1}),
        ("1", {"stable": 1}, "2", {"stable": 1}),
        ("other", {"other": 3}, "2", {"other": 3}),
        ("", {}, "2", {}),
    ],
)
def test_live_moves_the_label_that_is_the_default_or_else_the_default(
    target: str, labels: dict[str, int], default: str, labels_after: dict[str, int]
) -> None:
    model = desired(1, 2, 3, labels=labels, default_target=target)
    after = promoted(model, 1, 2)
    assert (after.default_target, after.labels, numbers(after)) == (default, labels_after, [1, 2, 3])
    assert promoted(after, 1, 2) == after


def test_what_is_not_served_is_not_promoted() -> None:
    with pytest.raises(NotFound):
        promoted(desired(1), 1, 2)


@pytest.mark.parametrize(("target", "pinned"), [("", ()), ("stable", (1,)), ("1", (1, 3))])
def test_taken_back_all_is_as_before(target: str, pinned: tuple[int, ...]) -> None:
    model = desired(1, 3, labels={"stable": 1}, default_target=target, pinned_versions=pinned)
    before = before_rollout(model, 4)
    during = begun(model, _versions(1, 3, 4), 1)
    assert taken_back(during, 1, 4, before, policy_selects=False) == model
    assert taken_back(model, 1, 4, before, policy_selects=False) == model


def test_a_candidate_that_was_served_before_stays() -> None:
    model = desired(1, 2, default_target="1")
    before = before_rollout(model, 2)
    during = begun(model, model.versions, 1)
    assert taken_back(during, 1, 2, before, policy_selects=True) == model


def test_what_has_failed_does_not_come_back_by_the_policy() -> None:
    model = desired(1)
    before = before_rollout(model, 2)
    during = begun(model, _versions(1, 2), 1)
    after = taken_back(during, 1, 2, before, policy_selects=True)
    assert (numbers(after), after.pinned_versions, after.default_target) == ([1], (1,), "")
    assert taken_back(after, 1, 2, before, policy_selects=True) == after


@pytest.mark.parametrize("named", [{"labels": {"look": 2}}, {"route": '{"shadows":[{"to":"2"}]}'}])
def test_a_candidate_that_is_named_by_now_stays_and_does_not_become_the_default(named: dict[str, Any]) -> None:
    model = desired(1)
    before = before_rollout(model, 2)
    during = DesiredModel("m", True, _versions(1, 2), default_target="1", pinned_versions=(1, 2), **named)
    after = taken_back(during, 1, 2, before, policy_selects=False)
    assert (numbers(after), after.default_target) == ([1, 2], "1")
