"""The life of a rollout is the table and nothing else."""

from __future__ import annotations

import pytest

from runtime.rollout.phase import FINAL, TRANSITIONS, NotPossible, Phase, RolloutEvent, advance, mermaid


@pytest.mark.parametrize("event", RolloutEvent)
@pytest.mark.parametrize("phase", Phase)
def test_each_pair_of_phase_and_event_moves_as_the_table_says_or_is_refused(phase: Phase, event: RolloutEvent) -> None:
    if (phase, event) in TRANSITIONS:
        assert advance(phase, event) is TRANSITIONS[phase, event]
    else:
        with pytest.raises(NotPossible, match=f"'{event.value}' is not possible .* {phase.value}"):
            advance(phase, event)


def test_what_is_final_has_no_way_out_and_everything_else_can_be_aborted() -> None:
    assert {phase for phase, _ in TRANSITIONS} == set(Phase) - FINAL
    assert {phase for phase, event in TRANSITIONS if event is RolloutEvent.ABORT} == set(Phase) - FINAL


def test_every_phase_is_reached_from_the_first() -> None:
    reached = {Phase.DRAFT}
    for _ in Phase:
        reached |= {after for (before, _), after in TRANSITIONS.items() if before in reached}
    assert reached == set(Phase)


def test_harm_ends_a_rollout_wherever_the_candidate_has_traffic() -> None:
    harmed = {phase: after for (phase, event), after in TRANSITIONS.items() if event is RolloutEvent.HARM}
    assert harmed == dict.fromkeys((Phase.SHADOW, Phase.CANARY, Phase.HOLD), Phase.ROLLED_BACK)


def test_the_diagram_holds_every_transition_and_every_end() -> None:
    lines = [line.strip() for line in mermaid().splitlines()]
    assert lines[:2] == ["stateDiagram-v2", "[*] --> DRAFT"]
    assert sorted(lines[2:]) == sorted(
        [f"{before.name} --> {after.name}: {event.value}" for (before, event), after in TRANSITIONS.items()]
        + [f"{phase.name} --> [*]" for phase in FINAL]
    )
