"""The schema, step by step.

A migration is never edited once released: it writes its tables out instead of sharing them with `sql`, so that what it
did to an old database stays what it does to a new one. To change the schema, append a function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    insert,
    select,
)

from gateway.store.contract import StoreVersionError

SCHEMA_VERSION = Table("schema_version", MetaData(), Column("version", Integer, primary_key=True, autoincrement=False))
"""One row for every migration applied."""

REFUSE_IN_SQLITE = "BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END"
ID_IS_TAKEN = "EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)"
APPEND_ONLY_TRIGGERS = {
    "sqlite": (
        f"CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit {REFUSE_IN_SQLITE}",
        f"CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit {REFUSE_IN_SQLITE}",
        # INSERT OR REPLACE deletes the old row without a DELETE trigger.
        f"CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit WHEN {ID_IS_TAKEN} {REFUSE_IN_SQLITE}",
    ),
}
"""By dialect; a database that has none here cannot be used as a store."""


def create_models_and_audit(connection: Connection) -> None:
    metadata = MetaData()
    Table(
        "desired_model",
        metadata,
        Column("name", Text, primary_key=True),
        Column("revision", BigInteger, nullable=False),
        Column("served", Boolean, nullable=False),
        Column("default_target", Text, nullable=False),
        # JSON: [{"version", "digest", "generation"}, ...], {label: version}, [version, ...]
        Column("versions", Text, nullable=False),
        Column("labels", Text, nullable=False),
        Column("pinned_versions", Text, nullable=False),
    )
    audit = Table(
        "audit",
        metadata,
        # SQLite numbers rows only in a column declared INTEGER, which is 64 bits wide there.
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("time_us", BigInteger, nullable=False),
        Column("actor", Text, nullable=False),
        Column("peer", Text, nullable=False),
        Column("action", Text, nullable=False),
        Column("model", Text, nullable=False),
        Column("version", BigInteger, nullable=False),
        Column("digest", Text, nullable=False),
        Column("outcome", Text, nullable=False),
        Column("detail", Text, nullable=False),
        Column("reason", Text, nullable=False),
        sqlite_autoincrement=True,
    )
    Index("audit_by_model", audit.c.model, audit.c.id)
    metadata.create_all(connection)
    for statement in APPEND_ONLY_TRIGGERS[connection.dialect.name]:
        connection.exec_driver_sql(statement)


def create_panes_and_references(connection: Connection) -> None:
    metadata = MetaData()

    def of_version() -> tuple[Column[Any], ...]:
        return (
            Column("model", Text, primary_key=True),
            Column("version", BigInteger, primary_key=True, autoincrement=False),
            Column("version_digest", Text, primary_key=True),
        )

    pane = Table(
        "pane",
        metadata,
        *of_version(),
        Column("length_seconds", BigInteger, primary_key=True, autoincrement=False),
        Column("end_seconds", BigInteger, primary_key=True, autoincrement=False),
        Column("rows", BigInteger, nullable=False),
        Column("data", LargeBinary, nullable=False),
    )
    Index("pane_by_end", pane.c.end_seconds)
    Table(
        "collected",
        metadata,
        Column("slot", Text, primary_key=True),
        Column("serial", BigInteger, nullable=False),
    )
    Table(
        "drift_state",
        metadata,
        *of_version(),
        Column("state", Text, nullable=False),
        Column("saved_seconds", BigInteger, nullable=False),
    )
    Table(
        "reference",
        metadata,
        *of_version(),
        Column("kind", Text, nullable=False),
        Column("digest", Text, nullable=False),
        Column("payload", LargeBinary, nullable=False),
        # JSON, as are labels above.
        Column("about", Text, nullable=False),
        Column("set_at_us", BigInteger, nullable=False),
    )
    metadata.create_all(connection)


def create_routes_rollouts_and_comparisons(connection: Connection) -> None:
    # As SQLAlchemy has no statement for it; this one is every database's.
    connection.exec_driver_sql("ALTER TABLE desired_model ADD COLUMN route TEXT NOT NULL DEFAULT ''")
    metadata = MetaData()
    rollout = Table(
        "rollout",
        metadata,
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("model", Text, nullable=False),
        Column("baseline", BigInteger, nullable=False),
        Column("candidate", BigInteger, nullable=False),
        # JSON: the plan, the state between two looks, and what the model's desired state was before.
        Column("plan", Text, nullable=False),
        Column("state", Text, nullable=False),
        Column("before", Text, nullable=False),
        Column("created_us", BigInteger, nullable=False),
        # 0: it has not ended.
        Column("ended_us", BigInteger, nullable=False),
        # Whether what the end of the rollout asks for has been done.
        Column("settled", Boolean, nullable=False),
        sqlite_autoincrement=True,
    )
    Index("rollout_by_model", rollout.c.model, rollout.c.id)
    Table(
        "rollout_decision",
        metadata,
        Column("rollout", BigInteger, primary_key=True, autoincrement=False),
        Column("number", BigInteger, primary_key=True, autoincrement=False),
        Column("time_us", BigInteger, nullable=False),
        # Whether it moved the rollout: those are kept for good, of the others the last.
        Column("moved", Boolean, nullable=False),
        Column("data", LargeBinary, nullable=False),
        Column("audit", BigInteger, nullable=False),
    )
    comparison = Table(
        "comparison_pane",
        metadata,
        Column("model", Text, primary_key=True),
        Column("primary_version", BigInteger, primary_key=True, autoincrement=False),
        Column("primary_digest", Text, primary_key=True),
        Column("shadow_version", BigInteger, primary_key=True, autoincrement=False),
        Column("shadow_digest", Text, primary_key=True),
        Column("length_seconds", BigInteger, primary_key=True, autoincrement=False),
        Column("end_seconds", BigInteger, primary_key=True, autoincrement=False),
        Column("rows", BigInteger, nullable=False),
        Column("data", LargeBinary, nullable=False),
    )
    Index("comparison_by_end", comparison.c.end_seconds)
    metadata.create_all(connection)


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    create_models_and_audit,
    create_panes_and_references,
    create_routes_rollouts_and_comparisons,
)
"""The n-th, counted from 1, brings a database from schema n-1 to schema n."""


def migrate(engine: Engine) -> None:
    """Applies what is missing, one transaction each; `engine` must begin transactions with the write lock.

    Raises StoreVersionError, having written nothing, where the schema is newer than MIGRATIONS. Processes that open
    the same database at once apply each migration once: the version is read under the lock that the change is made.
    """
    for number, migration in enumerate(MIGRATIONS, start=1):
        with engine.begin() as connection:
            SCHEMA_VERSION.create(connection, checkfirst=True)
            applied = connection.scalar(select(func.max(SCHEMA_VERSION.c.version))) or 0
            if applied > len(MIGRATIONS):
                where = engine.url.render_as_string(hide_password=True)
                raise StoreVersionError(
                    f"the state in {where} was written by a newer driftgate: expected schema {len(MIGRATIONS)} or "
                    f"older, found {applied}; run that driftgate, or pass another --state-dir"
                )
            if applied >= number:
                continue
            migration(connection)
            connection.execute(insert(SCHEMA_VERSION).values(version=number))
