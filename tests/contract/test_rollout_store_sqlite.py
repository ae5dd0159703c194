"""What the SQLite file adds for rollouts: damage, a full disk, and one transaction a look."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_pane_store_sqlite import raw
from test_rollout_store import look, move, start

from gateway.store.contract import StoreCorrupt, StoreUnavailable
from gateway.store.rollouts import RolloutChange
from gateway.store.sql import SqlStore, open_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "driftgate.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqlStore]:
    opened = open_store(path)
    yield opened
    opened.close()


def test_a_full_disk_writes_neither_state_nor_decision_nor_audit_and_heals(store: SqlStore) -> None:
    rollout = start(store)
    store.rollouts.save(rollout.id, RolloutChange("1", [move("a")]))
    before = store.rollouts.get(rollout.id), store.rollouts.decisions(rollout.id), store.list_audit()
    with store._database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
    with pytest.raises(StoreUnavailable, match="the disk is full; free some space"):
        store.rollouts.save(rollout.id, RolloutChange("secret" * 100_000, [move("b")]))
    assert (store.rollouts.get(rollout.id), store.rollouts.decisions(rollout.id), store.list_audit()) == before
    with store._database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    store.rollouts.save(rollout.id, RolloutChange("2", [move("b")]))
    assert [each.data for each in store.rollouts.decisions(rollout.id)] == ["a", "b"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rollout SET plan = CAST(x'ff' AS TEXT)",
        "UPDATE rollout SET baseline = -1",
        "UPDATE rollout SET created_us = 'now'",
        "UPDATE rollout SET model = ''",
    ],
)
def test_a_rollout_that_no_store_wrote_is_called_damaged(path: Path, store: SqlStore, statement: str) -> None:
    rollout = start(store)
    raw(path, statement)
    with pytest.raises(StoreCorrupt, match="the state database is damaged"):
        store.rollouts.get(rollout.id)


@pytest.mark.parametrize("data", ["'text'", "7", "x''", "x'789c'", "x'00ff'"])
def test_a_decision_that_no_store_wrote_is_called_damaged(path: Path, store: SqlStore, data: str) -> None:
    rollout = start(store)
    store.rollouts.save(rollout.id, RolloutChange("1", [move("a")]))
    raw(path, f"UPDATE rollout_decision SET data = {data}")
    with pytest.raises(StoreCorrupt, match="a decision of rollout"):
        store.rollouts.decisions(rollout.id)


def test_a_look_is_one_transaction_of_few_statements(store: SqlStore) -> None:
    rollout = start(store)
    store.rollouts.save(rollout.id, RolloutChange("1", [look("a")]))
    statements: list[str] = []
    with store._database.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_trace_callback(statements.append)
    store.rollouts.save(rollout.id, RolloutChange("2", [look("b")]))
    assert statements.count("COMMIT") == 1
    assert len(statements) <= 6


def test_rollouts_of_a_model_are_found_without_reading_all(store: SqlStore) -> None:
    with store._database.engine.connect() as connection:
        query = "EXPLAIN QUERY PLAN SELECT * FROM rollout WHERE model = 'm' ORDER BY id DESC LIMIT 1"
        plan = connection.exec_driver_sql(query).all()
    assert "rollout_by_model" in str(plan)
