"""What follows from a look at the counts, or from an operator's command. Pure: the same in, the same out.

A look, in order
 1. hard limits                          → rolled back
 2. a gate shows harm                    → rolled back, or on hold where the plan says so
 3. enough time, requests, and all pass  → next step, live, or on hold where the plan says so; not at a look that
                                           brought most of the step's requests
 4. longer than the step may take        → inconclusive, on hold, waits on, or asks for a replay
 5. the replay is there                  → next step where it shows safety, else inconclusive
 6. else                                 → goes on
On hold only 1 and 2 happen.
"""

from __future__ import annotations

from dataclasses import replace

from runtime.rollout.counts import Counts, CountsWentBack, Observation, block_of
from runtime.rollout.decision import Command, Decision, Verb
from runtime.rollout.evidence import Evidence, Reading, Says, read, weigh, weigh_replay
from runtime.rollout.gates import AgreementGate, ErrorGate, LatencyGate, informed_by_replay
from runtime.rollout.phase import JUDGED, MOVING, NotPossible, Phase, RolloutEvent, advance
from runtime.rollout.plan import Plan
from runtime.rollout.rollout import Action, ReplayState, Rollout, actions

Outcome = tuple[Rollout, Decision, tuple[Action, ...]]

COUNTED = (ErrorGate, LatencyGate, AgreementGate)
"""Gates of what each request brings; rows of drift and means come from elsewhere, and may stay out."""


class WrongPlan(ValueError):
    """A rollout and a plan that do not belong together."""


def step(plan: Plan, rollout: Rollout, now_seconds: float, observation: Observation) -> Outcome:
    """The rollout after a look at `now_seconds`, what was decided, and what is to be done.

    A look that is of another epoch, or of a phase without traffic, changes nothing. Raises CountsWentBack for counts
    that fell without another name of their counters, and WrongPlan.
    """
    _check(plan, rollout)
    readings: tuple[Reading, ...] = ()
    event: RolloutEvent | None = None
    after, reason = rollout, ""
    if rollout.phase not in JUDGED:
        reason = f"{rollout.phase.value}: there is nothing to judge"
    elif observation.epoch != rollout.epoch:
        reason = f"counts of epoch {observation.epoch} are not used in epoch {rollout.epoch}"
    else:
        seen, readings = _seen(plan, rollout, now_seconds, observation)
        event, reason = _judge(plan, rollout, seen, observation, readings)
        if event is None and _asks_for_replay(plan, seen):
            seen = replace(seen, replay=replace(seen.replay, asked_epoch=seen.epoch))
        after = seen if event is None else _moved(seen, event, reason)
    decision = Decision(now_seconds, rollout, after.phase, after.step, event, reason, readings, observation)
    return after, decision, actions(plan, rollout, after)


def command(plan: Plan, rollout: Rollout, now_seconds: float, asked: Command) -> Outcome:
    """The rollout after an operator's command; raises NotPossible where its phase does not allow it, and WrongPlan."""
    _check(plan, rollout)
    event = _event_of(plan, rollout, asked.verb)
    reason = f"{asked.verb.value} by {asked.actor}" + (f": {asked.reason}" if asked.reason else "")
    again = asked.verb is Verb.RESUME
    after = replace(_moved(rollout, event, reason, again=again), last_seconds=now_seconds)
    decision = Decision(now_seconds, rollout, after.phase, after.step, event, reason, command=asked)
    return after, decision, actions(plan, rollout, after)


def recompute(plan: Plan, decision: Decision) -> Decision:
    """The decision anew, from what it keeps. It is equal to the one that was kept, or one of the two was altered."""
    if decision.command is not None:
        return command(plan, decision.before, decision.at_seconds, decision.command)[1]
    if decision.observation is None:
        raise ValueError("expected a decision with an observation or a command, got neither")
    return step(plan, decision.before, decision.at_seconds, decision.observation)[1]


def _check(plan: Plan, rollout: Rollout) -> None:
    if rollout.plan_digest != plan.digest:
        raise WrongPlan(f"expected the plan {rollout.plan_digest}, which this rollout was made for, got {plan.digest}")


def _seen(
    plan: Plan, rollout: Rollout, now_seconds: float, observation: Observation
) -> tuple[Rollout, tuple[Reading, ...]]:
    """The rollout with the look taken in, and what its gates say."""
    if observation.counters == rollout.counters:
        base, last = rollout.base, rollout.seen
    else:
        base, last = rollout.counts, Counts()
    block = block_of(last, observation.counts)
    after = base.plus(observation.counts)
    replay, replayed = _replayed(rollout, observation)
    counted = replace(rollout, base=base, seen=observation.counts)
    taken = replace(counted, replay=replay)
    kept, evidence, readings = dict(rollout.evidence), [], []
    for name, gate in plan.in_force(rollout.step).items():
        new = weigh(gate, kept.get(name, Evidence()), rollout.counts_for(gate), block, after, observation, plan)
        past = counted.counts_for(gate)
        for rows in replayed:
            new = weigh_replay(gate, new, past, rows, plan)
            past = past.plus(rows)
        evidence.append((name, new))
        readings.append(read(name, gate, new, taken.counts_for(gate), plan))
    elapsed = 0.0 if rollout.last_seconds is None else max(now_seconds - rollout.last_seconds, 0.0)
    seen = replace(
        taken,
        active_seconds=rollout.active_seconds + (elapsed if rollout.phase in MOVING else 0.0),
        last_seconds=now_seconds,
        counters=observation.counters,
        evidence=tuple(evidence),
    )
    return seen, tuple(readings)


