"""Desired state and audit in a SQL database.

Statements here, in `panes_sql` and in `rollouts_sql` are SQLAlchemy Core without any dialect's own SQL; what only
SQLite needs is in `database`, and in the triggers of `migrations`.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Delete,
    Insert,
    Row,
    Text,
    Update,
    column,
    delete,
    insert,
    select,
    table,
    update,
)
from sqlalchemy.exc import IntegrityError

from gateway.store.audit import append, audit_table, record_of
from gateway.store.comparisons import ComparisonStore
from gateway.store.comparisons_sql import SqlComparisonStore
from gateway.store.contract import (
    MAX_INT64,
    AuditEntry,
    AuditRecord,
    DesiredModel,
    DesiredVersion,
    StoreConflict,
    require_name,
)
from gateway.store.database import DEFAULT_LOCK_TIMEOUT_SECONDS, Database, damage_mapped
from gateway.store.panes import PaneStore
from gateway.store.panes_sql import SqlPaneStore
from gateway.store.rollouts import RolloutStore
from gateway.store.rollouts_sql import SqlRolloutStore

desired_model = table(
    "desired_model",
    column("name", Text),
    column("revision", BigInteger),
    column("served", Boolean),
    column("default_target", Text),
    column("versions", Text),
    column("labels", Text),
    column("pinned_versions", Text),
    column("route", Text),
)


def open_store(
    url_or_path: str | os.PathLike[str], *, lock_timeout_seconds: float = DEFAULT_LOCK_TIMEOUT_SECONDS
) -> SqlStore:
    """Opens the store at a file path or a `sqlite:///` URL, creates it (directory 0700, file 0600) and migrates it.

    Raises StoreUnavailable, StoreCorrupt or StoreVersionError, each naming the file. Reads the whole file once, for
    damage is best found before anything is written over it.
    """
    return SqlStore(Database.open(url_or_path, lock_timeout_seconds))


class SqlStore:
    def __init__(self, database: Database) -> None:
        """`database` is owned from here on, also on behalf of `panes` and `rollouts`."""
        self._database = database
        self.panes: PaneStore = SqlPaneStore(database)
        """What was measured, in the same file; closed with this store."""
        self.rollouts: RolloutStore = SqlRolloutStore(database)
        """Rollouts and what was decided, likewise."""
        self.comparisons: ComparisonStore = SqlComparisonStore(database)
        """How shadows' answers differ, likewise."""

    def __repr__(self) -> str:
        return f"SqlStore({self._database.state})"

    def load_models(self) -> dict[str, DesiredModel]:
        with self._database.reading() as connection:
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
        with self._database.writing() as connection:
            return append(connection, entry)

    def list_audit(self, model: str = "", limit: int = 100, before_id: int = 0) -> list[AuditRecord]:
        if not 1 <= limit <= MAX_INT64 or not 0 <= before_id <= MAX_INT64:
            raise ValueError(f"expected limit >= 1 and before_id >= 0, both int64, got {limit} and {before_id}")
        query = select(audit_table).order_by(audit_table.c.id.desc()).limit(limit)
        if model:
            query = query.where(audit_table.c.model == model)
        if before_id:
            query = query.where(audit_table.c.id < before_id)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [record_of(row) for row in rows]

    def close(self) -> None:
        self._database.close()

    def _change(self, statement: Insert | Update | Delete, name: str, expected: int, audit: AuditEntry) -> AuditRecord:
        current = select(desired_model.c.revision).where(desired_model.c.name == name).with_for_update()
        with self._database.writing() as connection:
            found = connection.scalar(current) or 0
            if found != expected:
                raise StoreConflict(name, expected_revision=expected, found_revision=found)
            try:
                connection.execute(statement)
            except IntegrityError as error:
                # Where rows are locked and not the whole database, two may both have found no row to lock.
                raise StoreConflict(name, expected_revision=expected, found_revision=1) from error
            return append(connection, audit)


def _row_of(desired: DesiredModel) -> dict[str, Any]:
    return {
        "name": desired.name,
        "served": desired.served,
        "default_target": desired.default_target,
        "versions": json.dumps([asdict(version) for version in desired.versions]),
        "labels": json.dumps(dict(desired.labels)),
        "pinned_versions": json.dumps(desired.pinned_versions),
        "route": desired.route,
    }


def _model_of(row: Row[Any]) -> DesiredModel:
    with damage_mapped("model", row.name):
        return DesiredModel(
            name=row.name,
            served=row.served,
            versions=tuple(DesiredVersion(**version) for version in json.loads(row.versions)),
            labels=dict(json.loads(row.labels)),
            default_target=row.default_target,
            pinned_versions=tuple(json.loads(row.pinned_versions)),
            revision=row.revision,
            route=row.route,
        )
