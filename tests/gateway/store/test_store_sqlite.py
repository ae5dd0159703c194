"""What the SQLite file adds to the contract: permissions, damage, locks, a full disk, migrations."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Connection, event, text

from gateway.store import migrations
from gateway.store.contract import (
    AuditEntry,
    DesiredModel,
    DesiredVersion,
    StoreConflict,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
    StoreVersionError,
)
from gateway.store.sql import SqlStore, open_store
from runtime.errors import ServingError

ENTRY = AuditEntry("alice", "", "load", "iris", 1, "", "done", "", "")
IRIS = DesiredModel("iris", served=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "driftgate.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqlStore]:
    opened = open_store(path)
    assert isinstance(opened, SqlStore)
    yield opened
    opened.close()


def raw(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_can_read_the_directory_and_its_files(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = open_store(path)
    finally:
        os.umask(before)
    store.append_audit(ENTRY)
    assert mode_of(path.parent) == 0o700
    files = {file.name: mode_of(file) for file in path.parent.iterdir()}
    assert files == {"driftgate.db": 0o600, "driftgate.db-wal": 0o600, "driftgate.db-shm": 0o600}
    store.close()
    assert [file.name for file in path.parent.iterdir()] == ["driftgate.db"]


def test_a_path_and_its_url_open_the_same_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    monkeypatch.chdir(path.parent)
    for name in (path, str(path), "driftgate.db", f"sqlite:///{path}", "sqlite:///driftgate.db"):
        store = open_store(name)
        store.append_audit(ENTRY)
        count = len(store.list_audit())
        store.close()
    assert count == 5


def test_a_path_that_sqlite_would_take_for_memory_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_store(":memory:").close()
    assert (tmp_path / ":memory:").is_file()


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "sqlite:///x.db?mode=memory&uri=true", "mysql://bob:secret@h/x", "://secret"],
)
def test_a_url_that_is_no_file_of_sqlite_is_refused_without_its_password(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreUnavailable, match="expected the store's URL as sqlite:") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_below_a_file_is_named_with_the_reason_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "state"
    with pytest.raises(StoreUnavailable) as caught:
        open_store(folder / "driftgate.db")
    assert str(caught.value) == f"cannot write the state directory {folder}: Not a directory; pass another --state-dir"


def test_a_directory_that_takes_no_files_is_named() -> None:
    with pytest.raises(StoreUnavailable, match=r"cannot write the state directory /proc/self: .*; pass .*--state-dir"):
        open_store("/proc/self/driftgate.db")


def test_missing_permission_is_named_with_its_remedy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel lets root write anywhere, so the refusal itself is the one thing made up here."""

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreUnavailable) as caught:
        open_store(path)
    assert str(caught.value) == (
        f"cannot write the state directory {path.parent}: Permission denied; pass --state-dir or fix its permissions"
    )


def test_a_directory_in_the_files_place_is_named(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreUnavailable, match=f"cannot write the state file {path}: Is a directory"):
        open_store(path)


def test_a_file_that_is_no_database_is_called_damaged_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database, " * 1_000)
    with pytest.raises(StoreCorrupt, match=f"{path} is damaged; restore it from a backup"):
        open_store(path)
    assert path.read_bytes() == b"not a database, " * 1_000


@pytest.mark.parametrize("damage", [b"\xff", b"\0"])
def test_a_damaged_page_is_found_at_opening(path: Path, damage: bytes) -> None:
    store = open_store(path)
    for _ in range(50):
        store.append_audit(replace(ENTRY, detail="x" * 500))
    store.close()
    content = bytearray(path.read_bytes())
    page_bytes = int.from_bytes(content[16:18])
    middle = len(content) // page_bytes // 2 * page_bytes
    content[middle : middle + page_bytes] = damage * page_bytes
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match=f"{path} is damaged"):
        open_store(path)