def _replayed(rollout: Rollout, observation: Observation) -> tuple[ReplayState, tuple[Counts, ...]]:
    """What is known of the replay now, and its blocks that are new. What nobody asked for is not used."""
    known, told = rollout.replay, observation.replayed
    if told is None or known.done or known.asked_epoch != rollout.epoch:
        return known, ()
    if len(told.blocks) < known.blocks:
        raise CountsWentBack(f"expected {known.blocks} blocks of replayed rows or more, got {len(told.blocks)}")
    new = tuple(block.counts for block in told.blocks[known.blocks :])
    counts = known.counts
    for block in new:
        counts = counts.plus(block)
    return replace(known, blocks=len(told.blocks), counts=counts, done=told.done, problem=told.problem), new


def _judge(
    plan: Plan, before: Rollout, seen: Rollout, observation: Observation, readings: tuple[Reading, ...]
) -> tuple[RolloutEvent | None, str]:
    hard = _hard(plan, before.counts_with_replay, seen.counts_with_replay, observation)
    if hard:
        return RolloutEvent.HARM, hard
    harmful = [reading for reading in readings if reading.says is Says.HARM]
    if harmful and (plan.on_harm == "roll_back" or seen.phase in MOVING):
        event = RolloutEvent.HARM if plan.on_harm == "roll_back" else RolloutEvent.STOP
        return event, ". ".join(reading.sentence() for reading in harmful)
    if seen.phase not in MOVING:
        return None, seen.reason
    return _progress(plan, before, seen, readings)


def _hard(plan: Plan, before: Counts, after: Counts, observation: Observation) -> str:
    """Why the fast path ends the rollout, or ""."""
    limits, now = plan.hard, after.candidate
    if observation.load_failed:
        return f"the candidate could not be loaded: {observation.load_failed}"
    if observation.crashes >= limits.crashes:
        return f"the candidate has ended {observation.crashes} processes, {limits.crashes} are too many"
    if before.candidate.requests >= limits.first_requests:
        return ""  # its first requests are over
    share = limits.errors / limits.first_requests
    many = max(float(limits.errors), share * now.requests)  # a look may come only after more than the first ones
    baseline = after.baseline
    alone = baseline.errors < share / 2 * baseline.requests or not baseline.requests
    if now.errors >= many and alone:
        return (
            f"{now.errors:,} of the candidate's first {now.requests:,} requests failed, "
            f"and {baseline.errors:,} of {baseline.requests:,} of the baseline's"
        )
    return ""


def _progress(
    plan: Plan, before: Rollout, seen: Rollout, readings: tuple[Reading, ...]
) -> tuple[RolloutEvent | None, str]:
    rules, requests = plan.steps[seen.step], seen.counts.candidate.requests
    open_gates = [reading.gate for reading in readings if reading.says is Says.OPEN]
    missing = []
    if seen.active_seconds < rules.min_duration_seconds:
        missing.append(f"{seen.active_seconds:.0f} of {rules.min_duration_seconds:.0f} s")
    needed = max(rules.min_requests, 1)  # a candidate that nobody asked has shown nothing
    gates = plan.in_force(seen.step)
    silent = [each.gate for each in readings if isinstance(gates[each.gate], COUNTED) and not all(each.rows)]
    if requests < needed:
        missing.append(f"{requests:,} of {needed:,} requests")
    elif silent:  # such as agreement where every copy was shed: that no harm is shown says nothing then
        missing.append(f"something to compare by {', '.join(silent)}")
    if plan.promote_on == "evidence" and open_gates:
        missing.append(f"safety not yet shown by {', '.join(open_gates)}")
    if not missing and requests > 2 * before.counts.candidate.requests:
        # Gates have bet on these knowing little, and latency's not at all: after a pause of control all may be new.
        return None, "waits for another look, as most requests came since the last one"
    if not missing:
        how = "safety shown by every gate" if plan.promote_on == "evidence" else "no harm shown by any gate"
        reason = f"passed: {how} in {requests:,} requests and {seen.active_seconds:.0f} s"
        if plan.on_passed == "hold":
            return RolloutEvent.STOP, f"{reason}; the plan waits for an operator"
        return _next(plan, seen), reason
    waits = "waits for " + ", ".join(missing)
    if not _has_run_out(plan, seen) or plan.at_max_duration == "wait":
        return None, waits
    ran_out = f"no conclusion within {rules.max_duration_seconds:.0f} s: {', '.join(missing)}"
    if plan.at_max_duration == "replay":
        return _by_replay(plan, seen, readings, ran_out)
    return RolloutEvent.STOP if plan.at_max_duration == "hold" else RolloutEvent.RUN_OUT, ran_out


