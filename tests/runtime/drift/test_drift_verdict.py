"""Verdicts and alarms: both conditions, and every pair of the table."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from runtime.drift.verdict import (
    ALARMS,
    Alarm,
    AlarmState,
    Aspect,
    Decision,
    Effect,
    Finding,
    Hysteresis,
    Role,
    Sign,
    Verdict,
    mermaid,
)

D, S, N = Decision.DRIFTED, Decision.STABLE, Decision.NOT_ENOUGH_DATA


def finding(value: float, p: float, critical: float) -> Finding:
    effect = Effect("PSI", value, value, value, floor=0.01, critical=critical, threshold=0.1)
    return Finding("age", Role.FEATURE, Aspect.SHAPE, (effect,), p, 1000, 500, p_adjusted=p)


@pytest.mark.parametrize(
    ("value", "p", "critical", "decision"),
    [
        (0.2, 0.001, 0.05, D),
        (0.1, 0.05, 0.05, D),  # both at their limits
        (0.2, 0.2, 0.05, S),  # large by chance, in many rows
        (0.2, 0.2, 0.5, N),  # large by chance, in few rows
        (0.05, 0.001, 0.05, S),  # certain, of no consequence
        (0.0, 1.0, 0.1, S),
        (0.0, 1.0, 0.11, N),
    ],
)
def test_drift_needs_effect_and_significance_and_stable_needs_rows(
    value: float, p: float, critical: float, decision: Decision
) -> None:
    assert finding(value, p, critical).decide(0.05) is decision


def test_what_bins_do_not_tell_does_not_count_as_effect() -> None:
    effect = Effect("KS", 0.12, low=0.09, high=0.15, floor=0.01, critical=0.05, threshold=0.1)
    assert not effect.large
    assert effect.times_threshold == pytest.approx(0.8)


def test_every_state_answers_every_sign() -> None:
    assert set(ALARMS) == set(product(AlarmState, Sign))
    assert all(ALARMS[state, Sign.SILENT] is state for state in AlarmState)
    assert all(ALARMS[state, Sign.CONFIRMED] is AlarmState.ALARMED for state in AlarmState)
    assert all(ALARMS[state, Sign.CALMED] is AlarmState.QUIET for state in AlarmState)
    page = Path(__file__).parents[3] / "docs" / "drift.md"
    assert mermaid() in page.read_text()
    assert mermaid().count("-->") == 1 + sum(a is not b for (a, _), b in ALARMS.items())


def states(decisions: list[Decision], hysteresis: Hysteresis) -> list[tuple[str, float | None]]:
    alarm, seen = Alarm(), []
    for at, decision in enumerate(decisions):
        alarm = alarm.after(decision, float(at), hysteresis)
        seen.append((alarm.state.value, alarm.since_seconds))
    return seen


def test_an_alarm_rises_after_looks_in_a_row_and_is_since_the_first() -> None:
    assert states([S, D, S, D, D], Hysteresis(2, 2)) == [
        ("quiet", None),
        ("suspected", 1.0),
        ("quiet", None),
        ("suspected", 3.0),
        ("alarmed", 3.0),
    ]
    assert states([D], Hysteresis(1, 1)) == [("alarmed", 0.0)]


def test_an_alarm_is_cleared_after_calm_looks_in_a_row_and_keeps_its_start_until_then() -> None:
    assert states([D, D, S, D, S, S, S, D], Hysteresis(2, 3)) == [
        ("suspected", 0.0),
        ("alarmed", 0.0),
        ("recovering", 0.0),
        ("alarmed", 0.0),
        ("recovering", 0.0),
        ("recovering", 0.0),
        ("quiet", None),
        ("suspected", 7.0),
    ]


def test_looks_without_data_neither_raise_nor_clear_and_do_not_break_a_row() -> None:
    assert states([D, N, N, D, N, S, N, S], Hysteresis(2, 2)) == [
        ("suspected", 0.0),
        ("suspected", 0.0),
        ("suspected", 0.0),
        ("alarmed", 0.0),
        ("alarmed", 0.0),
        ("recovering", 0.0),
        ("recovering", 0.0),
        ("quiet", None),
    ]


def test_hysteresis_of_no_look_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one look"):
        Hysteresis(raise_looks=0)


def test_a_verdict_says_which_how_much_how_sure_with_what_and_since_when() -> None:
    one = finding(0.2, 0.001, 0.05)
    verdict = Verdict("age", Role.FEATURE, D, one, (one,), "sha256:12", effect=1.9, since_seconds=60.0, alarmed=True)
    assert verdict.sentence() == (
        "age: drifted; distribution, PSI 0.2, threshold 0.1, 0.01 by chance; p 0.001 after correction; "
        "500 rows against 1,000 of sha256:12; since 60"
    )
