"""The watch over a version: alarms come and go as they should, outlive a restart, and cost what they may."""

from __future__ import annotations

import json

import numpy as np
import pytest
from drift_traffic import NAMES, Rows, Traffic, at, reference, shift
from drift_traffic import Change as Shift

from gateway.control.drift_budget import SHARE, TOGETHER_EVERY, LookBudget
from gateway.control.drift_evidence import POOLED_ROWS
from gateway.control.drift_history import MAX_LOOKS, MAX_SUBJECTS, History
from gateway.control.drift_watch import Change, DriftWatch, StateInvalid
from gateway.control.service_counts import ServiceCounts, ServiceSample
from gateway.store.panes import VersionKey
from runtime.drift.evaluate import JOINT
from runtime.drift.verdict import Decision, Role
from runtime.profile.compare import PreparedReference
from runtime.profile.windows import Window
from runtime.repository.statistics_settings import DriftSettings

VERSION = VersionKey("cancer", 3, "sha256:" + "1" * 64)
PANE_SECONDS = 10
SETTINGS = DriftSettings(raise_looks=2, clear_looks=3, classifier=False)


class Cpu:
    """A processor's clock: each look takes `cost_seconds`."""

    def __init__(self, cost_seconds: float = 0.01) -> None:
        self.cost_seconds = cost_seconds
        self._now = 0.0

    def __call__(self) -> float:
        self._now += self.cost_seconds
        return self._now


def watch_of(settings: DriftSettings = SETTINGS, *, rows: int = 20_000, cpu: Cpu | None = None) -> DriftWatch:
    return DriftWatch(VERSION, settings, PANE_SECONDS, reference(rows), cpu_seconds=cpu or Cpu())


class Clock:
    """Panes of real rows, one every 10 s; each is a window of its own."""

    def __init__(self, watch: DriftWatch, seed: int = 2) -> None:
        self.watch = watch
        self.now_seconds = 1_000_000
        self._traffic = Traffic(seed)

    def tick(self, rows: int, *changes: Shift, service: ServiceSample | None = None) -> list[Change]:
        self.now_seconds += PANE_SECONDS
        pane = self._traffic.summary(rows, *changes)
        self.watch.offer(pane)
        window = Window(self.now_seconds - PANE_SECONDS, float(self.now_seconds), pane if rows else None)
        return self.watch.look(self.now_seconds, window, service)


def said(changes: list[Change]) -> list[tuple[str, bool, str]]:
    return [(change.subject, change.raised, change.by) for change in changes]


def by_window(changes: list[Change]) -> list[Change]:
    return [change for change in changes if change.by == "window"]


def test_an_alarm_is_raised_after_some_looks_and_cleared_after_more() -> None:
    watch = watch_of()
    clock = Clock(watch)
    assert clock.tick(900) == []
    moved = shift("mean texture", 1.0)
    assert by_window(clock.tick(900, moved)) == []
    first = clock.now_seconds - PANE_SECONDS
    (change,) = by_window(clock.tick(900, moved))
    assert said([change]) == [("mean texture", True, "window")]
    assert change.since_seconds == first
    assert (change.version, change.reference, change.window_seconds, change.rows) == (
        VERSION, reference().source, PANE_SECONDS, 900,
    )  # fmt: skip
    assert change.verdict is not None
    assert change.verdict.alarmed
    assert watch.alarmed["mean texture"] == first
    assert watch.decision is Decision.DRIFTED
    assert by_window(clock.tick(900, moved)) == [], "an alarm that is there is not raised again"
    assert [said(by_window(clock.tick(900))) for _ in range(3)] == [[], [], [("mean texture", False, "window")]]
    assert watch.alarmed == {}
    assert watch.report is not None
    assert watch.report.report.drifted == ()