def test_a_file_cut_short_is_found_at_opening(path: Path) -> None:
    store = open_store(path)
    store.append_audit(replace(ENTRY, detail="x" * 50_000))
    store.close()
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreCorrupt):
        open_store(path)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("versions", "'['"),
        ("versions", "'[{\"version\": 1}]'"),
        ("versions", "'[1]'"),
        ("versions", '\'[{"version": "1", "digest": "", "generation": 1}]\''),
        ("labels", "'[1]'"),
        ("labels", "'{\"a\": -1}'"),
        ("pinned_versions", "'7'"),
        ("default_target", "CAST(x'ff' AS TEXT)"),
    ],
)
def test_a_row_that_no_store_wrote_is_called_damaged(path: Path, store: SqlStore, column: str, value: str) -> None:
    store.put_model(IRIS, expected_revision=0, audit=ENTRY)
    raw(path, f"UPDATE desired_model SET {column} = {value}")
    with pytest.raises(StoreCorrupt, match="the state database is damaged") as caught:
        store.load_models()
    assert str(path.parent) not in caught.value.message


def test_an_audit_record_that_no_store_wrote_is_called_damaged(path: Path, store: SqlStore) -> None:
    columns = "time_us, actor, peer, action, model, version, digest, outcome, detail, reason"
    raw(path, f"INSERT INTO audit ({columns}) VALUES (0, '', '', '', '', 0, '', 'perhaps', '', '')")
    with pytest.raises(StoreCorrupt, match="audit record 1"):
        store.list_audit()


def test_replacing_an_audit_record_is_refused_too(path: Path, store: SqlStore) -> None:
    record = store.append_audit(ENTRY)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw(path, "INSERT OR REPLACE INTO audit SELECT id, 0, '', '', '', '', 0, '', 'done', '', '' FROM audit")
    assert store.list_audit() == [record]


def test_a_lock_held_past_the_timeout_is_unavailable_and_nothing_is_written(path: Path) -> None:
    store = open_store(path, lock_timeout_seconds=0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked by another process"):
            store.put_model(IRIS, expected_revision=0, audit=ENTRY)
        assert store.load_models() == {}, "reading goes on while another process writes"
        with pytest.raises(StoreUnavailable, match=f"{path} stayed locked by another process"):
            open_store(path, lock_timeout_seconds=0.05)
        other.execute("COMMIT")
    store.put_model(IRIS, expected_revision=0, audit=ENTRY)
    assert [record.outcome for record in store.list_audit()] == ["done"]
    store.close()


def test_a_lock_released_in_time_is_waited_for(path: Path) -> None:
    store = open_store(path, lock_timeout_seconds=30)
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.1, other.execute, ["COMMIT"])
        release.start()
        store.put_model(IRIS, expected_revision=0, audit=ENTRY)
        release.join()
    assert store.load_models()["iris"].revision == 1
    store.close()


def test_closing_waits_for_the_call_in_progress(path: Path) -> None:
    store = open_store(path, lock_timeout_seconds=30)
    assert isinstance(store, SqlStore)
    begun = threading.Event()
    event.listen(store._database.engine, "checkout", lambda *_: begun.set())
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(1) as pool:
            put = pool.submit(store.put_model, IRIS, expected_revision=0, audit=ENTRY)
            assert begun.wait(20)
            release = threading.Timer(0.1, other.execute, ["COMMIT"])
            release.start()
            store.close()
            assert put.done()
            assert put.result().outcome == "done"
            release.join()
    assert [file.name for file in path.parent.iterdir()] == ["driftgate.db"]


def test_a_full_disk_is_unavailable_writes_nothing_and_heals(store: SqlStore) -> None:
    """SQLite's own bound on pages fails as a full disk does, with the same code."""
    before = store.append_audit(ENTRY)
    with store._database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
    big = replace(ENTRY, detail="x" * 100_000)
    with pytest.raises(StoreUnavailable, match="the disk is full; free some space") as caught:
        store.put_model(IRIS, expected_revision=0, audit=big)
    assert "x" * 100 not in caught.value.detail, "what is audited is not for the log"
    assert (store.load_models(), store.list_audit()) == ({}, [before])

    with store._database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    after = store.put_model(IRIS, expected_revision=0, audit=big)
    assert store.list_audit() == [after, before]


