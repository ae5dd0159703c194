"""What the SQLite file adds for panes: an older file, damage, a full disk, and how often it is synced."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from pane_writer import BEGAN, LEVELS, VERSIONS
from test_pane_store import REFERENCE, at
from test_store import ENTRY, IRIS

from gateway.store import migrations
from gateway.store.contract import StoreCorrupt, StoreError, StoreUnavailable
from gateway.store.panes import Reference, Tick, VersionKey
from gateway.store.sql import SqlStore, open_store
from runtime.profile.pane import PaneChanges

VERSION = VERSIONS[0]
DAY = LEVELS.retain_seconds
TICK = Tick(BEGAN, DAY, panes={VERSION: PaneChanges((at(10, 0),))}, collected={"a": 1}, drift={VERSION: "{}"})

MODEL_WITHOUT_ROUTE = f"""
    INSERT INTO desired_model (name, revision, served, default_target, versions, labels, pinned_versions)
    VALUES ('iris', 1, 1, 'stable', '{json.dumps([asdict(version) for version in IRIS.versions])}',
            '{json.dumps(dict(IRIS.labels))}', '{json.dumps(IRIS.pinned_versions)}')
"""
"""As a store of the first schema wrote it."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "driftgate.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqlStore]:
    opened = open_store(path)
    yield opened
    opened.close()


def raw(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def everything(store: SqlStore) -> tuple[object, ...]:
    panes = store.panes
    return (
        panes.load_panes(VERSION), panes.load_collected(), panes.load_drift(VERSION), panes.list_references(),
        store.load_models(), store.list_audit(),
    )  # fmt: skip


def test_a_file_from_before_there_were_panes_keeps_its_models_and_gets_them(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:1])
        first = open_store(path)
        record = first.append_audit(ENTRY)
        raw(path, MODEL_WITHOUT_ROUTE)
        with pytest.raises(StoreError, match="failed unexpectedly"):
            first.panes.put_tick(TICK)
        first.close()
    second = open_store(path)
    assert second.load_models() == {"iris": replace(IRIS, revision=1)}
    assert second.list_audit() == [record]
    second.panes.put_tick(TICK)
    assert second.panes.load_panes(VERSION) == [at(10, 0)]
    second.close()


def test_a_full_disk_writes_nothing_of_a_tick_or_a_reference_and_heals(store: SqlStore) -> None:
    """SQLite's own bound on pages fails as a full disk does, with the same code."""
    store.panes.put_tick(TICK)
    before = everything(store)
    with store._database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
    secret = b"secret" * 100_000
    big = Tick(
        BEGAN + 10,
        DAY,
        panes={VERSION: PaneChanges((at(10, 0, 9), at(10, 10)), (at(10, 20).key,))},
        collected={"a": 2},
        drift={VERSION: "x" * 1_000_000},
    )
    for call in (
        lambda: store.panes.put_tick(big),
        lambda: store.panes.put_reference(Reference(VERSION, "live", "", secret), audit=ENTRY),
    ):
        with pytest.raises(StoreUnavailable, match="the disk is full; free some space") as caught:
            call()
        assert "secret" not in caught.value.detail
        assert "xxx" not in caught.value.detail
        assert everything(store) == before

    with store._database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    store.panes.put_tick(big)
    assert store.panes.load_collected() == {"a": 2}
    assert store.panes.load_panes(VERSION) == [at(10, 0, 9), at(10, 10)]


def test_a_database_that_cannot_be_written_is_unavailable_and_can_still_be_read(store: SqlStore) -> None:
    store.panes.put_tick(TICK)
    with store._database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only = ON")
    with pytest.raises(StoreUnavailable, match="cannot be written; fix its permissions"):
        store.panes.put_tick(Tick(BEGAN, DAY, collected={"a": 2}))
    assert store.panes.load_collected() == {"a": 1}


def test_a_lock_held_past_the_timeout_is_unavailable_and_nothing_is_written(path: Path) -> None:
    store = open_store(path, lock_timeout_seconds=0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked by another process"):
            store.panes.put_tick(TICK)
        assert store.panes.load_panes(VERSION) == []
        other.execute("COMMIT")
    store.panes.put_tick(TICK)
    store.close()


@pytest.mark.parametrize(
    ("statement", "load"),
    [
        ("UPDATE pane SET rows = -1", lambda store: store.panes.load_panes(VERSION)),
        ("UPDATE pane SET rows = 'many'", lambda store: store.panes.load_panes(VERSION)),
        ("UPDATE pane SET data = 'text'", lambda store: store.panes.load_panes(VERSION)),
        ("UPDATE pane SET data = 7", lambda store: store.panes.load_panes(VERSION)),
        ("UPDATE pane SET length_seconds = 0", lambda store: store.panes.load_panes(VERSION)),
        ("UPDATE collected SET serial = 'x'", lambda store: store.panes.load_collected()),
        ("UPDATE collected SET serial = -1", lambda store: store.panes.load_collected()),
        ("UPDATE collected SET slot = x'ff'", lambda store: store.panes.load_collected()),
        ("UPDATE drift_state SET state = CAST(x'ff' AS TEXT)", lambda store: store.panes.load_drift(VERSION)),
        ("UPDATE reference SET about = '['", lambda store: store.panes.get_reference(VERSION)),
        ("UPDATE reference SET about = '7'", lambda store: store.panes.get_reference(VERSION)),
        ("UPDATE reference SET payload = 7", lambda store: store.panes.get_reference(VERSION)),
        ("UPDATE reference SET set_at_us = 'now'", lambda store: store.panes.get_reference(VERSION)),
        ("UPDATE reference SET version = -1", lambda store: store.panes.list_references()),
    ],
)
def test_a_row_that_no_store_wrote_is_called_damaged(path: Path, store: SqlStore, statement: str, load) -> None:
    store.panes.put_tick(TICK)
    store.panes.put_reference(REFERENCE, audit=ENTRY)
    raw(path, statement)
    with pytest.raises(StoreCorrupt, match="the state database is damaged") as caught:
        load(store)
    assert str(path.parent) not in caught.value.message


def test_a_tick_is_one_transaction_however_many_versions_it_has(path: Path, store: SqlStore) -> None:
    commits = []
    with store._database.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_trace_callback(lambda statement: commits.append(statement) if statement == "COMMIT" else None)
    changes = {VersionKey("m", n, ""): PaneChanges((at(10, 0),), (at(10, 10).key,)) for n in range(50)}
    store.panes.put_tick(Tick(BEGAN, DAY, panes=changes, collected={str(n): n for n in range(50)}))
    assert commits == ["COMMIT"]


def test_the_log_does_not_keep_the_size_of_the_largest_reference(path: Path, store: SqlStore) -> None:
    store.panes.put_reference(Reference(VERSION, "live", "", bytes(40 << 20)), audit=ENTRY)
    for serial in range(3):
        store.panes.put_tick(Tick(BEGAN, DAY, collected={"a": serial}))
    assert path.with_name(path.name + "-wal").stat().st_size <= 16 << 20


def test_old_panes_are_found_without_reading_all_panes(store: SqlStore) -> None:
    with store._database.engine.connect() as connection:
        plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN DELETE FROM pane WHERE end_seconds < 1").all()
    assert "pane_by_end" in str(plan)