def _has_run_out(plan: Plan, seen: Rollout) -> bool:
    longest = plan.steps[seen.step].max_duration_seconds
    return longest is not None and seen.active_seconds >= longest


def _asks_for_replay(plan: Plan, seen: Rollout) -> bool:
    """Once in an epoch; and rows that are in the step's evidence are not counted again after a resume."""
    asks = plan.at_max_duration == "replay" and seen.phase in MOVING and _has_run_out(plan, seen)
    return asks and not seen.replay.done and seen.replay.asked_epoch != seen.epoch


def _by_replay(
    plan: Plan, seen: Rollout, readings: tuple[Reading, ...], ran_out: str
) -> tuple[RolloutEvent | None, str]:
    """Safety is needed, whatever `promote_on` says: that replayed rows show no harm is less than that requests do."""
    replay = seen.replay
    if not replay.done:
        return None, f"{ran_out}; rows from before the step are being replayed"
    if replay.problem:
        return RolloutEvent.RUN_OUT, f"{ran_out}; no rows could be replayed: {replay.problem}"
    gates = plan.in_force(seen.step)
    informed = [reading for reading in readings if informed_by_replay(gates[reading.gate])]
    needed = readings if plan.promote_on == "evidence" else informed
    lacking = [reading.gate for reading in needed if reading.says is not Says.SAFE]
    rows = f"replay of {replay.counts.candidate.requests:,} rows"
    if lacking:
        return RolloutEvent.RUN_OUT, f"{ran_out}; after a {rows} safety is not shown by {', '.join(lacking)}"
    reason = f"passed by {rows} from before the step: safety shown by {', '.join(each.gate for each in informed)}"
    if plan.on_passed == "hold":
        return RolloutEvent.STOP, f"{reason}; the plan waits for an operator"
    return _next(plan, seen), reason


def _event_of(plan: Plan, rollout: Rollout, verb: Verb) -> RolloutEvent:
    allowed = {
        Verb.START: {Phase.DRAFT},
        Verb.PAUSE: MOVING,
        Verb.RESUME: {Phase.HOLD, Phase.INCONCLUSIVE},
        Verb.PROMOTE: JUDGED | {Phase.INCONCLUSIVE},
        Verb.ABORT: JUDGED | {Phase.DRAFT, Phase.INCONCLUSIVE},
    }[verb]
    if rollout.phase not in allowed:
        where = ", ".join(phase.value for phase in Phase if phase in allowed)
        raise NotPossible(f"{verb.value} is possible for a rollout that is {where}; this one is {rollout.phase.value}")
    match verb:
        case Verb.PAUSE:
            return RolloutEvent.STOP
        case Verb.ABORT:
            return RolloutEvent.ABORT
        case Verb.RESUME:
            return _entering(plan, rollout.step)
    return _next(plan, rollout)


def _next(plan: Plan, rollout: Rollout) -> RolloutEvent:
    return _entering(plan, rollout.step + 1)


def _entering(plan: Plan, at: int) -> RolloutEvent:
    if at == len(plan.steps):
        return RolloutEvent.GO_LIVE
    return RolloutEvent.SHADOW_STEP if plan.steps[at].is_shadow else RolloutEvent.CANARY_STEP


def _moved(rollout: Rollout, event: RolloutEvent, reason: str, *, again: bool = False) -> Rollout:
    """After an event. A new step begins with nothing; a step resumed from a hold goes on as it was, and one that was
    inconclusive begins its time and counting anew and keeps its evidence, so that its error level is spent only once.
    """
    phase = advance(rollout.phase, event)
    moved = replace(rollout, phase=phase, reason=reason)
    if event not in {RolloutEvent.SHADOW_STEP, RolloutEvent.CANARY_STEP}:
        return moved
    if again:
        if rollout.phase is Phase.HOLD:
            return moved
        # A replay that could not be made is asked for again; one that was made is in the evidence.
        replay = moved.replay if moved.replay.blocks else ReplayState()
        return replace(
            moved, epoch=moved.epoch + 1, active_seconds=0.0, base=moved.counts, seen=Counts(), counters="",
            replay=replay,
        )  # fmt: skip
    return Rollout(
        rollout.plan_digest,
        phase,
        rollout.step + 1,
        rollout.epoch + 1,
        last_seconds=rollout.last_seconds,
        reason=reason,
    )
