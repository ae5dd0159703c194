"""What a look counts: series by variant, copies, crashes; where memories begin anew, all of it once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shm_records import desk, records_of

from gateway.control.comparisons import PairTotals
from gateway.control.rollout_counts import Counters, Counting, Totals, arm_of
from gateway.control.rollout_state import RolloutState
from gateway.telemetry.conventions import CODES
from runtime.rollout.counts import ArmCounts, Counts
from runtime.rollout.decide import command, recompute, step
from runtime.rollout.decision import Command, Decision, Verb
from runtime.rollout.latency import bucket_of
from runtime.rollout.phase import JUDGED
from runtime.rollout.plan import read_plan
from runtime.rollout.rollout import draft
from runtime.shm.publish import KEEP_NONE
from runtime.shm.series import SeriesKey

PLAN = read_plan(
    {
        "model": "m", "baseline": "1", "candidate": "2",
        "steps": [
            {"shadow_percent": 10, "min_requests": 20, "min_duration_seconds": 5},
            {"weight_percent": 5, "min_requests": 20, "min_duration_seconds": 5, "max_duration_seconds": 20},
            {"weight_percent": 50, "shadow_percent": 5, "min_requests": 50, "min_duration_seconds": 5},
        ],
        "gates": {"errors": {}, "latency": [{}], "agreement": {}},
    }
)  # fmt: skip


class Pair:
    """The comparisons of one pair."""

    def __init__(self, compared: int, agreed: int, failed: int) -> None:
        self._totals = PairTotals("control", compared, agreed, failed, compared + failed)

    def totals(self, _model: str, _primary: int, _shadow: int) -> PairTotals:
        return self._totals


def test_series_are_counted_by_variant_version_and_code() -> None:
    with desk() as at:

        def count(requests: int, variant: str, version: int, code: str, seconds: float, model: str = "m") -> None:
            key = SeriesKey(model, version, variant, CODES.index(code), "")
            row = {"series": at.series.number(key), "replied_ns": round(seconds * 1e9), "code": key.code}
            at.publish(records_of([row] * requests), KEEP_NONE)

        count(5, "candidate", 2, "OK", 0.01)
        count(2, "candidate", 2, "INVALID_ARGUMENT", 0.01)
        count(3, "candidate", 2, "CANCELLED", 0.01)
        count(1, "candidate", 0, "UNAVAILABLE", 0.01)
        count(7, "candidate", 3, "OK", 0.01)
        count(40, "baseline", 1, "OK", 0.0)
        count(4, "baseline", 1, "DEADLINE_EXCEEDED", 1.0)
        count(10, "pinned", 1, "OK", 0.02)
        count(50, "candidate", 2, "OK", 0.01, model="other")
        counters = Counters(at.totals(), "g", Pair(30, 28, 2), lambda model, version: {("m", 2): 3}[model, version])
        reading = counters.read()
        weighed = counters.totals(reading, "m", 1, 2, of_copies=False)
        assert weighed.candidate == ArmCounts(8, 3, ((bucket_of(0.01), 5),))
        assert weighed.baseline == ArmCounts(44, 4, ((0, 40),)), "what is below the buckets is in the first"
        assert (weighed.crashes, weighed.gateway, weighed.comparisons) == (3, "g", "control")
        assert weighed.counts(of_copies=False).candidate is weighed.candidate
        copied = counters.totals(reading, "m", 1, 2, of_copies=True)
        assert copied.baseline.requests == 54, "in a step of copies, all that the baseline has answered"
        assert copied.counts(of_copies=True) == Counts(ArmCounts(32, 2), copied.baseline, 30, 28)
        assert reading.requests() == {"m": 72, "other": 50}


def test_a_long_name_is_found_as_series_have_it_cut() -> None:
    name = "m" * 127 + "é"
    with desk() as at:
        row = {"series": at.series.number(SeriesKey(name, 2, "candidate", 0, "")), "replied_ns": 1_000_000}
        at.publish(records_of([row]), KEEP_NONE)
        counters = Counters(at.totals(), "g")
        assert counters.totals(counters.read(), name, 1, 2, of_copies=False).candidate.requests == 1


def test_nothing_is_counted_of_no_series() -> None:
    assert arm_of([], "candidate", 2) == ArmCounts()


def totals_of(
    gateway: str = "g1", comparisons: str = "c1", candidate: int = 0, compared: int = 0, **rest: int
) -> Totals:
    return Totals(gateway, comparisons, ArmCounts(2 * candidate), ArmCounts(candidate), compared=compared, **rest)


def test_memories_that_begin_anew_count_from_zero_and_the_others_go_on() -> None:
    counting = Counting.begun(totals_of(candidate=10, compared=5, crashes=1), of_copies=False)
    assert counting.counters(4) == "4.0"
    counting = counting.after(totals_of(candidate=30, compared=9, crashes=2))
    assert (counting.counts.candidate.requests, counting.counts.compared, counting.all_crashes) == (20, 4, 1)
    counting = counting.after(totals_of("g1", "c2", candidate=35, compared=3, crashes=2))
    assert counting.counters(4) == "4.1"
    assert (counting.counts.candidate.requests, counting.counts.compared, counting.all_crashes) == (5, 3, 1)
    counting = counting.after(totals_of("g2", "c3", candidate=7, crashes=1))
    assert (counting.counts.candidate.requests, counting.counts.compared, counting.all_crashes) == (7, 0, 2)


def test_counters_that_fall_without_another_name_begin_anew_from_where_they_are() -> None:
    counting = Counting.begun(totals_of(), of_copies=False).after(totals_of(candidate=30, compared=9))
    counting = counting.after(totals_of(candidate=20, compared=9))
    assert (counting.counters(1), counting.counts) == ("1.1", Counts())
    assert counting.after(totals_of(candidate=25, compared=9)).counts.candidate.requests == 5


def test_crashes_that_fall_take_nothing_else_back() -> None:
    """A slot of a full page was given to another version."""
    counting = Counting.begun(totals_of(crashes=3), of_copies=False).after(totals_of(candidate=30, crashes=4))
    counting = counting.after(totals_of(candidate=40, crashes=1))
    assert (counting.counters(1), counting.counts.candidate.requests, counting.all_crashes) == ("1.0", 40, 1)
    counting = counting.after(totals_of(candidate=50, crashes=2))
    assert (counting.counters(1), counting.counts.candidate.requests, counting.all_crashes) == ("1.0", 50, 2)
    counting = counting.after(totals_of("g2", candidate=7, crashes=1))
    assert (counting.counts.candidate.requests, counting.all_crashes) == (7, 3)


# Random looks

LOOKS = st.lists(
    st.tuples(
        st.sampled_from(["", "", "", "control", "gateway", "pause", "resume", "promote"]),
        st.integers(0, 60),  # the candidate's requests
        st.integers(0, 3),  # errors among them
        st.integers(0, 60),  # copies
        st.integers(0, 2),  # disagreements
        st.floats(0.1, 8.0),  # seconds
    ),
    max_size=40,
)


@given(looks=LOOKS, seed=st.integers(0, 100))
def test_whatever_is_seen_the_stored_state_is_that_in_memory_and_counts_everything_once(looks: list, seed: int) -> None:
    """Over restarts of both memories, too: the state that is read back after each look is the one that was."""
    random = np.random.default_rng(seed)
    totals, now = Totals("g0", "c0"), 1_000.0
    rollout, _, _ = command(PLAN, draft(PLAN), now, Command(Verb.START, "ann"))
    state = RolloutState(rollout).begun(rollout, totals, now, of_copies=True)
    expected = Counts()  # of the epoch
    for number, (event, candidate, errors, copies, disagreed, seconds) in enumerate(looks):
        if event in ("pause", "resume", "promote"):
            try:
                rollout, decision, _ = command(PLAN, state.rollout, now, Command(Verb(event), "ann"))
            except ValueError:
                continue
        else:
            if event:
                totals = replace(totals, comparisons=f"c{number}", compared=0, agreed=0, failed=0)
            if event == "gateway":
                totals = replace(totals, gateway=f"g{number}", baseline=ArmCounts(), candidate=ArmCounts(), crashes=0)
            failed, agreed = min(errors, candidate), copies - min(disagreed, copies)
            buckets = tuple((int(at), 1) for at in np.unique(random.integers(200, 260, candidate - failed)))
            arm = totals.candidate.plus(ArmCounts(candidate, failed, buckets))
            base = totals.baseline.plus(ArmCounts(3 * candidate, 0, ((220, 3 * candidate),) if candidate else ()))
            totals = replace(
                totals, candidate=arm, baseline=base, compared=totals.compared + copies, agreed=totals.agreed + agreed
            )
            now += seconds
            if state.rollout.phase not in JUDGED:
                continue
            of_copies = PLAN.steps[state.rollout.step].is_shadow
            seen = ArmCounts(copies) if of_copies else ArmCounts(candidate, failed)
            expected = expected.plus(Counts(seen, ArmCounts(3 * candidate), copies, agreed))
            state, observation = state.looked(totals)
            rollout, decision, _ = step(PLAN, state.rollout, now, observation)
            if rollout.epoch == state.rollout.epoch:
                counts = rollout.counts
                assert (counts.candidate.requests, counts.candidate.errors) == (
                    expected.candidate.requests, expected.candidate.errors
                )  # fmt: skip
                assert (counts.baseline.requests, counts.compared, counts.agreed) == (
                    expected.baseline.requests, expected.compared, expected.agreed
                )  # fmt: skip
        assert recompute(PLAN, Decision.from_json(decision.to_json())) == decision
        if rollout.epoch != state.rollout.epoch:
            again = rollout.step == state.rollout.step
            expected = rollout.counts if again else Counts()
            state = state.begun(rollout, totals, now, of_copies=PLAN.steps[rollout.step].is_shadow)
        else:
            state = replace(state, rollout=rollout)
        read = RolloutState.from_json(state.to_json())
        assert read == state
        state = read


def test_time_does_not_pass_where_the_gateway_was_not_there() -> None:
    rollout, _, _ = command(PLAN, draft(PLAN), 1_000.0, Command(Verb.START, "ann"))
    state = RolloutState(rollout).begun(rollout, Totals("g0"), 1_000.0, of_copies=True)
    assert state.resumed("g0") is state
    assert state.resumed("g1").rollout.last_seconds is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rollout": {}}'])
def test_a_state_that_nobody_wrote_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        RolloutState.from_json(text)
