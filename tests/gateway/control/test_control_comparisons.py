"""What control keeps of shadows: totals, windows, the store, and what a restart finds again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from shadow_samples import BEGAN_NS, KEY, OTHER_KEY, iris_comparison

from gateway.control import comparisons as module
from gateway.control.comparisons import Comparisons, CopyCounts
from gateway.messages import ComparisonReport, PairReport
from gateway.store.comparisons import ComparisonTick
from gateway.store.contract import StoreUnavailable
from gateway.store.sql import SqlStore, open_store
from runtime.errors import NotFound
from runtime.profile.levels import Levels
from runtime.shadow.comparison import PairComparison
from runtime.shadow.pair import PairKey, PairSettings

BEGAN = BEGAN_NS // 1_000_000_000
LEVELS = Levels(10, (60, 600))


class Clock:
    def __init__(self) -> None:
        self.now = float(BEGAN)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    opened = open_store(tmp_path / "state.db")
    yield opened
    opened.close()


Made = Callable[..., Comparisons]


@pytest.fixture
def make(store: SqlStore, clock: Clock) -> Made:
    """A control's, after it has restored what the store has."""

    def made(copies: Callable[[], CopyCounts] = dict, *, started_seconds: float = BEGAN - 5) -> Comparisons:
        comparisons = Comparisons(
            store.comparisons, LEVELS, started_seconds=started_seconds, drift_window_seconds=600, copies=copies,
            clock=clock,
        )  # fmt: skip
        comparisons.restore()
        return comparisons

    return made


def report(*parts: PairComparison, **other: Any) -> ComparisonReport:
    pairs = [
        PairReport(
            model=part.key.model,
            primary=part.key.primary,
            primary_digest=part.key.primary_digest,
            shadow=part.key.shadow,
            shadow_digest=part.key.shadow_digest,
            delta=part.to_bytes(),
        ).model_copy(update=other)
        for part in parts
    ]
    # As it comes over the socket.
    return ComparisonReport.model_validate_json(ComparisonReport(counters="a", pairs=tuple(pairs)).model_dump_json())


def merged(*parts: PairComparison) -> PairComparison:
    whole = parts[0].copy()
    for part in parts[1:]:
        whole.merge(part)
    return whole


def figures(whole: PairComparison) -> tuple[Any, ...]:
    return (
        whole.compared, whole.agreed, whole.failed, whole.shed_requests, whole.compared_rows, whole.agreed_rows,
        [(name, tally.rows, list(tally.confusion.items())) for name, tally in sorted(whole.outputs.items())],
        list(whole.disagreements),
    )  # fmt: skip


def test_reports_add_up(make: Made) -> None:
    comparisons = make()
    parts = [iris_comparison(seed) for seed in range(3)]
    for part in parts:
        comparisons.take(report(part))
    whole = merged(*parts)
    assert figures(comparisons.view(KEY).whole) == figures(whole)
    totals = comparisons.totals("iris", 1, 2)
    assert (totals.compared, totals.agreed, totals.failed) == (whole.compared, whole.agreed, whole.failed)
    assert totals.requests == whole.compared + whole.failed
    assert comparisons.totals("iris", 1, 9).requests == 0


def test_pairs_are_kept_apart_and_found_by_number(make: Made) -> None:
    comparisons = make()
    comparisons.take(report(iris_comparison(), iris_comparison(1, key=OTHER_KEY)))
    assert comparisons.pairs() == [KEY, OTHER_KEY]
    assert comparisons.pairs("iris", shadow=3) == [OTHER_KEY]
    assert comparisons.pairs("iris", primary=2) == []
    assert comparisons.pairs("other") == []
    with pytest.raises(NotFound, match="nothing is known any more of shadow 9 of model 'iris'"):
        comparisons.view(PairKey("iris", 1, "a", 9, "b"))