@pytest.mark.parametrize("rows", [300, 100])
def test_an_alarm_ends_also_where_few_rows_come_if_its_change_would_have_shown(rows: int) -> None:
    """In 300 rows, or 100, a change at the thresholds never shows; that it was one of a whole deviation is known."""
    watch = watch_of()
    clock = Clock(watch)
    for _ in range(2):
        clock.tick(300, shift("mean texture", 1.0))
    assert "mean texture" in watch.alarmed
    changes = [change for _ in range(3) for change in said(clock.tick(rows))]
    assert ("mean texture", False, "window") in changes
    assert watch.report is not None
    assert watch.report.report.of("mean texture").decision is Decision.NOT_ENOUGH_DATA


def test_what_features_explain_is_no_news_of_projections() -> None:
    watch = watch_of(DriftSettings())
    clock = Clock(watch)
    news = {change.subject for _ in range(20) for change in clock.tick(1000, shift("mean texture", 1.5))}
    assert news == {"mean texture"}
    assert JOINT in watch.alarmed
    assert any(subject.startswith("projection ") for subject in watch.alarmed)


def test_what_only_the_rows_show_is_news() -> None:
    """Two features that go together no more; each is as it was, and so is its correlation with the prediction."""

    def turned(rows: Rows) -> None:
        for name in ("mean texture", "mean symmetry"):
            rows[:, at(name)] = np.random.default_rng(5).permutation(rows[:, at(name)])

    watch = watch_of(DriftSettings(thresholds={"correlation": 9.0}))
    clock = Clock(watch)
    news = {change.subject for _ in range(20) for change in clock.tick(1024, turned)}
    assert JOINT in news
    assert not news & set(NAMES)


def test_a_window_without_rows_enough_neither_raises_nor_clears() -> None:
    watch = watch_of()
    clock = Clock(watch)
    for _ in range(2):
        clock.tick(900, shift("mean texture", 1.0))
    alarmed = watch.alarmed
    for _ in range(5):
        assert clock.tick(10) == []
    assert watch.report is not None
    assert watch.report.report.decision is Decision.NOT_ENOUGH_DATA
    assert watch.alarmed == alarmed
    assert "mean texture" in alarmed


def test_it_looks_only_where_there_are_new_rows() -> None:
    watch = watch_of()
    clock = Clock(watch)
    assert watch.due(clock.now_seconds), "a window may be there from before a restart"
    clock.tick(200)
    assert not watch.due(clock.now_seconds + 10_000)
    watch.offer(Traffic(3).summary(0))
    assert not watch.due(clock.now_seconds + 10_000)
    watch.offer(Traffic(3).summary(10))
    assert watch.due(clock.now_seconds + 10_000)


def test_evidence_alarms_of_a_change_too_small_for_a_look_and_ends_with_it() -> None:
    watch = watch_of(rows=50_000)
    clock = Clock(watch)
    small = shift("mean texture", 0.2)
    changes: list[Change] = []
    looks = 0
    while not changes and looks < 60:
        changes, looks = clock.tick(300, small), looks + 1
    assert said(changes) == [("mean texture", True, "evidence")]
    assert watch.report is not None
    assert watch.report.evidence_since == {"mean texture": clock.now_seconds}
    assert watch.report.log_evidence["mean texture"] > 10
    for _ in range(20):
        changes = said(clock.tick(300, small))
        assert changes == [], "what is there is not raised again"
    cleared: list[Change] = []
    while not cleared and looks < 120:
        cleared, looks = clock.tick(300), looks + 1
    assert said(cleared) == [("mean texture", False, "evidence")]


