"""What the store keeps of comparisons: whole ticks, and nothing that was damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from shadow_samples import BEGAN_NS, KEY, OTHER_KEY, iris_comparison

from gateway.store.comparisons import TOTALS_LENGTH, ComparisonTick
from gateway.store.contract import StoreCorrupt
from gateway.store.sql import SqlStore, open_store
from runtime.profile.pane import Pane, PaneChanges, PaneKey

BEGAN = BEGAN_NS // 10**9 // 60 * 60
SUMMARY = iris_comparison(runs=1)


def pane(start: int, length: int = 10) -> Pane:
    return Pane.of(PaneKey(length, BEGAN + start), SUMMARY)


def totals(started: int = BEGAN) -> Pane:
    return Pane.of(PaneKey(TOTALS_LENGTH, started), SUMMARY)


def tick(*panes: Pane, now: int = BEGAN, **given: object) -> ComparisonTick:
    return ComparisonTick(now, 3600, BEGAN, panes={KEY: PaneChanges(panes)}, **given)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqlStore]:
    opened = open_store(path)
    yield opened
    opened.close()


def test_panes_and_totals_are_found_again_after_a_restart(store: SqlStore, path: Path) -> None:
    store.comparisons.put_comparisons(tick(pane(10), pane(0), pane(0, 60), totals={OTHER_KEY: totals()}))
    store.close()
    again = open_store(path)
    assert again.comparisons.load_comparisons() == {KEY: [pane(0), pane(10), pane(0, 60)]}
    assert again.comparisons.load_totals(BEGAN) == {OTHER_KEY: totals()}
    assert again.comparisons.load_totals(BEGAN + 1) == {}
    again.close()


def test_the_same_tick_again_changes_nothing_and_a_later_one_replaces(store: SqlStore) -> None:
    first = tick(pane(0), totals={KEY: totals()})
    store.comparisons.put_comparisons(first)
    store.comparisons.put_comparisons(first)
    assert store.comparisons.load_comparisons() == {KEY: [pane(0)]}
    changes = PaneChanges((pane(10),), (PaneKey(10, BEGAN),))
    store.comparisons.put_comparisons(ComparisonTick(BEGAN, 3600, BEGAN, panes={KEY: changes}))
    assert store.comparisons.load_comparisons() == {KEY: [pane(10)]}
    assert store.comparisons.load_totals(BEGAN) == {KEY: totals()}


def test_old_panes_and_totals_of_another_start_are_removed(store: SqlStore) -> None:
    store.comparisons.put_comparisons(tick(pane(0), pane(600), totals={KEY: totals()}))
    store.comparisons.put_comparisons(tick(now=BEGAN + 3600 + 300))
    assert store.comparisons.load_comparisons() == {KEY: [pane(600)]}
    assert store.comparisons.load_totals(BEGAN) == {KEY: totals()}
    store.comparisons.put_comparisons(ComparisonTick(BEGAN + 4000, 3600, BEGAN + 3990))
    assert store.comparisons.load_totals(BEGAN) == {}


@pytest.mark.parametrize("change", ["rows = -1", "length_seconds = -5", "data = 'text'", "model = X'ff'", "rows = 'x'"])
def test_what_no_store_wrote_is_corrupt(store: SqlStore, change: str) -> None:
    store.comparisons.put_comparisons(tick(pane(0)))
    with store._database.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE comparison_pane SET {change}")
    if change.startswith("length"):
        assert store.comparisons.load_comparisons() == {}
        return
    with pytest.raises(StoreCorrupt, match=r"comparison .* is damaged; restore it from a backup"):
        store.comparisons.load_comparisons()


def test_a_retention_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="retain_seconds: expected 1 or more, got 0"):
        ComparisonTick(BEGAN, 0, BEGAN)
