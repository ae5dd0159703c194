"""What gates of drift and of means see: panes of the step alone, each once, tested at a level that is spent once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drift_traffic import SCHEMA, Change, Traffic, at, shift
from rollout_scene import Observed

from gateway.control.rollout_rows import (
    FIRST_ROWS,
    INPUTS,
    PREDICTIONS,
    RolloutRows,
    RowsWanted,
    StepRows,
    level_of_test,
)
from gateway.control.rollout_state import DriftTests, RowsState
from gateway.store.panes import Tick, VersionKey
from gateway.store.sql import SqlStore, open_store
from runtime.profile.levels import Levels
from runtime.profile.summary import Summary
from runtime.profile.windows import Windows
from runtime.rollout.counts import DriftSign, Mean

BASELINE, CANDIDATE = VersionKey("m", 1, "sha256:1"), VersionKey("m", 2, "sha256:2")
SINCE = 1_750_000_000.0
LEVELS = Levels(10, (60, 600))


def wanted(**changes: Any) -> RowsWanted:
    given = {"means": ("mean texture",), "drift": (INPUTS, PREDICTIONS), "level": 0.01} | changes
    return RowsWanted(BASELINE, CANDIDATE, SINCE, **given)


def filled(candidate: int, baseline: int, *changes: Change, of: RowsWanted | None = None) -> StepRows:
    rows = StepRows(of or wanted())
    rows.offer(BASELINE, SINCE, Traffic(1).summary(baseline))
    rows.offer(CANDIDATE, SINCE, Traffic(2).summary(candidate, *changes))
    return rows


def first_tests(rows: StepRows) -> dict[str, DriftTests]:
    return rows.due({})


def test_all_tests_of_a_step_together_have_the_gates_level() -> None:
    assert sum(level_of_test(0.01, number) for number in range(1, 100_000)) == pytest.approx(0.01, rel=1e-4)
    assert level_of_test(0.01, 1) == pytest.approx(0.01 * 6 / math.pi**2)


def test_a_test_is_due_when_the_candidates_rows_have_doubled() -> None:
    rows = filled(FIRST_ROWS - 1, 5 * FIRST_ROWS)
    assert first_tests(rows) == {}
    rows.offer(CANDIDATE, SINCE + 10, Traffic(3).summary(101))
    tests = first_tests(rows)
    assert tests == dict.fromkeys((INPUTS, PREDICTIONS), DriftTests(1, 2 * (FIRST_ROWS + 100)))
    rows.offer(CANDIDATE, SINCE + 20, Traffic(4).summary(FIRST_ROWS + 99))
    assert rows.due(tests) == {}
    rows.offer(CANDIDATE, SINCE + 30, Traffic(5).summary(1))
    assert {gate: test.done for gate, test in rows.due(tests).items()} == {INPUTS: 2, PREDICTIONS: 2}


def test_a_test_waits_for_rows_of_the_baseline() -> None:
    assert first_tests(filled(10 * FIRST_ROWS, FIRST_ROWS - 1)) == {}


def test_versions_alike_are_stable_and_nothing_is_said_of_few_rows() -> None:
    rows = filled(20_000, 20_000)
    signs = rows.judge(first_tests(rows), SINCE + 60)
    assert signs == {INPUTS: DriftSign.STABLE, PREDICTIONS: DriftSign.STABLE}
    few = filled(FIRST_ROWS, FIRST_ROWS)
    assert set(few.judge(first_tests(few), SINCE + 60).values()) == {DriftSign.UNKNOWN}


def test_inputs_and_predictions_are_judged_apart() -> None:
    """The prediction is made of the first feature alone."""
    inputs = filled(5_000, 20_000, shift("mean texture", 1.0))
    assert inputs.judge(first_tests(inputs), SINCE + 60)[INPUTS] is DriftSign.DRIFTED
    assert inputs.judge(first_tests(inputs), SINCE + 60)[PREDICTIONS] is not DriftSign.DRIFTED
    both = filled(5_000, 20_000, shift("mean radius", 1.0))
    assert both.judge(first_tests(both), SINCE + 60) == {INPUTS: DriftSign.DRIFTED, PREDICTIONS: DriftSign.DRIFTED}


def test_the_models_thresholds_say_what_matters() -> None:
    of = wanted(thresholds={"psi": 50.0, "ks": 0.99, "wasserstein": 50.0, "js_distance": 0.99})
    rows = filled(20_000, 20_000, shift("mean texture", 1.0), of=of)
    assert rows.judge(first_tests(rows), SINCE + 60)[INPUTS] is not DriftSign.DRIFTED


def test_equal_versions_are_seldom_taken_for_drifted() -> None:
    """At a level of 0.05 for all four tests of a step; more than 6 of 40 would be so once in a thousand such runs."""
    alarms = 0
    for seed in range(40):
        rows, traffic = StepRows(wanted(level=0.05)), Traffic(100 + seed)
        tests: dict[str, DriftTests] = {}
        signs = set()
        for pane in range(4):
            rows.offer(BASELINE, SINCE, traffic.summary(700))
            rows.offer(CANDIDATE, SINCE, traffic.summary(500 if pane < 2 else 1_000 * (pane - 1)))
            due = rows.due(tests)
            tests |= due
            signs |= set(rows.judge(due, SINCE).values()) if due else set()
        alarms += DriftSign.DRIFTED in signs
    assert alarms <= 6


def test_means_are_those_of_new_panes_of_the_step() -> None:
    rows = StepRows(wanted())
    rows.offer(CANDIDATE, SINCE - 0.1, Traffic(1).summary(100))
    rows.offer(VersionKey("m", 2, "sha256:other files"), SINCE, Traffic(1).summary(100))
    assert rows.take_means() == ((), ())
    panes = [Traffic(seed) for seed in (2, 3)]
    values = [Traffic(seed).rows(300)[:, at("mean texture")].astype(np.float64) for seed in (2, 3)]
    for pane in panes:
        rows.offer(CANDIDATE, SINCE, _one_run(pane))
    (((name, mean),), baseline) = rows.take_means()
    together = np.concatenate(values)
    assert (name, mean.rows, baseline) == ("mean texture", 600, ())
    assert mean.mean == pytest.approx(together.mean())
    assert mean.m2 == pytest.approx(((together - together.mean()) ** 2).sum())
    assert rows.take_means() == ((), ()), "each once"


def _one_run(traffic: Traffic) -> Summary:
    summary = Summary.create(SCHEMA, seed=1)
    rows = traffic.rows(300)
    summary.observe({"x": rows}, {}, len(rows))
    return summary


def test_what_a_step_keeps_of_tests_and_means() -> None:
    kept = RowsState().with_tests({INPUTS: DriftTests(1, 1_000)}).with_signs({INPUTS: DriftSign.STABLE})
    assert kept.drift == ((INPUTS, DriftTests(1, 1_000, DriftSign.STABLE)),)
    kept = kept.with_means(((("a", Mean(2, 1.0, 0.5)),), ())).with_means(((("a", Mean(2, 3.0, 0.5)),), ()))
    assert kept.means == ((("a", Mean(4, 2.0, 5.0)),), ())


# From the store


@contextmanager
def stored(folder: Path) -> Iterator[SqlStore]:
    """20 panes of 100 rows of the candidate, before and after the step began."""
    store = open_store(folder / "state.db")
    windows: Windows[Summary] = Windows(LEVELS, lambda data: Summary.decode(SCHEMA, data))
    for number in range(20):
        end = SINCE - 100 + 10 * (number + 1)
        windows.add(end - 10, end, Traffic(number).summary(100), end)
    store.panes.put_tick(Tick(int(SINCE + 100), LEVELS.retain_seconds, panes={CANDIDATE: windows.changes()}))
    yield store
    store.close()


def test_after_a_restart_drift_goes_on_with_what_is_stored_of_the_step(tmp_path: Path) -> None:
    observed = Observed()
    with stored(tmp_path) as store:
        source = RolloutRows(observed, store.panes)  # type: ignore[arg-type]
        rows = source.open(wanted(), restored=True)
        assert rows.take_means() == ((), ()), "means were counted before"
        rows.offer(BASELINE, SINCE, Traffic(9).summary(FIRST_ROWS))
        found = rows._sums[CANDIDATE].rows
        assert 500 <= found <= 1_000, "all but what lies in a longer pane that began before the step"
        observed.on_pane(CANDIDATE, SINCE + 101, Traffic(10).summary(50))
        assert rows._sums[CANDIDATE].rows == found + 50
        source.close(rows)
        observed.on_pane(CANDIDATE, SINCE + 111, Traffic(10).summary(50))
        assert rows._sums[CANDIDATE].rows == found + 50
        fresh = source.open(wanted())
        assert first_tests(fresh) == {}
        assert source.schema(VersionKey("other", 1, "")) is None