def test_panes_are_pooled_before_they_are_evidence() -> None:
    watch = watch_of()
    clock = Clock(watch)
    for _ in range(POOLED_ROWS // 100 - 1):
        clock.tick(100)
        assert watch.report is not None
        assert watch.report.log_evidence == {}
    clock.tick(100)
    assert watch.report is not None
    assert "mean texture" in watch.report.log_evidence


def test_a_restart_keeps_alarms_evidence_and_the_past() -> None:
    watch = watch_of()
    clock = Clock(watch)
    moved = shift("mean texture", 1.0)
    for _ in range(4):
        clock.tick(1000, moved)
    assert watch.report is not None
    assert set(watch.report.evidence_since) == {"mean texture"}
    assert "mean texture" in watch.alarmed
    state = watch.state()
    after = watch_of()
    assert after.restore(state)
    assert after.alarmed == watch.alarmed
    for ours, theirs in zip(after.past(99).effects, watch.past(99).effects, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert after.past(99).times_seconds == watch.past(99).times_seconds
    assert json.loads(after.state()) == json.loads(state)
    later = Clock(after, seed=3)
    later.now_seconds = clock.now_seconds
    assert later.tick(1000, moved) == [], "nothing is raised a second time"
    assert after.alarmed == watch.alarmed
    changes = [change for _ in range(12) for change in said(later.tick(1000))]
    assert changes == [("mean texture", False, "window"), ("mean texture", False, "evidence")]


def test_a_state_of_another_reference_is_left_aside_and_one_that_is_none_is_refused() -> None:
    watch = watch_of()
    Clock(watch).tick(500)
    state = watch.state()
    other = DriftWatch(VERSION, SETTINGS, PANE_SECONDS, PreparedReference(Traffic(9).summary(100), "sha256:other"))
    assert not other.restore(state)
    assert other.past(9).times_seconds == ()
    for broken in ("", "[]", "{}", state.replace('"version":1', '"version":2'), state.replace('"looks"', '"books"')):
        with pytest.raises(StateInvalid):
            watch_of().restore(broken)
    document = json.loads(state)
    document["history"]["effects"] = document["history"]["effects"][:-8]
    with pytest.raises(StateInvalid):
        watch_of().restore(json.dumps(document))


def test_alarms_that_nothing_can_clear_any_more_are_forgotten_after_a_restart() -> None:
    watch = watch_of()
    clock = Clock(watch)
    for _ in range(2):
        clock.tick(900, shift("mean texture", 1.0))
    after = watch_of()
    assert after.restore(watch.state().replace("mean texture", "a feature of the past"))
    changes = said(Clock(after).tick(900))
    assert changes == [("a feature of the past", False, "window")]


def test_another_reference_ends_alarms_and_history() -> None:
    watch = watch_of()
    clock = Clock(watch)
    for _ in range(3):
        clock.tick(1000, shift("mean texture", 1.0))
    cleared = watch.set_reference(PreparedReference(Traffic(5).summary(5000, shift("mean texture", 1.0)), "sha256:new"))
    assert set(said(cleared)) == {("mean texture", False, "window"), ("mean texture", False, "evidence")}
    assert watch.past(9).times_seconds == ()
    assert watch.report is None
    assert watch.due(clock.now_seconds + 1)
    for _ in range(3):
        assert clock.tick(1000, shift("mean texture", 1.0)) == []
    assert watch.report is not None
    assert watch.report.report.reference == "sha256:new"


def answers(requests: int, errors: int, seconds: float) -> ServiceCounts:
    from gateway.telemetry.durations import DurationRecorder

    recorder, random = DurationRecorder(), np.random.default_rng(requests + errors)
    for value in random.lognormal(np.log(seconds), 0.5, requests - errors):
        recorder.record(float(value), "")
    counted = recorder.distributions()[""]
    return ServiceCounts(counted.counts.astype(np.int64), counted.zero, requests, errors)


def test_latency_and_errors_are_compared_with_the_time_before_also_without_a_reference() -> None:
    watch = DriftWatch(VERSION, SETTINGS, PANE_SECONDS, cpu_seconds=Cpu())
    clock = Clock(watch)
    calm = ServiceSample(answers(50_000, 50, 0.01), answers(500_000, 500, 0.01), 3000)
    slow = ServiceSample(answers(50_000, 4000, 0.03), answers(500_000, 500, 0.01), 3000)
    assert clock.tick(500, service=calm) == []
    assert watch.report is not None
    assert {v.subject: v.decision for v in watch.report.report.verdicts} == {
        "service.latency": Decision.STABLE, "service.errors": Decision.STABLE,
    }  # fmt: skip
    assert watch.report.notes == ("features are compared with nothing: there is no reference",)
    changes = [change for _ in range(2) for change in clock.tick(500, service=slow)]
    assert sorted(said(changes)) == [("service.errors", True, "window"), ("service.latency", True, "window")]
    verdict = changes[0].verdict
    assert verdict is not None
    assert (verdict.role, verdict.reference) == (Role.SERVICE, "the 3,000 s before")


def test_without_reference_and_service_there_is_no_report() -> None:
    watch = DriftWatch(VERSION, SETTINGS, PANE_SECONDS)
    assert Clock(watch).tick(500) == []
    assert watch.report is None
    assert watch.decision is Decision.NOT_ENOUGH_DATA


def test_the_classifier_is_asked_now_and_then_and_its_verdict_stays_meanwhile() -> None:
    watch = watch_of(DriftSettings(clear_looks=3))
    clock = Clock(watch)
    asked = []
    for _ in range(2 * TOGETHER_EVERY + 1):
        clock.tick(300)
        assert watch.report is not None
        assert JOINT in {verdict.subject for verdict in watch.report.report.verdicts}
        effect = watch.report.report.of(JOINT).finding
        asked.append(effect)
    assert len({id(finding) for finding in asked}) == 3


def test_a_dear_look_makes_the_next_one_later_and_says_so() -> None:
    cpu = Cpu(3.0)
    watch = watch_of(cpu=cpu)
    clock = Clock(watch)
    clock.tick(300)
    pause = 3.0 / (SHARE / 2)
    watch.offer(Traffic(3).summary(10))
    assert not watch.due(clock.now_seconds + pause - 1)
    assert watch.due(clock.now_seconds + pause)
    assert watch.due(clock.now_seconds - 1), "the clock was set back"
    clock.now_seconds += int(pause)
    clock.tick(300)
    assert watch.report is not None
    (note,) = watch.report.notes
    assert note.startswith("a look takes 3 s of the processor, so there are at least 120 s between two")


@pytest.fixture(params=[1, 4])
def budgets(request: pytest.FixtureRequest) -> list[LookBudget]:
    return [LookBudget() for _ in range(request.param)]


def test_all_looks_together_take_their_share_of_the_processor(budgets: list[LookBudget]) -> None:
    spent, seconds = 0.0, 20_000
    for now in range(0, seconds, PANE_SECONDS):
        for budget in budgets:
            if budget.due(now):
                together = budget.together(now)
                cost = 4.0 if together else 1.5
                budget.spent(now, cost, len(budgets), together=together)
                spent += cost
    assert 0.5 * SHARE * seconds < spent <= SHARE * seconds * 1.02


def test_the_past_is_bounded_and_keeps_who_matters() -> None:
    history = History()
    many = {f"f{number}": float(number) for number in range(MAX_SUBJECTS + 100)}
    for look in range(MAX_LOOKS + 10):
        history.add(look, 100, "stable", many)
    past = history.past()
    assert past.effects.shape == (MAX_LOOKS, MAX_SUBJECTS)
    assert past.times_seconds[0] == 10
    assert past.subjects == tuple(many)[:MAX_SUBJECTS]
    late = f"f{MAX_SUBJECTS + 50}"
    history.add(9999, 100, "drifted", many, {late})
    past = history.past(2)
    assert late in past.subjects
    place = past.subjects.index(late)
    np.testing.assert_array_equal(past.effects[:, place], np.float32([np.nan, many[late]]))
    assert history.past(0).effects.shape == (0, MAX_SUBJECTS)
    restored = History.from_json(json.loads(json.dumps(history.to_json())))
    np.testing.assert_array_equal(restored.past().effects, history.past().effects)
    assert restored.past().subjects == history.past().subjects


def test_a_subject_that_comes_and_goes_is_nan_where_it_was_not() -> None:
    history = History()
    history.add(1, 10, "stable", {"a": 1.0})
    history.add(2, 10, "stable", {"a": 2.0, "b": 3.0})
    history.add(3, 10, "stable", {"b": 4.0})
    past = history.past()
    assert past.subjects == ("a", "b")
    np.testing.assert_array_equal(past.effects, np.float32([[1, np.nan], [2, 3], [np.nan, 4]]))
