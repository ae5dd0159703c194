"""The store in a SQL database: SQLite in a file of the state directory.

Statements are SQLAlchemy Core without any dialect's own SQL; what only SQLite needs is in `_sqlite_engine` and in the
triggers of `migrations`. SQLAlchemy's exceptions stop here, mapped by the database's error codes.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    Delete,
    Engine,
    Insert,
    Row,
    Text,
    Update,
    column,
    create_engine,
    delete,
    event,
    insert,
    select,
    table,
    update,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError

from gateway.store.contract import (
    MAX_INT64,
    AuditEntry,
    AuditRecord,
    DesiredModel,
    DesiredVersion,
    Store,
    StoreConflict,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
    require_name,
)
from gateway.store.migrations import migrate

DEFAULT_LOCK_TIMEOUT_SECONDS = 5.0
"""Far above any transaction of ours (milliseconds), below the patience of an operator's command."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

ENTRY_COLUMNS = tuple(field.name for field in fields(AuditEntry))

desired_model = table(
    "desired_model",
    column("name", Text),
    column("revision", BigInteger),
    column("served", Boolean),
    column("default_target", Text),
    column("versions", Text),
    column("labels", Text),
    column("pinned_versions", Text),
)
audit_table = table(
    "audit",
    column("id", BigInteger),
    column("time_us", BigInteger),
    *(column(name, BigInteger if name == "version" else Text) for name in ENTRY_COLUMNS),
)

DAMAGED = "{where} is damaged; restore it from a backup, or move it away to start without desired state"

SQLITE_FAILURES: dict[int, tuple[type[StoreError], str]] = {
    sqlite3.SQLITE_BUSY: (StoreUnavailable, "{where} stayed locked by another process; stop that process or retry"),
    sqlite3.SQLITE_LOCKED: (StoreUnavailable, "{where} stayed locked by another process; stop that process or retry"),
    sqlite3.SQLITE_FULL: (StoreUnavailable, "{where} cannot grow: the disk is full; free some space and retry"),
    sqlite3.SQLITE_IOERR: (StoreUnavailable, "{where} cannot be read or written: the disk reports an error"),
    sqlite3.SQLITE_CANTOPEN: (StoreUnavailable, "{where} cannot be opened; check that its directory can be written"),
    sqlite3.SQLITE_READONLY: (StoreUnavailable, "{where} cannot be written; fix its permissions and its directory's"),
    sqlite3.SQLITE_PERM: (StoreUnavailable, "{where} cannot be written; fix its permissions and its directory's"),
    sqlite3.SQLITE_CORRUPT: (StoreCorrupt, DAMAGED),
    sqlite3.SQLITE_NOTADB: (StoreCorrupt, DAMAGED),
}
"""SQLite's primary result code → what to raise."""

OPEN_FAILURE_REMEDIES = {
    errno.EACCES: "pass --state-dir or fix its permissions",
    errno.EPERM: "pass --state-dir or fix its permissions",
    errno.ENOSPC: "pass --state-dir or free some space",
    errno.EDQUOT: "pass --state-dir or free some space",
}


def open_store(
    url_or_path: str | os.PathLike[str], *, lock_timeout_seconds: float = DEFAULT_LOCK_TIMEOUT_SECONDS
) -> Store:
    """Opens the store at a file path or a `sqlite:///` URL, creates it (directory 0700, file 0600) and migrates it.

    Raises StoreUnavailable, StoreCorrupt or StoreVersionError, each naming the file. Reads the whole file once, for
    damage is best found before anything is written over it.
    """
    url = _parse_url(url_or_path)
    path = Path(url.database or "")
    _create_file(path)
    engine = _sqlite_engine(url, lock_timeout_seconds)
    try:
        with _errors_mapped(f"the state database {path}"):
            _check_for_damage(engine, path)
            migrate(_writing(engine))
    except BaseException:
        engine.dispose()
        raise
    return SqlStore(engine)