def test_windows_have_what_came_within_them(make: Made, clock: Clock) -> None:
    comparisons = make()
    old, new = iris_comparison(1), iris_comparison(2)
    comparisons.take(report(old))
    comparisons.tick(clock.now)
    clock.now += 120
    comparisons.take(report(new))
    assert figures(comparisons.view(KEY, 60).whole) == figures(new)
    comparisons.tick(clock.now)
    assert figures(comparisons.view(KEY, 60).whole) == figures(new)
    assert figures(comparisons.view(KEY, 600).whole) == figures(merged(old, new))
    clock.now += 700
    assert comparisons.view(KEY, 600).whole.is_empty
    assert figures(comparisons.view(KEY).whole) == figures(merged(old, new))
    with pytest.raises(ValueError, match="expected one of 60, 600, got 7"):
        comparisons.view(KEY, 7)


def test_a_restart_of_control_finds_windows_and_totals(make: Made, clock: Clock) -> None:
    parts = [iris_comparison(seed) for seed in range(3)]
    comparisons = make()
    comparisons.take(report(parts[0]))
    comparisons.tick(clock.now)
    before = comparisons.totals("iris", 1, 2)
    clock.now += 10
    comparisons = make()
    comparisons.take(report(parts[1]))
    clock.now += 10
    comparisons.tick(clock.now)
    comparisons = make()
    assert figures(comparisons.view(KEY).whole) == figures(merged(*parts[:2]))
    assert figures(comparisons.view(KEY, 60).whole) == figures(merged(*parts[:2]))
    totals = comparisons.totals("iris", 1, 2)
    assert totals.requests == 0  # counted from this control's start
    assert totals.counters != before.counters


def test_another_start_of_the_gateway_begins_totals_anew_and_keeps_windows(make: Made, clock: Clock) -> None:
    part = iris_comparison()
    comparisons = make()
    comparisons.take(report(part))
    comparisons.tick(clock.now)
    clock.now += 20
    comparisons = make(started_seconds=clock.now)
    assert comparisons.view(KEY).whole.is_empty
    assert figures(comparisons.view(KEY, 60).whole) == figures(part)
    comparisons.take(report(part))
    comparisons.tick(clock.now)
    assert figures(make(started_seconds=clock.now).view(KEY).whole) == figures(part)


def test_what_is_older_than_all_windows_leaves_the_store(make: Made, clock: Clock, store: SqlStore) -> None:
    comparisons = make()
    comparisons.take(report(iris_comparison()))
    comparisons.tick(clock.now)
    assert list(store.comparisons.load_comparisons()) == [KEY]
    clock.now += LEVELS.retain_seconds + 20
    comparisons.take(report(iris_comparison(key=OTHER_KEY)))
    comparisons.tick(clock.now)
    assert list(store.comparisons.load_comparisons()) == [OTHER_KEY]
    assert sorted(store.comparisons.load_totals(BEGAN - 5)) == [KEY, OTHER_KEY]


