"""Rounds of the matrix become rows, claims and tables."""

import dataclasses
from pathlib import Path

import pytest
from rich.console import Console

from bench.matrix.case import Case, Claim, Step, ratio
from bench.matrix.memory import Look, growth, role_of, slope_bytes_per_minute
from bench.matrix.table import render, render_claims, rows_of, verdicts
from bench.matrix.workload import Workload
from bench.sample import Burst, Load, Measurement

POOL = Workload("model", 32, (b"request", b"another"), ({}, {}))
STEPS = (Step("64", "64 in flight", POOL, Load(4, 16)), Step("80", "at 80 %", POOL, Load(16, 64), share=0.8))
HERE = Path()
OWN = Case("own", "driftgate", None, HERE, HERE, STEPS, against="limit")
LIMIT = Case("limit", "the limit", None, HERE, HERE, STEPS)
CASES = (OWN, LIMIT)


def measured(rate: float, *, errors: int = 0, others_busy: float = 0.0) -> Measurement:
    burst = Burst(
        requests=1_000,
        failed=errors,
        reply_bytes=0,
        requests_per_second=rate,
        p50_ms=1.0,
        p90_ms=2.0,
        p99_ms=3.0,
        p999_ms=4.0,
        longest_ms=5.0,
        statuses={0: 1_000},
        distinct_replies=1,
        offered=1_200,
    )
    return Measurement(burst, 10.0, 12.0, errors, 0.9, 0.2, 0.0, others_busy, rate)


def text_of(table: object) -> str:
    console = Console(width=220)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_a_ratio_is_the_median_of_the_rounds_own_to_the_case_that_it_is_held_against() -> None:
    """The second round ran on a machine half as fast."""
    rounds = [{"own": {"64": measured(rate)}, "limit": {"64": measured(2 * rate)}} for rate in (100, 50, 120)]

    own, limit = rows_of(CASES, rounds)

    assert own.ratio == own.least_ratio == own.greatest_ratio == 0.5
    assert (own.requests_per_second, own.least, own.greatest) == (100, 50, 120)
    assert limit.ratio is None
    assert own.rows == 32
    assert own.offered_per_second is None


def test_loads_of_a_kind_stand_together_and_an_open_one_says_what_was_offered() -> None:
    rounds = [{key: {"64": measured(100), "80": measured(80)} for key in ("own", "limit")}]

    rows = rows_of(CASES, rounds)

    assert [(row.step, row.case) for row in rows] == [("64", "own"), ("64", "limit"), ("80", "own"), ("80", "limit")]
    assert rows[2].offered_per_second == 600


def test_errors_are_summed_and_a_case_never_measured_has_no_row() -> None:
    rounds = [{"own": {"64": measured(100, errors=2)}}, {"own": {"64": measured(100, errors=1)}}]

    (row,) = rows_of(CASES, rounds)

    assert row.errors == 3


def test_a_claim_is_judged_by_the_median_of_the_rounds_that_have_its_cases() -> None:
    claim = Claim("own to the limit", ratio(("own", "64"), ("limit", "64")), 0.5)
    rounds = [{"own": {"64": measured(rate)}, "limit": {"64": measured(100)}} for rate in (60, 40, 51)] + [
        {"own": {"64": measured(1)}}
    ]

    (verdict,) = verdicts([claim], rounds)

    assert verdict.median == pytest.approx(0.51)
    assert (verdict.least, verdict.greatest) == pytest.approx((0.4, 0.6))
    assert verdict.holds
    assert not verdicts([claim], [{}])
    assert not dataclasses.replace(claim, bound=0.52).holds(verdict.median)
    assert dataclasses.replace(claim, bound=0.6, at_least=False).holds(verdict.median)


def test_the_table_marks_a_disturbed_row_and_names_a_case_that_failed() -> None:
    rows = rows_of(CASES, [{"own": {"64": measured(100, others_busy=0.5)}}])

    text = text_of(render("models", rows, {"limit": "ended with 1\nmore"}, "how it was measured"))

    assert "50% !" in text
    assert "ended with 1" in text
    assert "how it was measured" in text


def test_a_claim_that_falls_short_says_so() -> None:
    claim = Claim("own to the limit", ratio(("own", "64"), ("limit", "64")), 0.5)
    rounds = [{"own": {"64": measured(40)}, "limit": {"64": measured(100)}}]

    assert "falls short" in text_of(render_claims(verdicts([claim], rounds)))


def test_memory_that_grows_has_a_slope_and_memory_that_does_not_has_none() -> None:
    flat = [Look(float(second), {"worker": 100 << 20}) for second in range(0, 600, 5)]
    grown = [Look(each.seconds, {"worker": (100 << 20) + round(each.seconds * (1 << 20) / 60)}) for each in flat]

    assert slope_bytes_per_minute(flat) == pytest.approx(0, abs=1)
    assert growth(flat) == 1
    assert slope_bytes_per_minute(grown) == pytest.approx(1 << 20, rel=1e-3)
    assert growth(grown) > 1.04
    assert growth([]) == 1


def test_processes_are_told_by_what_they_run() -> None:
    assert role_of(["python", "-P", "-m", "gateway.worker"]) == "worker"
    assert role_of(["python", "-m", "gateway", "serve", "--workers", "1"]) == "supervisor"