class SqlStore:
    def __init__(self, engine: Engine) -> None:
        """`engine`: migrated; owned from here on."""
        self._engine = engine
        self._closed = False
        # One call at a time: SQLite has one writer anyway, and waiting here is fair and free, while SQLite's own wait
        # sleeps and polls. It also lets close() wait for the call in progress.
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"SqlStore({self._engine.url!r}, {'closed' if self._closed else 'open'})"

    def load_models(self) -> dict[str, DesiredModel]:
        with self._transaction(self._engine) as connection:
            rows = connection.execute(select(desired_model).order_by(desired_model.c.name)).all()
        return {row.name: _model_of(row) for row in rows}

    def put_model(self, desired: DesiredModel, *, expected_revision: int, audit: AuditEntry) -> AuditRecord:
        require_name(desired.name)
        values = _row_of(desired) | {"revision": expected_revision + 1}
        statement: Insert | Update
        if expected_revision == 0:
            statement = insert(desired_model).values(values)
        else:
            statement = update(desired_model).where(desired_model.c.name == desired.name).values(values)
        return self._change(statement, desired.name, expected_revision, audit)

    def delete_model(self, name: str, *, expected_revision: int, audit: AuditEntry) -> AuditRecord:
        if expected_revision == 0:
            raise ValueError("expected_revision: expected 1 or more, got 0, which means that there is no such model")
        statement = delete(desired_model).where(desired_model.c.name == name)
        return self._change(statement, name, expected_revision, audit)

    def append_audit(self, entry: AuditEntry) -> AuditRecord:
        with self._transaction(_writing(self._engine)) as connection:
            return _append(connection, entry)

    def list_audit(self, model: str = "", limit: int = 100, before_id: int = 0) -> list[AuditRecord]:
        if not 1 <= limit <= MAX_INT64 or not 0 <= before_id <= MAX_INT64:
            raise ValueError(f"expected limit >= 1 and before_id >= 0, both int64, got {limit} and {before_id}")
        query = select(audit_table).order_by(audit_table.c.id.desc()).limit(limit)
        if model:
            query = query.where(audit_table.c.model == model)
        if before_id:
            query = query.where(audit_table.c.id < before_id)
        with self._transaction(self._engine) as connection:
            rows = connection.execute(query).all()
        return [_record_of(row) for row in rows]

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._engine.dispose()

    def _change(self, statement: Insert | Update | Delete, name: str, expected: int, audit: AuditEntry) -> AuditRecord:
        current = select(desired_model.c.revision).where(desired_model.c.name == name).with_for_update()
        with self._transaction(_writing(self._engine)) as connection:
            found = connection.scalar(current) or 0
            if found != expected:
                raise StoreConflict(name, expected_revision=expected, found_revision=found)
            try:
                connection.execute(statement)
            except IntegrityError as error:
                # Where rows are locked and not the whole database, two may both have found no row to lock.
                raise StoreConflict(name, expected_revision=expected, found_revision=1) from error
            return _append(connection, audit)

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        with self._lock:
            if self._closed:
                raise StoreUnavailable("the store is closed; driftgate is shutting down")
            with _errors_mapped("the state database", detail=repr(self)), engine.begin() as connection:
                yield connection


