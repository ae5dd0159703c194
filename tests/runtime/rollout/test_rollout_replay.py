"""A step without traffic that is judged by replayed rows: what they may decide, and how often they are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollout_samples import FIVE, SHADOW, asked, document, look, plan_of, replications, started

from runtime.rollout.counts import ArmCounts, Counts, CountsWentBack, Observation, ReplayBlock, Replayed
from runtime.rollout.decide import Outcome, command, recompute, step
from runtime.rollout.decision import Decision, Verb
from runtime.rollout.evidence import Says
from runtime.rollout.phase import Phase
from runtime.rollout.plan import Plan, read_plan
from runtime.rollout.problems import PlanError
from runtime.rollout.rollout import Replay, Rollout, wants_replay

SHORT = {"max_duration_seconds": 60}
COPIES = SHADOW | SHORT
GATES: dict[str, Any] = {"errors": {"margin": 0.01}, "agreement": {"min_share": 0.98}}


def replaying(**changes: Any) -> Plan:
    return plan_of(**{"at_max_duration": "replay", "gates": GATES, "steps": [COPIES, FIVE]} | changes)


def out_of_time(plan: Plan) -> Outcome:
    """The look at which the first step has run out; the one before it is that of its start."""
    rollout = started(plan)
    return step(plan, rollout, 60.0, look(rollout))


def blocks_of(rows: int, *, disagree: int = 0, candidate: int = 0, baseline: int = 0, size: int = 10) -> Replayed:
    """One row in so many (0: none) disagrees, is failed by the candidate, or by the baseline."""
    found = []
    for begin in range(0, rows, size):
        block = range(begin, min(begin + size, rows))
        failed = [sum(bool(every) and row % every == 0 for row in block) for every in (candidate, baseline)]
        differ = sum(bool(disagree) and row % disagree == 1 for row in block)
        compared = len(block) - max(failed)
        found.append(ReplayBlock(len(block), *failed, compared, compared - min(differ, compared)))
    return Replayed(tuple(found), done=True)


def replayed(plan: Plan, come: Replayed, rollout: Rollout | None = None) -> Outcome:
    waiting = rollout or out_of_time(plan)[0]
    return step(plan, waiting, 61.0, look(waiting, replayed=come))


def test_a_step_that_runs_out_asks_once_and_goes_on() -> None:
    plan = replaying()
    waiting, decision, actions = out_of_time(plan)
    assert actions == (Replay(1),)
    assert (waiting.phase, decision.moved, wants_replay(waiting)) == (Phase.SHADOW, False, True)
    assert (
        decision.reason == "no conclusion within 60 s: 0 of 100 requests; rows from before the step are being replayed"
    )
    again, decision, actions = step(plan, waiting, 61.0, look(waiting))
    assert (actions, wants_replay(again)) == ((), True)
    assert recompute(plan, decision) == decision


def test_before_that_nothing_is_asked_for_and_what_nobody_asked_for_is_not_used() -> None:
    plan = replaying()
    rollout = started(plan)
    after, _, actions = step(plan, rollout, 59.0, look(rollout, replayed=blocks_of(500)))
    assert actions == ()
    assert after.replay == rollout.replay
    assert not any(evidence.safe for _, evidence in after.evidence)


def test_a_version_that_answers_alike_passes_as_if_it_had_its_requests() -> None:
    plan = replaying()
    after, decision, _ = replayed(plan, blocks_of(500))
    assert (after.phase, after.step, after.replay) == (Phase.CANARY, 1, started(plan).replay)
    assert decision.reason == "passed by replay of 500 rows from before the step: safety shown by errors, agreement"
    assert [reading.says for reading in decision.readings] == [Says.SAFE, Says.SAFE]
    assert decision.readings[1].rows == (500, 500)
    assert recompute(plan, Decision.from_json(decision.to_json())) == decision


@pytest.mark.parametrize(
    ("come", "gate"),
    [(blocks_of(500, disagree=9), "agreement"), (blocks_of(500, candidate=12), "errors")],
)
def test_harm_that_replayed_rows_show_rolls_back(come: Replayed, gate: str) -> None:
    plan = replaying()
    after, decision, _ = replayed(plan, come)
    assert after.phase is Phase.ROLLED_BACK
    assert decision.reason.startswith(f"{gate}: harm shown")


def test_a_version_that_fails_most_replayed_rows_is_out_without_a_gate_for_it() -> None:
    plan = replaying(gates={"agreement": {}}, steps=[COPIES])
    after, decision, _ = replayed(plan, blocks_of(500, candidate=2))
    assert after.phase is Phase.ROLLED_BACK
    assert "250 of the candidate's first 500 requests failed" in decision.reason


@pytest.mark.parametrize(
    ("come", "why"),
    [
        (Replayed(done=True, problem="no rows are kept"), "no rows could be replayed: no rows are kept"),
        (blocks_of(40), "after a replay of 40 rows safety is not shown by errors, agreement"),
        (blocks_of(500, baseline=1), "safety is not shown by agreement"),
    ],
)
def test_too_little_is_inconclusive_and_says_why(come: Replayed, why: str) -> None:
    plan = replaying()
    after, decision, _ = replayed(plan, come)
    assert (after.phase, after.step) == (Phase.INCONCLUSIVE, 0)
    assert decision.reason.startswith("no conclusion within 60 s: 0 of 100 requests; ")
    assert why in decision.reason


def test_what_a_replay_cannot_show_is_still_asked_for_by_promote_on_evidence() -> None:
    steps = [FIVE | SHORT]
    gates = GATES | {"latency": [{}]}
    del gates["agreement"]
    open_latency = replaying(gates=gates, steps=steps, promote_on="evidence")
    after, decision, _ = replayed(open_latency, blocks_of(500))
    assert after.phase is Phase.INCONCLUSIVE
    assert "safety is not shown by latency p99" in decision.reason
    assert replayed(replaying(gates=gates, steps=steps), blocks_of(500))[0].phase is Phase.LIVE


def test_a_passed_step_waits_for_an_operator_where_the_plan_says_so() -> None:
    after, decision, _ = replayed(replaying(on_passed="hold"), blocks_of(500))
    assert after.phase is Phase.HOLD
    assert "the plan waits for an operator" in decision.reason


def test_rows_come_in_any_number_of_looks_and_count_once() -> None:
    plan = replaying()
    whole = blocks_of(300)
    waiting = out_of_time(plan)[0]
    for end in (7, 7, 20):
        part = Replayed(whole.blocks[:end])
        waiting = step(plan, waiting, 61.0, look(waiting, replayed=part))[0]
        assert waiting.replay.counts.compared == 10 * end
    with pytest.raises(CountsWentBack, match="expected 20 blocks"):
        step(plan, waiting, 61.0, look(waiting, replayed=Replayed(whole.blocks[:3])))
    at_once = replayed(plan, whole)[1].readings
    in_parts = step(plan, waiting, 62.0, look(waiting, replayed=whole))[1].readings
    assert [reading.safe for reading in in_parts] == pytest.approx([reading.safe for reading in at_once])


def test_live_requests_and_replayed_rows_are_evidence_of_one_step() -> None:
    plan = replaying()
    rollout = started(plan)
    counts = Counts(ArmCounts(90), ArmCounts(900), 90, 90)
    waiting = step(plan, rollout, 60.0, look(rollout, counts=counts))[0]
    both = step(plan, waiting, 61.0, look(waiting, counts=counts, replayed=blocks_of(100)))[1].readings
    alone = replayed(plan, blocks_of(100))[1].readings
    assert all(one.safe > other.safe for one, other in zip(both, alone, strict=True))
    assert both[1].rows == (190, 190)


def test_after_a_resume_what_was_replayed_counts_and_what_could_not_be_is_asked_for_again() -> None:
    plan = replaying()
    few = replayed(plan, blocks_of(40))[0]
    resumed = command(plan, few, 100.0, asked(Verb.RESUME))[0]
    ended, decision, actions = step(plan, resumed, 160.0, look(resumed))
    assert (ended.phase, ended.replay.counts.compared) == (Phase.INCONCLUSIVE, 40)
    assert "after a replay of 40 rows" in decision.reason
    none = replayed(plan, Replayed(done=True, problem="no shadow process"))[0]
    resumed = command(plan, none, 100.0, asked(Verb.RESUME))[0]
    waiting, _, actions = step(plan, resumed, 160.0, look(resumed))
    assert (actions, wants_replay(waiting)) == ((Replay(2),), True)


def test_rows_that_come_on_hold_are_taken_in_and_harm_ends_it() -> None:
    plan = replaying()
    held = command(plan, out_of_time(plan)[0], 60.5, asked(Verb.PAUSE))[0]
    good = replayed(plan, blocks_of(500), held)[0]
    assert (good.phase, good.replay.done) == (Phase.HOLD, True)
    assert replayed(plan, blocks_of(500, disagree=9), held)[0].phase is Phase.ROLLED_BACK


def test_states_and_decisions_from_before_there_were_replays_are_read() -> None:
    plan = plan_of()
    rollout = started(plan)
    decision = step(plan, rollout, 1.0, look(rollout, 5, 0, 5))[1]
    old = decision.to_json().replace(',"replayed":null', "")
    stored = rollout.to_json()
    begin, end = stored.index('"replay":'), stored.index('"seen"')
    assert Decision.from_json(old) == decision
    assert Rollout.from_json(stored[:begin] + stored[end:]) == rollout


def test_a_plan_asks_for_a_replay_only_where_it_can_show_something() -> None:
    latency = {"latency": [{}]}
    with pytest.raises(PlanError) as refused:
        read_plan(document(gates=latency, steps=[FIVE | SHORT, FIVE | {"weight_percent": 9}], at_max_duration="replay"))
    (problem,) = refused.value.problems
    assert problem.startswith("steps[0]: at_max_duration: replay needs gates.errors or gates.agreement in force")
    read_plan(document(gates=latency, steps=[FIVE], at_max_duration="replay"))


def test_blocks_that_cannot_be_are_refused() -> None:
    for wrong in (
        lambda: ReplayBlock(1, compared=2),
        lambda: ReplayBlock(2, candidate_failed=1, compared=2),
        lambda: ReplayBlock(2, compared=1, agreed=2),
    ):
        with pytest.raises(ValueError, match="expected"):
            wrong()


def of_rows(random: np.random.Generator, rows: int, size: int, disagree: float, failed: float) -> Replayed:
    found = []
    for _ in range(rows // size):
        fails = int(random.binomial(size, failed))
        found.append(ReplayBlock(size, fails, 0, size - fails, int(random.binomial(size - fails, 1 - disagree))))
    return Replayed(tuple(found), done=True)


def verdicts(gates: dict[str, Any], count: int, **rates: float) -> dict[Phase, int]:
    """Of so many replays of 1,000 rows in 64 blocks, with every row by chance."""
    plan = replaying(gates=gates, steps=[COPIES], hard={"errors": 10**6, "first_requests": 10**6})
    waiting = out_of_time(plan)[0]
    random, found = np.random.default_rng(8), dict[Phase, int]()
    for _ in range(count):
        phase = replayed(plan, of_rows(random, 1_000, 16, **rates), waiting)[0].phase
        found[phase] = found.get(phase, 0) + 1
    return found


def test_a_version_on_the_edge_is_wrongly_passed_and_wrongly_stopped_as_seldom_as_the_plan_says() -> None:
    count = replications(400)
    allowed = 0.05 * count + 4 * (0.05 * 0.95 * count) ** 0.5
    for gates, rates in (
        ({"agreement": {"min_share": 0.98}}, {"disagree": 0.02, "failed": 0.0}),
        ({"errors": {"margin": 0.02}}, {"disagree": 0.0, "failed": 0.02}),
    ):
        found = verdicts(gates, count, **rates)
        assert found.get(Phase.LIVE, 0) <= allowed
        assert found.get(Phase.ROLLED_BACK, 0) <= allowed


def test_equal_versions_pass_and_those_that_are_twice_as_bad_as_allowed_do_not() -> None:
    equal = verdicts(GATES, 20, disagree=0.0, failed=0.0)
    worse = verdicts(GATES, 50, disagree=0.04, failed=0.0)
    assert equal == {Phase.LIVE: 20}
    assert worse.get(Phase.LIVE, 0) == 0


BLOCKS = st.builds(
    lambda rows, a, b, agreed: ReplayBlock(
        rows, min(a, rows), min(b, rows), rows - max(min(a, rows), min(b, rows)),
        min(agreed, rows - max(min(a, rows), min(b, rows))),
    ),
    st.integers(1, 50), st.integers(0, 3), st.integers(0, 3), st.integers(0, 50),
)  # fmt: skip


@given(
    st.lists(BLOCKS, max_size=12),
    st.lists(st.integers(0, 12), max_size=4),
    st.sampled_from(["evidence", "no_harm"]),
    st.sampled_from(["promote", "hold"]),
)
def test_every_decision_on_the_way_recomputes_and_no_row_counts_twice(
    blocks: list[ReplayBlock], cuts: list[int], promote_on: str, on_passed: str
) -> None:
    plan = replaying(promote_on=promote_on, on_passed=on_passed)
    rollout = out_of_time(plan)[0]
    for number, end in enumerate([*sorted(cuts), len(blocks)]):
        come = Replayed(tuple(blocks[:end]), done=number == len(cuts))
        observation: Observation = look(rollout, replayed=come)
        after, decision, _ = step(plan, rollout, 61.0 + number, observation)
        assert recompute(plan, Decision.from_json(decision.to_json())) == decision
        assert Rollout.from_json(after.to_json()) == after
        if after.step == rollout.step:
            assert after.replay.counts.candidate.requests == sum(block.rows for block in blocks[:end])
        rollout = after
        if rollout.phase is not Phase.SHADOW:
            break
    assert not wants_replay(rollout)
