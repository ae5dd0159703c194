"""A SQL database: SQLite in a file of the state directory. Opened, locked, and its errors mapped, once for all stores.

What only SQLite needs is in `_sqlite_engine` and in the triggers of `migrations`. SQLAlchemy's exceptions stop here,
mapped by the database's error codes.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from gateway.store.contract import StoreCorrupt, StoreError, StoreUnavailable
from gateway.store.migrations import migrate

DEFAULT_LOCK_TIMEOUT_SECONDS = 5.0
"""Far above any transaction of ours (milliseconds), below the patience of an operator's command."""

KEPT_LOG_BYTES = 16 << 20
"""What the write-ahead log is cut to when its content is in the database: one large reference would keep its size."""

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


class Database:
    def __init__(self, engine: Engine) -> None:
        """`engine`: migrated; owned from here on."""
        self.engine = engine
        self._closed = False
        # One call at a time: SQLite has one writer anyway, and waiting here is fair and free, while SQLite's own wait
        # sleeps and polls. It also lets close() wait for the call in progress.
        self._lock = threading.Lock()

    @classmethod
    def open(cls, url_or_path: str | os.PathLike[str], lock_timeout_seconds: float) -> Self:
        """As `open_store` does."""
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
        return cls(engine)

    @property
    def state(self) -> str:
        return f"{self.engine.url!r}, {'closed' if self._closed else 'open'}"

    def __repr__(self) -> str:
        return f"Database({self.state})"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees the database as it is at one moment."""
        with self._transaction(self.engine) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that has the database's lock from the beginning, committed if the block ends without error."""
        with self._transaction(_writing(self.engine)) as connection:
            yield connection

    def close(self) -> None:
        """Waits for the call in progress. May be repeated."""
        with self._lock:
            self._closed = True
            self.engine.dispose()

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        with self._lock:
            if self._closed:
                raise StoreUnavailable("the store is closed; driftgate is shutting down")
            with _errors_mapped("the state database", detail=repr(self)), engine.begin() as connection:
                yield connection


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
            connection.execute(f"PRAGMA journal_size_limit = {KEPT_LOG_BYTES}")
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
def damage_mapped(noun: str, key: object) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        message = f"{noun} {key!r} in {DAMAGED.format(where='the state database')}"
        raise StoreCorrupt(message, detail=repr(error)) from error