def _append(connection: Connection, entry: AuditEntry) -> AuditRecord:
    now = datetime.now(UTC)
    values = {name: getattr(entry, name) for name in ENTRY_COLUMNS}
    statement = insert(audit_table).values(time_us=(now - EPOCH) // MICROSECOND, **values)
    record_id = connection.execute(statement.returning(audit_table.c.id)).scalar_one()
    return AuditRecord(**values, id=record_id, time=now)


def _record_of(row: Row[Any]) -> AuditRecord:
    with _damage_mapped("audit record", row.id):
        values = row._asdict()
        return AuditRecord(time=EPOCH + values.pop("time_us") * MICROSECOND, **values)


def _row_of(desired: DesiredModel) -> dict[str, Any]:
    return {
        "name": desired.name,
        "served": desired.served,
        "default_target": desired.default_target,
        "versions": json.dumps([asdict(version) for version in desired.versions]),
        "labels": json.dumps(dict(desired.labels)),
        "pinned_versions": json.dumps(desired.pinned_versions),
    }


def _model_of(row: Row[Any]) -> DesiredModel:
    with _damage_mapped("model", row.name):
        return DesiredModel(
            name=row.name,
            served=row.served,
            versions=tuple(DesiredVersion(**version) for version in json.loads(row.versions)),
            labels=dict(json.loads(row.labels)),
            default_target=row.default_target,
            pinned_versions=tuple(json.loads(row.pinned_versions)),
            revision=row.revision,
        )


def _parse_url(url_or_path: str | os.PathLike[str]) -> URL:
    text = os.fspath(url_or_path)
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).absolute()))
    try:
        url = make_url(text)
    except ArgumentError as error:
        # The text is not repeated: it may hold a password.
        raise StoreUnavailable("expected the store's URL as sqlite:////path/to/file, got one that is none") from error
    in_memory = url.database in (None, "", ":memory:")
    if url.get_backend_name() != "sqlite" or in_memory or url.query:
        raise StoreUnavailable(
            f"expected the store's URL as sqlite:////path/to/file, got {url.render_as_string(hide_password=True)}"
        )
    return url.set(database=str(Path(url.database or "").absolute()))


def _create_file(path: Path) -> None:
    """Makes the directory (0700) and an empty file (0600) where they are missing, and proves both can be written."""
    where = f"directory {path.parent}"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists():
            where = f"file {path}"
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        # SQLite makes the content durable; the file's name in its directory is ours to.
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        remedy = OPEN_FAILURE_REMEDIES.get(error.errno or 0, "pass another --state-dir")
        raise StoreUnavailable(f"cannot write the state {where}: {error.strerror}; {remedy}") from error


def _sqlite_engine(url: URL, lock_timeout_seconds: float) -> Engine:
    """An engine of one connection; begins with BEGIN IMMEDIATE where `_writing`, as no read may precede the lock."""
    engine = create_engine(
        url,
        pool_size=1,
        max_overflow=0,
        hide_parameters=True,  # errors are logged; who did what belongs in the audit alone
        # Transactions are begun by the listener below, and not when sqlite3 sees a statement that writes.
        connect_args={"isolation_level": None, "check_same_thread": False, "timeout": lock_timeout_seconds},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        try:
            connection.execute(f"PRAGMA busy_timeout = {round(lock_timeout_seconds * 1e3)}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _writing(engine: Engine) -> Engine:
    return engine.execution_options(writes=True)


def _check_for_damage(engine: Engine, path: Path) -> None:
    with engine.connect() as connection:
        finding = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if finding != "ok":
        raise StoreCorrupt(DAMAGED.format(where=f"the state database {path}"), detail=str(finding))


@contextmanager
def _errors_mapped(where: str, detail: str = "") -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        code = getattr(error.orig, "sqlite_errorcode", None)
        if code is None and isinstance(error.orig, sqlite3.OperationalError):
            # Raised by Python's module and not by SQLite: a text column that is not UTF-8.
            code = sqlite3.SQLITE_CORRUPT
        # The low byte is the primary code, which the extended ones refine.
        kind, message = SQLITE_FAILURES.get((code or 0) & 0xFF, (StoreError, "{where} failed unexpectedly"))
        raise kind(message.format(where=where), detail=f"{detail} {error}".strip()) from error
    except SQLAlchemyError as error:
        raise StoreError(f"{where} failed unexpectedly", detail=f"{detail} {error}".strip()) from error


@contextmanager
def _damage_mapped(noun: str, key: object) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        message = f"{noun} {key!r} in {DAMAGED.format(where='the state database')}"
        raise StoreCorrupt(message, detail=repr(error)) from error
