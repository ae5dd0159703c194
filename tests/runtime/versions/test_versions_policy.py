"""The policy: one action at a time, always towards what is desired, and at no one's expense."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.versions.policy import Action, Forget, InstanceKey, Load, Retire, next_action
from runtime.versions.state import FINAL, VersionState

KEYS = st.builds(
    InstanceKey, st.sampled_from(["a", "b"]), st.integers(1, 3), st.sampled_from(["x", "y"]), st.integers(1, 2)
)
DESIRED = st.lists(KEYS, unique=True, max_size=6)
PRESENT = st.dictionaries(KEYS, st.sampled_from(VersionState), max_size=8)
# The manager loads in one step, so between two steps nothing is on its way up.
RESTING = st.dictionaries(
    KEYS,
    st.sampled_from([VersionState.AVAILABLE, VersionState.DRAINING, VersionState.UNLOADED, VersionState.FAILED]),
    max_size=8,
)


@given(DESIRED, PRESENT)
def test_the_same_question_has_the_same_answer_and_changes_nothing(
    desired: list[InstanceKey], present: dict[InstanceKey, VersionState]
) -> None:
    before = (list(desired), dict(present))
    first = next_action(desired, present)
    assert (first, (desired, present)) == (next_action(iter(desired), present), before)


@given(DESIRED, PRESENT)
def test_what_is_missing_is_loaded_in_the_order_asked_for_before_anything_else(
    desired: list[InstanceKey], present: dict[InstanceKey, VersionState]
) -> None:
    missing = [key for key in desired if key not in present]
    action = next_action(desired, present)
    assert action == Load(missing[0]) if missing else not isinstance(action, Load)


@given(DESIRED, PRESENT)
def test_only_what_is_available_and_unwanted_is_retired_and_only_what_is_over_is_forgotten(
    desired: list[InstanceKey], present: dict[InstanceKey, VersionState]
) -> None:
    action = next_action(desired, present)
    if isinstance(action, Retire):
        assert action.key not in desired
        assert present[action.key] is VersionState.AVAILABLE
    if isinstance(action, Forget):
        assert present[action.key] in FINAL
        assert action.key not in desired or present[action.key] is VersionState.UNLOADED


@given(DESIRED, RESTING, st.sets(KEYS))
def test_following_it_ends_with_the_desired_versions_and_nothing_else(
    desired: list[InstanceKey], present: dict[InstanceKey, VersionState], broken: set[InstanceKey]
) -> None:
    """`broken` cannot be loaded; they end as failed and are not tried again and again."""
    given_up = broken | {key for key, state in present.items() if state is VersionState.FAILED}
    taken: list[Action] = []
    limit = 4 * (len(desired) + len(present)) + 1
    while len(taken) < limit:
        action = next_action(desired, present)
        draining = [key for key, state in present.items() if state is VersionState.DRAINING]
        if action is None and not draining:
            break
        if action is None:
            present[draining[0]] = VersionState.UNLOADED
            continue
        taken.append(action)
        if isinstance(action, Load):
            present[action.key] = VersionState.FAILED if action.key in broken else VersionState.AVAILABLE
        elif isinstance(action, Retire):
            present[action.key] = VersionState.DRAINING
        else:
            del present[action.key]
    assert set(present) == set(desired)
    assert all(
        state is VersionState.AVAILABLE or (state is VersionState.FAILED and key in given_up)
        for key, state in present.items()
    )
    loads = [action.key for action in taken if isinstance(action, Load)]
    assert len(loads) == len(set(loads))


def test_a_version_wanted_again_while_it_drains_is_loaded_anew_when_it_is_gone() -> None:
    key = InstanceKey("a", 1, "x", 1)
    assert next_action([key], {key: VersionState.DRAINING}) is None
    assert next_action([key], {key: VersionState.UNLOADED}) == Forget(key)
    assert next_action([key], {}) == Load(key)


def test_a_failed_version_is_not_tried_again_but_another_generation_is() -> None:
    failed, anew = InstanceKey("a", 1, "x", 1), InstanceKey("a", 1, "x", 2)
    assert next_action([failed], {failed: VersionState.FAILED}) is None
    assert next_action([anew], {failed: VersionState.FAILED}) == Load(anew)
    assert next_action([anew], {failed: VersionState.FAILED, anew: VersionState.AVAILABLE}) == Forget(failed)
