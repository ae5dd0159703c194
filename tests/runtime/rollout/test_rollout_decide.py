"""A look or a command in; a rollout, a decision and what is to be done out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rollout_samples import FIVE, SHADOW, TWENTY, asked, look, plan_of, started

from runtime.rollout.counts import ArmCounts, Counts, CountsWentBack, DriftSign, Mean, Observation
from runtime.rollout.decide import Outcome, WrongPlan, command, recompute, step
from runtime.rollout.decision import Decision, Verb
from runtime.rollout.evidence import Says
from runtime.rollout.phase import FINAL, NotPossible, Phase, RolloutEvent
from runtime.rollout.plan import Plan
from runtime.rollout.rollout import CountAnew, Rollout, Route, draft, route

ERRORS = {"errors": {}}


def rollout_in(phase: Phase, plan: Plan) -> Rollout:
    shadow = started(plan)
    canary = command(plan, shadow, 0.0, asked(Verb.PROMOTE))[0]
    match phase:
        case Phase.DRAFT:
            return draft(plan)
        case Phase.SHADOW:
            return shadow
        case Phase.CANARY:
            return canary
        case Phase.HOLD:
            return command(plan, canary, 0.0, asked(Verb.PAUSE))[0]
    return replace(canary, phase=phase)


POSSIBLE: dict[Verb, dict[Phase, Phase]] = {
    Verb.START: {Phase.DRAFT: Phase.SHADOW},
    Verb.PAUSE: {Phase.SHADOW: Phase.HOLD, Phase.CANARY: Phase.HOLD},
    Verb.RESUME: {Phase.HOLD: Phase.CANARY, Phase.INCONCLUSIVE: Phase.CANARY},
    Verb.PROMOTE: {
        Phase.SHADOW: Phase.CANARY,
        Phase.CANARY: Phase.CANARY,
        Phase.HOLD: Phase.CANARY,
        Phase.INCONCLUSIVE: Phase.CANARY,
    },
    Verb.ABORT: {phase: Phase.ABORTED for phase in Phase if phase not in FINAL},
}


@pytest.mark.parametrize("verb", Verb)
@pytest.mark.parametrize("phase", Phase)
def test_each_command_does_what_it_says_or_is_refused_with_where_it_is_possible(phase: Phase, verb: Verb) -> None:
    plan = plan_of()
    before = rollout_in(phase, plan)
    if phase in POSSIBLE[verb]:
        after, decision, _ = command(plan, before, 5.0, asked(verb, "a test"))
        assert after.phase is POSSIBLE[verb][phase]
        assert after.reason == decision.reason == f"{verb.value} by ann: a test"
        assert recompute(plan, decision) == decision
    else:
        with pytest.raises(NotPossible, match=f"{verb.value} is possible .* this one is {phase.value}"):
            command(plan, before, 5.0, asked(verb))


def test_a_rollout_starts_with_its_first_steps_traffic_and_counts_from_there() -> None:
    plan = plan_of()
    after, decision, actions = command(plan, draft(plan), 7.0, asked(Verb.START))
    assert actions == (Route(0, 10), CountAnew(1))
    assert (after.phase, after.step, after.last_seconds) == (Phase.SHADOW, 0, 7.0)
    assert decision.event is RolloutEvent.SHADOW_STEP


def test_steps_follow_each_other_to_live_when_time_and_requests_suffice() -> None:
    plan = plan_of(gates=ERRORS)
    rollout, seen = started(plan), []
    for second in range(1, 500):
        requests = 100 * second
        rollout, decision, actions = step(plan, rollout, float(second), look(rollout, requests, 0, requests))
        if decision.moved:
            seen.append((second, decision.event, actions))
        if rollout.phase is Phase.LIVE:
            break
    assert seen == [
        (60, RolloutEvent.CANARY_STEP, (Route(5, 0), CountAnew(2))),
        (120, RolloutEvent.CANARY_STEP, (Route(20, 0), CountAnew(3))),
        (180, RolloutEvent.GO_LIVE, (Route(100, 0, live=True),)),
    ]


def after_looks(plan: Plan, *observations: dict[str, Any], rollout: Rollout | None = None) -> Outcome:
    """Looks ten seconds apart at cumulative counts."""
    rollout = rollout or started(plan)
    at = rollout.last_seconds or 0.0
    outcome: Outcome | None = None
    for observation in observations:
        at += 10
        outcome = step(plan, rollout, at, look(rollout, **observation))
        rollout = outcome[0]
    assert outcome is not None
    return outcome


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.CANARY, Phase.HOLD])
@pytest.mark.parametrize(
    ("observation", "why"),
    [
        ({"load_failed": "warm-up failed"}, "could not be loaded: warm-up failed"),
        ({"crashes": 1, "candidate": 500, "baseline": 5_000}, "has ended 1 processes"),
        ({"candidate": 12, "errors": 10, "baseline": 100}, "10 of the candidate's first 12 requests failed"),
        ({"candidate": 12, "errors": 10}, "10 of the candidate's first 12 requests failed"),
        ({"candidate": 1_000, "errors": 200, "baseline": 9_000}, "200 of the candidate's first 1,000"),
    ],
)
def test_hard_failures_are_out_within_one_look_also_on_hold(
    phase: Phase, observation: dict[str, Any], why: str
) -> None:
    plan = plan_of(on_harm="hold")
    before = rollout_in(phase, plan)
    after, decision, actions = step(plan, before, 1.0, look(before, **observation))
    assert after.phase is Phase.ROLLED_BACK
    assert why in decision.reason
    assert Route(0, 0) in actions


def test_errors_that_the_baseline_has_as_well_are_no_hard_failure() -> None:
    plan = plan_of(gates=ERRORS)
    rollout = started(plan)
    counts = Counts(ArmCounts(40, 30), ArmCounts(400, 290))
    assert step(plan, rollout, 1.0, look(rollout, counts=counts))[0].phase is Phase.SHADOW


def test_errors_after_the_first_requests_are_for_the_gate_and_not_for_the_hard_limit() -> None:
    plan = plan_of(gates={"errors": {"margin": 0.5}})
    rollout = started(plan)
    assert (
        after_looks(plan, {"candidate": 60}, {"candidate": 100, "errors": 15}, rollout=rollout)[0].phase is Phase.SHADOW
    )


HARM = ({"candidate": 100, "errors": 2, "baseline": 1_000}, {"candidate": 1_000, "errors": 60, "baseline": 10_000})


def test_harm_rolls_back_with_its_figures_in_the_reason() -> None:
    after, decision, actions = after_looks(plan_of(gates=ERRORS), *HARM)
    assert after.phase is Phase.ROLLED_BACK
    assert actions == (Route(0, 0),)
    assert decision.reason.startswith(
        "errors: harm shown; candidate 6 %, baseline 0 %, allowed 0.5 %; 1,000 and 10,000"
    )
    assert decision.sentence().startswith("step 1, shadow → rolled back: errors: harm shown")
    assert [reading.says for reading in decision.readings] == [Says.HARM]


def test_harm_holds_where_the_plan_says_so_and_again_after_a_resume_but_an_operator_can_promote() -> None:
    plan = plan_of(gates=ERRORS, on_harm="hold")
    held, decision, actions = after_looks(plan, *HARM)
    assert (held.phase, decision.event, actions) == (Phase.HOLD, RolloutEvent.STOP, ())
    assert route(plan, held) == Route(0, 10)
    same, decision, _ = after_looks(plan, HARM[-1], rollout=held)
    assert (same.phase, decision.moved) == (Phase.HOLD, False)
    resumed = command(plan, held, 100.0, asked(Verb.RESUME))[0]
    assert after_looks(plan, HARM[-1], rollout=resumed)[0].phase is Phase.HOLD
    promoted, _, actions = command(plan, held, 100.0, asked(Verb.PROMOTE, "known and accepted"))
    assert (promoted.phase, promoted.step, promoted.evidence) == (Phase.CANARY, 1, ())
    assert actions == (Route(5, 0), CountAnew(2))


def test_a_passed_step_waits_where_the_plan_says_so() -> None:
    plan = plan_of(gates=ERRORS, on_passed="hold", steps=[FIVE])
    looks = [{"candidate": 100 * k, "baseline": 1_000 * k} for k in range(1, 7)]
    held, decision, _ = after_looks(plan, *looks)
    assert held.phase is Phase.HOLD
    assert "the plan waits for an operator" in decision.reason
    assert command(plan, held, 99.0, asked(Verb.PROMOTE))[0].phase is Phase.LIVE


@pytest.mark.parametrize(
    ("rule", "phase", "traffic"),
    [
        ("inconclusive", Phase.INCONCLUSIVE, Route(0, 0)),
        ("hold", Phase.HOLD, Route(5, 0)),
        ("wait", Phase.CANARY, Route(5, 0)),
    ],
)
def test_no_traffic_is_never_promoted_and_ends_as_the_plan_says(rule: str, phase: Phase, traffic: Route) -> None:
    plan = plan_of(gates=ERRORS, steps=[FIVE | {"max_duration_seconds": 100}], at_max_duration=rule)
    rollout = started(plan)
    for second in range(1, 200):
        rollout, decision, _ = step(plan, rollout, float(second), look(rollout))
    assert (rollout.phase, route(plan, rollout)) == (phase, traffic)
    if rule != "wait":
        assert rollout.reason == "no conclusion within 100 s: 0 of 100 requests"
    else:
        assert decision.reason == "waits for 0 of 100 requests"


def test_no_step_is_passed_by_a_candidate_that_nobody_asked_or_a_gate_that_has_seen_nothing() -> None:
    """Whatever the plan says of requests; such as agreement where every copy was shed."""
    nobody = plan_of(gates=ERRORS, steps=[FIVE | {"min_requests": 0, "min_duration_seconds": 0}])
    after, decision, _ = step(nobody, started(nobody), 100.0, look(started(nobody)))
    assert (after.phase, decision.reason) == (Phase.CANARY, "waits for 0 of 1 requests")
    both = FIVE | {"shadow_percent": 10, "min_requests": 0, "min_duration_seconds": 0}
    shed = plan_of(gates=ERRORS | {"agreement": {}}, steps=[both])
    rollout = started(shed)
    for second in range(1, 5):
        rollout, decision, _ = step(shed, rollout, float(second), look(rollout, 100 * second, 0, 1_900 * second))
    assert (rollout.phase, decision.reason) == (Phase.CANARY, "waits for something to compare by agreement")


def test_no_step_is_passed_by_a_look_that_brings_most_of_its_requests() -> None:
    """As after a pause of control, also where it took longer than the step may: gates have not seen them."""
    plan = plan_of(gates={"errors": {}, "latency": [{}]}, steps=[FIVE | {"max_duration_seconds": 100}])
    rollout = step(plan, started(plan), 1.0, look(started(plan), 10, 0, 190))[0]
    for _ in range(2):
        after, decision, _ = step(plan, rollout, 300.0, look(rollout, 1_000, 0, 19_000))
        assert (after.phase, decision.reason) == (
            Phase.CANARY,
            "waits for another look, as most requests came since the last one",
        )
    assert step(plan, after, 301.0, look(after, 1_010, 0, 19_190))[0].phase is Phase.LIVE


def test_an_inconclusive_step_resumed_counts_and_times_anew_and_keeps_its_evidence() -> None:
    plan = plan_of(gates=ERRORS, steps=[FIVE | {"max_duration_seconds": 60, "min_requests": 10_000}])
    looks = [{"candidate": 10 * k, "errors": k // 3, "baseline": 1_000 * k} for k in range(1, 7)]
    ended = after_looks(plan, *looks)[0]
    assert ended.phase is Phase.INCONCLUSIVE
    resumed, _, actions = command(plan, ended, 1_000.0, asked(Verb.RESUME))
    assert actions == (Route(5, 0), CountAnew(2))
    assert (resumed.active_seconds, resumed.evidence, resumed.counts) == (0.0, ended.evidence, ended.counts)
    later = step(plan, resumed, 1_010.0, look(resumed, 10, 0, 1_000))[0]
    assert (later.active_seconds, later.counts.candidate.requests) == (10.0, 70)


def test_with_evidence_asked_for_a_step_passes_only_when_every_gate_has_shown_safety() -> None:
    gates = {"errors": {"margin": 0.02}, "drift": ["inputs"]}
    plan = plan_of(gates=gates, promote_on="evidence", steps=[FIVE])
    unknown = [{"candidate": 500 * k, "baseline": 5_000 * k} for k in range(1, 10)]
    waiting, decision, _ = after_looks(plan, *unknown)
    assert (waiting.phase, decision.reason) == (Phase.CANARY, "waits for safety not yet shown by drift inputs")
    stable = unknown[-1] | {"drift": (("inputs", DriftSign.STABLE),)}
    live, decision, _ = after_looks(plan, stable, rollout=waiting)
    assert live.phase is Phase.LIVE
    assert decision.reason == "passed: safety shown by every gate in 4,500 requests and 100 s"


def test_drift_judged_elsewhere_stops_a_rollout() -> None:
    plan = plan_of(gates={"drift": ["inputs", "predictions"]})
    drifted = (("inputs", DriftSign.STABLE), ("predictions", DriftSign.DRIFTED))
    after, decision, _ = after_looks(plan, {"candidate": 5, "drift": drifted})
    assert after.phase is Phase.ROLLED_BACK
    assert decision.reason == "drift predictions: harm shown; drifted"


def test_a_hold_takes_no_time_of_the_step_and_a_clock_set_back_adds_none() -> None:
    plan = plan_of(gates=ERRORS)
    rollout = after_looks(plan, {"candidate": 1}, {"candidate": 2})[0]
    held = command(plan, rollout, 20.0, asked(Verb.PAUSE))[0]
    held = step(plan, held, 500.0, look(held, 3))[0]
    resumed = command(plan, held, 900.0, asked(Verb.RESUME))[0]
    assert step(plan, resumed, 905.0, look(resumed, 4))[0].active_seconds == 25.0
    assert step(plan, resumed, 100.0, look(resumed, 4))[0].active_seconds == 20.0


def test_counters_that_began_anew_add_to_what_was_counted_before() -> None:
    plan = plan_of(gates=ERRORS)
    rollout = after_looks(plan, {"candidate": 300, "errors": 3, "baseline": 900, "counters": "boot 1"})[0]
    rollout = after_looks(plan, {"candidate": 20, "baseline": 50, "counters": "boot 2"}, rollout=rollout)[0]
    assert rollout.counts.candidate == ArmCounts(320, 3)
    with pytest.raises(CountsWentBack, match="another `counters`"):
        after_looks(plan, {"candidate": 19, "baseline": 50, "counters": "boot 2"}, rollout=rollout)


def test_looks_of_another_epoch_or_without_traffic_change_nothing() -> None:
    plan = plan_of()
    rollout = started(plan)
    for at, observation in ((rollout, Observation(0, crashes=5)), (draft(plan), Observation(0, crashes=5))):
        after, decision, actions = step(plan, at, 9.0, observation)
        assert (after, decision.moved, actions) == (at, False, ())
    with pytest.raises(WrongPlan, match="expected the plan sha256:"):
        step(plan_of(alpha=0.01), rollout, 1.0, Observation(1))


def full_counts(k: int) -> Counts:
    means = (("score", Mean(100 * k, 0.1 + 0.2, 1 / 3)),)
    arms = (ArmCounts(100 * k, k, ((200, 50 * k), (210, 49 * k)), 10 * k, k, means) for _ in range(2))
    return Counts(*arms, 50 * k, 49 * k)


def test_a_restart_in_the_middle_of_a_step_changes_nothing() -> None:
    """The rollout goes through JSON at every look, or not: the same rollouts, decisions and actions to the last bit."""
    gates = {"errors": {}, "latency": [{}], "agreement": {"min_share": 0.9}, "quality": {}}
    means = [{"name": "score", "margin": 0.1}]
    plan = plan_of(
        gates=gates | {"means": means, "drift": ["inputs"]}, steps=[SHADOW, FIVE | {"shadow_percent": 10}, TWENTY]
    )
    kept = stored = started(plan)
    for k in range(1, 40):
        observation = look(kept, counts=full_counts(k), counters=str(k // 7), drift=(("inputs", DriftSign.STABLE),))
        if k % 7 == 0:
            observation = replace(observation, counts=full_counts(1))
        try:
            one = step(plan, kept, 3.0 * k, observation)
        except CountsWentBack:
            pytest.fail("counts of other counters may be smaller")
        two = step(Plan.from_json(plan.to_json()), Rollout.from_json(stored.to_json()), 3.0 * k, observation)
        assert one == two
        kept, stored = one[0], two[0]
        assert Decision.from_json(one[1].to_json()) == one[1]
        assert recompute(plan, Decision.from_json(one[1].to_json())) == one[1]
        assert one[0].to_json() == two[0].to_json()
    assert kept.step == 1


def test_a_decision_that_was_altered_is_not_what_recomputing_gives() -> None:
    plan = plan_of(gates=ERRORS)
    decision = after_looks(plan, *HARM)[1]
    altered = replace(decision, event=None, phase=Phase.SHADOW, reason="all is well")
    assert recompute(plan, altered) == decision != altered
    with pytest.raises(ValueError, match="observation or a command"):
        recompute(plan, replace(decision, observation=None))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ArmCounts(1, 2),
        lambda: ArmCounts(1, 0, ((5, 1), (4, 1))),
        lambda: ArmCounts(1, 0, ((5, 0),)),
        lambda: ArmCounts(1, 0, ((512, 1),)),
        lambda: Counts(compared=1, agreed=2),
    ],
)
def test_counts_that_cannot_be_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        wrong()
