"""Panes, marks, drift's state and references in a SQL database."""

from __future__ import annotations

import json
from itertools import chain
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    LargeBinary,
    TableClause,
    Text,
    and_,
    bindparam,
    column,
    delete,
    func,
    insert,
    select,
    table,
)

from gateway.store.audit import EPOCH, MICROSECOND, append
from gateway.store.contract import AuditEntry, AuditRecord, require_int64, require_text
from gateway.store.database import Database, damage_mapped
from gateway.store.panes import MAX_REFERENCE_BYTES, MAX_REFERENCES, Reference, StoredReference, Tick, VersionKey
from runtime.errors import InvalidRequest
from runtime.profile.pane import Pane, PaneKey

VERSION = ("model", "version", "version_digest")
PANE_KEY = (*VERSION, "length_seconds", "end_seconds")


def _version_columns() -> tuple[Any, ...]:
    return column("model", Text), column("version", BigInteger), column("version_digest", Text)


pane_table = table(
    "pane",
    *_version_columns(),
    column("length_seconds", BigInteger),
    column("end_seconds", BigInteger),
    column("rows", BigInteger),
    column("data", LargeBinary),
)
collected_table = table("collected", column("slot", Text), column("serial", BigInteger))
drift_table = table("drift_state", *_version_columns(), column("state", Text), column("saved_seconds", BigInteger))
reference_table = table(
    "reference",
    *_version_columns(),
    column("kind", Text),
    column("digest", Text),
    column("payload", LargeBinary),
    column("about", Text),
    column("set_at_us", BigInteger),
)


class SqlPaneStore:
    def __init__(self, database: Database) -> None:
        """`database` is shared, and closed by another."""
        self._database = database

    def __repr__(self) -> str:
        return f"SqlPaneStore({self._database.state})"

    def put_tick(self, tick: Tick) -> None:
        put, gone = [], []
        for version, changes in tick.panes.items():
            put += [_pane_values(version, pane) for pane in changes.put]
            gone += [_key_values(version, key) for key in (*changes.delete, *(pane.key for pane in changes.put))]
        drift = [
            {**_version_values(version), "state": state, "saved_seconds": tick.now_seconds}
            for version, state in tick.drift.items()
        ]
        collected = [{"slot": slot, "serial": serial} for slot, serial in tick.collected.items()]
        slots = [{"slot": slot} for slot in chain(tick.forgotten, tick.collected)]
        oldest = tick.now_seconds - tick.retain_seconds
        with self._database.writing() as connection:
            replace_rows(connection, pane_table, PANE_KEY, gone, put)
            replace_rows(connection, drift_table, VERSION, drift, drift)
            replace_rows(connection, collected_table, ("slot",), slots, collected)
            connection.execute(delete(pane_table).where(pane_table.c.end_seconds < oldest))
            connection.execute(delete(drift_table).where(drift_table.c.saved_seconds < oldest))

    def load_panes(self, version: VersionKey) -> list[Pane]:
        query = select(pane_table).where(_is(pane_table, version))
        query = query.order_by(pane_table.c.length_seconds, pane_table.c.end_seconds)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        panes = []
        for row in rows:
            with damage_mapped("pane", (version.model, version.version, row.end_seconds)):
                if row.length_seconds < 1 or row.rows < 0:
                    raise ValueError(f"length {row.length_seconds}, {row.rows} rows")
                key = PaneKey(row.length_seconds, row.end_seconds - row.length_seconds)
                panes.append(Pane(key, row.rows, memoryview(row.data).tobytes()))
        return panes

    def load_collected(self) -> dict[str, int]:
        with self._database.reading() as connection:
            rows = connection.execute(select(collected_table)).all()
        for row in rows:
            with damage_mapped("the mark of slot", row.slot):
                require_text("slot", row.slot)
                require_int64("serial", row.serial)
        return {row.slot: row.serial for row in rows}

    def load_drift(self, version: VersionKey) -> str:
        with self._database.reading() as connection:
            return connection.scalar(select(drift_table.c.state).where(_is(drift_table, version))) or ""

    def get_reference(self, version: VersionKey) -> StoredReference | None:
        with self._database.reading() as connection:
            row = connection.execute(select(reference_table).where(_is(reference_table, version))).one_or_none()
        if row is None:
            return None
        with damage_mapped("the reference of", (version.model, version.version)):
            return StoredReference(
                version=version,
                kind=row.kind,
                digest=row.digest,
                payload=memoryview(row.payload).tobytes(),
                about=dict(json.loads(row.about)),
                set_at=EPOCH + row.set_at_us * MICROSECOND,
            )

    def list_references(self) -> list[VersionKey]:
        columns = [reference_table.c[name] for name in VERSION]
        with self._database.reading() as connection:
            rows = connection.execute(select(*columns).order_by(*columns)).all()
        with damage_mapped("the list of", "references"):
            return [VersionKey(*row) for row in rows]

    def put_reference(self, reference: Reference, *, audit: AuditEntry) -> AuditRecord:
        size = len(reference.payload)
        if size > MAX_REFERENCE_BYTES:
            raise InvalidRequest(
                f"expected a reference of {MAX_REFERENCE_BYTES} bytes or less, got {size}; "
                "build it of fewer features, or with smaller sketches"
            )
        values = {
            **_version_values(reference.version),
            "kind": reference.kind,
            "digest": reference.digest,
            "payload": reference.payload,
            "about": json.dumps(dict(reference.about)),
        }
        with self._database.writing() as connection:
            record = append(connection, audit)
            values["set_at_us"] = (record.time - EPOCH) // MICROSECOND
            replace_rows(connection, reference_table, VERSION, [values], [values])
            if (connection.scalar(select(func.count()).select_from(reference_table)) or 0) > MAX_REFERENCES:
                raise InvalidRequest(
                    f"expected {MAX_REFERENCES} versions with a reference or fewer; "
                    "remove those of versions that are not served any more, and retry"
                )
            return record

    def delete_reference(self, version: VersionKey, *, audit: AuditEntry) -> AuditRecord:
        with self._database.writing() as connection:
            connection.execute(delete(reference_table).where(_is(reference_table, version)))
            return append(connection, audit)


def _is(where: TableClause, version: VersionKey) -> ColumnElement[bool]:
    return and_(*(where.c[name] == value for name, value in _version_values(version).items()))


def replace_rows(
    connection: Connection,
    where: TableClause,
    key: tuple[str, ...],
    gone: list[dict[str, Any]],
    put: list[dict[str, Any]],
) -> None:
    """Rows with the keys of `gone` are deleted, then `put` is inserted: what every database can do."""
    if gone:
        keys = [{f"key_{name}": row[name] for name in key} for row in gone]
        statement = delete(where).where(and_(*(where.c[name] == bindparam(f"key_{name}") for name in key)))
        connection.execute(statement, keys)
    if put:
        connection.execute(insert(where), put)


def _version_values(version: VersionKey) -> dict[str, Any]:
    return dict(zip(VERSION, (version.model, version.version, version.digest), strict=True))


def _key_values(version: VersionKey, key: PaneKey) -> dict[str, Any]:
    end_seconds = key.start_seconds + key.length_seconds
    return {**_version_values(version), "length_seconds": key.length_seconds, "end_seconds": end_seconds}


def _pane_values(version: VersionKey, pane: Pane) -> dict[str, Any]:
    return {**_key_values(version, pane.key), "rows": pane.rows, "data": pane.data}
