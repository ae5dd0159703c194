"""The life of a version is the table and nothing else."""

from __future__ import annotations

import pytest

from runtime.versions.state import FINAL, TRANSITIONS, Event, IllegalTransition, VersionState, advance, mermaid


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", VersionState)
def test_each_pair_of_state_and_event_moves_as_the_table_says_or_is_refused(state: VersionState, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert advance(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransition, match=f"'{event.value}' is not possible .* {state.value}"):
            advance(state, event)


def test_what_is_final_has_no_way_out_and_everything_else_has_one() -> None:
    assert {state for state, _ in TRANSITIONS} == set(VersionState) - FINAL


def test_every_state_is_reached_from_the_first() -> None:
    reached = {VersionState.NOT_LOADED}
    for _ in VersionState:
        reached |= {after for (before, _), after in TRANSITIONS.items() if before in reached}
    assert reached == set(VersionState)


def test_only_a_warmed_up_version_becomes_available_and_only_a_drained_one_is_unloaded() -> None:
    into = {state: {before for (before, _), after in TRANSITIONS.items() if after is state} for state in VersionState}
    assert into[VersionState.AVAILABLE] == {VersionState.WARMING_UP}
    assert into[VersionState.UNLOADED] == {VersionState.DRAINING, VersionState.NOT_LOADED}


def test_the_diagram_holds_every_transition_and_every_end() -> None:
    lines = [line.strip() for line in mermaid().splitlines()]
    assert lines[:2] == ["stateDiagram-v2", "[*] --> NOT_LOADED"]
    assert sorted(lines[2:]) == sorted(
        [f"{before.name} --> {after.name}: {event.value}" for (before, event), after in TRANSITIONS.items()]
        + ["UNLOADED --> [*]", "FAILED --> [*]"]
    )