def test_a_failure_without_a_name_is_a_store_error_with_its_cause_in_the_detail(path: Path, store: SqlStore) -> None:
    raw(path, "DROP TABLE desired_model")
    with pytest.raises(StoreError, match="the state database failed unexpectedly") as caught:
        store.load_models()
    assert "no such table" in caught.value.detail


def test_commits_reach_the_disk_before_they_are_reported(store: SqlStore) -> None:
    names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
    with store._database.engine.connect() as connection:
        pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_opening_and_failing_to_open_leave_no_descriptor_behind(path: Path, tmp_path: Path) -> None:
    open_store(path).close()
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"not a database, " * 1_000)
    before = open_descriptors()
    for _ in range(3):
        open_store(path).close()
        with pytest.raises(StoreCorrupt):
            open_store(damaged)
    assert open_descriptors() == before


def test_the_representation_tells_where_and_in_what_state(path: Path) -> None:
    store = open_store(path)
    assert repr(store) == f"SqlStore(sqlite:///{path}, open)"
    store.close()
    assert repr(store) == f"SqlStore(sqlite:///{path}, closed)"


def test_no_statement_is_logged_at_info(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    store = open_store(path)
    store.append_audit(ENTRY)
    store.close()
    assert caplog.records == []


def versions_in(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT version FROM schema_version ORDER BY version")]


def add_note(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE desired_model ADD COLUMN note TEXT NOT NULL DEFAULT ''"))


def test_a_new_migration_runs_once_on_an_old_database_and_keeps_its_rows(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_store(path)
    record = first.put_model(IRIS, expected_revision=0, audit=ENTRY)
    first.close()
    before = versions_in(path)

    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, add_note))
    for _ in range(2):
        second = open_store(path)
        assert second.load_models() == {"iris": replace(IRIS, revision=1)}
        assert second.list_audit() == [record]
        second.close()
        assert versions_in(path) == [*before, len(before) + 1]
    raw(path, "UPDATE desired_model SET note = 'migrated'")

    monkeypatch.undo()
    message = f"{path} was written by a newer driftgate: expected schema {len(before)} or older"
    with pytest.raises(StoreVersionError, match=message):
        open_store(path)


def test_a_migration_that_fails_leaves_the_schema_before_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(path).close()
    before = versions_in(path)

    def fail(connection: Connection) -> None:
        add_note(connection)
        connection.execute(text("INSERT INTO nowhere VALUES (1)"))

    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, fail))
    with pytest.raises(StoreError, match="failed unexpectedly"):
        open_store(path)
    assert versions_in(path) == before
    with pytest.raises(sqlite3.OperationalError, match="no such column"):
        raw(path, "SELECT note FROM desired_model")


@pytest.mark.parametrize("kind", [StoreUnavailable, StoreCorrupt, StoreVersionError, StoreConflict])
def test_every_failure_of_the_store_is_a_store_error_with_its_own_reason(kind: type[StoreError]) -> None:
    assert issubclass(kind, StoreError)
    assert issubclass(kind, ServingError)
    assert kind.reason.startswith("STORE_")
    assert kind.reason != StoreError.reason


def test_what_a_database_cannot_hold_is_escaped_in_the_audit() -> None:
    assert replace(ENTRY, detail="a\0b\udcffc").detail == "a\\x00b\\udcffc"


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: replace(IRIS, default_target="\ud800"), "default_target"),
        (lambda: replace(IRIS, labels={"stable": -1}), "labels"),
        (lambda: replace(IRIS, labels={"\0": 1}), "labels"),
        (lambda: replace(IRIS, pinned_versions=(2**63,)), "pinned_versions"),
        (lambda: DesiredVersion(-1, "", 0), "version"),
        (lambda: DesiredVersion(1, "", -1), "generation"),
        (lambda: DesiredVersion(1, "\0", 0), "digest"),
        (lambda: replace(ENTRY, outcome=cast(Any, "perhaps")), "outcome"),
        (lambda: replace(ENTRY, version=2**63), "version"),
    ],
)
def test_a_row_that_could_not_be_stored_cannot_be_made(make: object, field: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=f"^{field}"):
        make()