def test_a_store_that_fails_gets_it_the_next_time(
    make: Made, clock: Clock, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparisons = make()
    part, more = iris_comparison(1), iris_comparison(2)

    def fail(_tick: ComparisonTick) -> None:
        raise StoreUnavailable("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(store.comparisons, "put_comparisons", fail)
        comparisons.take(report(part))
        with pytest.raises(StoreUnavailable):
            comparisons.tick(clock.now)
    clock.now += 10
    comparisons.tick(clock.now)
    assert figures(make().view(KEY).whole) == figures(part)
    comparisons.take(report(more))
    comparisons.tick(clock.now)
    restarted = make()
    assert figures(restarted.view(KEY, 60).whole) == figures(merged(part, more))
    assert figures(restarted.view(KEY).whole) == figures(merged(part, more))


def test_a_damaged_report_is_told_and_the_others_count(make: Made, caplog: pytest.LogCaptureFixture) -> None:
    comparisons = make()
    with caplog.at_level(logging.WARNING):
        comparisons.take(report(iris_comparison(), shadow=7))
        comparisons.take(report(iris_comparison(), delta=b"damage"))
        comparisons.take(report(iris_comparison()))
    assert comparisons.pairs() == [KEY]
    assert comparisons.notes() == ["2 reports of the shadow process could not be read, and are left out"]
    assert len(caplog.records) == 2


def test_stored_bytes_that_cannot_be_read_cost_their_pane_alone(
    make: Made, clock: Clock, store: SqlStore, caplog: pytest.LogCaptureFixture
) -> None:
    comparisons = make()
    comparisons.take(report(iris_comparison()))
    comparisons.tick(clock.now)
    with store._database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE comparison_pane SET data = X'00'")
    with caplog.at_level(logging.ERROR):
        comparisons = make()
    assert comparisons.view(KEY, 60).whole.is_empty
    assert any("are in stored panes that cannot be read" in note for note in comparisons.notes())
    assert "the totals of shadow 2 of iris cannot be read" in caplog.text


class Rings:
    """As the rings' heads count: since the gateway's start."""

    def __init__(self) -> None:
        self.chosen = 0
        self.refused: Mapping[str, int] = {}

    def __call__(self) -> CopyCounts:
        return {KEY: (self.chosen, self.refused)} if self.chosen else {}


def adds_up(view: module.PairView) -> bool:
    whole = view.whole
    return view.chosen == whole.compared + whole.failed + sum(view.shed.values()) + view.waiting


def test_copies_are_accounted_for(make: Made, clock: Clock) -> None:
    rings = Rings()
    comparisons = make(rings)
    rings.chosen, rings.refused = 10, {"queue_full": 4}
    view = comparisons.view(comparisons.pairs()[0])
    assert (view.chosen, view.waiting, view.shed) == (10, 6, {"queue_full": 4})
    part = iris_comparison()
    rings.chosen, rings.refused = part.rows + 10, {"queue_full": 4, "too_large": 1}
    comparisons.take(report(part))
    for window in (0, 60, 600):
        view = comparisons.view(KEY, window)
        assert (view.waiting, view.shed) == (5, {"late": 3, "queue_full": 4, "too_large": 1})
        assert adds_up(view)
    comparisons.tick(clock.now)
    clock.now += 120
    view = comparisons.view(KEY, 60)
    assert (view.chosen, view.waiting, view.shed) == (5, 5, {})


def test_copies_that_died_with_control_are_lost_and_those_that_wait_are_not(make: Made, clock: Clock) -> None:
    rings = Rings()
    comparisons = make(rings)
    rings.chosen, rings.refused = 40, {"queue_full": 4}
    comparisons.tick(clock.now)
    part = iris_comparison(runs=2)
    rings.chosen = 4 + part.rows + 9
    comparisons = make(rings)  # the report of `part` was never taken by the one before
    assert comparisons.view(KEY).shed == {"queue_full": 4, "lost": part.rows + 9}
    nine = PairComparison(KEY, PairSettings())
    nine.shed("late", 9)
    comparisons.take(report(nine))
    view = comparisons.view(KEY)
    assert (view.shed, view.waiting) == ({"queue_full": 4, "late": 9, "lost": part.rows}, 0)
    assert (view.chosen, adds_up(view)) == (rings.chosen, True)
    rings.chosen += 3
    view = comparisons.view(KEY)
    assert (view.waiting, view.shed["lost"], view.chosen) == (3, part.rows, rings.chosen)


def test_rings_that_were_made_anew_count_on(make: Made) -> None:
    rings = Rings()
    comparisons = make(rings)
    rings.chosen, rings.refused = 10, {"queue_full": 10}
    comparisons.pairs()
    rings.chosen, rings.refused = 3, {"queue_full": 2}
    view = comparisons.view(KEY)
    assert (view.chosen, view.shed, view.waiting) == (13, {"queue_full": 12}, 1)


def test_pairs_are_bounded(make: Made, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAIRS", 2)
    comparisons = make()
    keys = [PairKey("m", 1, "a", at, "b") for at in range(2, 5)]
    for key in keys:
        clock.now += 1
        comparisons.take(report(iris_comparison(runs=1, key=key)))
    assert comparisons.pairs() == keys[1:]
    assert comparisons.notes() == ["beyond 2 pairs, those unheard of for longest are forgotten: 1 so far"]
    before = comparisons.totals("m", 1, 4)
    comparisons.take(report(iris_comparison(runs=1, key=keys[0])))
    comparisons.take(report(iris_comparison(runs=1, key=keys[2])))
    assert comparisons.totals("m", 1, 2).counters != before.counters


def test_what_the_rings_still_name_of_a_forgotten_pair_pushes_no_other_out(
    make: Made, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PAIRS", 2)
    keys = [PairKey("m", 1, "a", at, "b") for at in range(2, 5)]
    counted: dict[PairKey, tuple[int, dict[str, int]]] = {}
    comparisons = make(lambda: counted)
    for key in keys:
        clock.now += 10
        counted[key] = (7, {"queue_full": 7})
        comparisons.tick(clock.now)
    for _ in range(5):
        clock.now += 10
        comparisons.tick(clock.now)
        assert comparisons.pairs() == keys[1:]
    assert comparisons.notes() == ["beyond 2 pairs, those unheard of for longest are forgotten: 1 so far"]
    counted[keys[0]] = (9, {"queue_full": 8})
    clock.now += 10
    comparisons.tick(clock.now)
    assert comparisons.pairs() == [keys[0], keys[2]]
    view = comparisons.view(keys[0])
    assert (view.chosen, view.shed, view.waiting) == (2, {"queue_full": 1}, 1), "what is new alone"


def test_what_a_restarted_control_no_longer_finds_in_the_rings_is_not_counted_again(make: Made, clock: Clock) -> None:
    counted: dict[PairKey, tuple[int, dict[str, int]]] = {KEY: (100, {"queue_full": 100})}
    make(lambda: counted).tick(clock.now)
    counted[KEY] = (5, {"queue_full": 5})  # one of the pair's places has become another's
    clock.now += 10
    comparisons = make(lambda: counted)
    assert comparisons.view(KEY).shed == {"queue_full": 100}
    counted[KEY] = (8, {"queue_full": 8})
    assert comparisons.view(KEY).shed == {"queue_full": 103}


def test_totals_are_of_the_files_last_heard_of(make: Made, clock: Clock) -> None:
    comparisons = make()
    newer = PairKey("iris", 1, KEY.primary_digest, 2, "sha256:" + "9" * 64)
    comparisons.take(report(iris_comparison(0)))
    first = comparisons.totals("iris", 1, 2)
    clock.now += 1
    part = iris_comparison(1, runs=2, key=newer)
    comparisons.take(report(part))
    second = comparisons.totals("iris", 1, 2)
    assert second.compared == part.compared
    assert second.counters != first.counters


def test_the_metrics_figures_count_from_this_controls_start(make: Made, clock: Clock) -> None:
    comparisons = make()
    comparisons.take(report(iris_comparison(1)))
    comparisons.tick(clock.now)
    comparisons = make()
    part = iris_comparison(2)
    comparisons.take(report(part))
    comparisons.tick(clock.now)
    [found] = comparisons.figures()
    assert {key: count for key, count in found.requests.items() if count} == {
        ("agreed", ""): part.agreed,
        ("disagreed", ""): part.compared - part.agreed,
        ("failed", ""): part.failed,
        ("shed", "late"): 3,
    }
    whole = comparisons.view(KEY, 600).whole
    assert found.agreement == pytest.approx(whole.agreed / whole.compared)
    assert found.latency_ratio == pytest.approx(whole.latency_ratio)
