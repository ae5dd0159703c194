"""The audit as a table, which every store of the database appends to in the transaction of its change."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Connection, Row, Text, column, insert, table

from gateway.store.contract import AuditEntry, AuditRecord
from gateway.store.database import damage_mapped

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

ENTRY_COLUMNS = tuple(field.name for field in fields(AuditEntry))

audit_table = table(
    "audit",
    column("id", BigInteger),
    column("time_us", BigInteger),
    *(column(name, BigInteger if name == "version" else Text) for name in ENTRY_COLUMNS),
)


def append(connection: Connection, entry: AuditEntry) -> AuditRecord:
    now = datetime.now(UTC)
    values = {name: getattr(entry, name) for name in ENTRY_COLUMNS}
    statement = insert(audit_table).values(time_us=(now - EPOCH) // MICROSECOND, **values)
    record_id = connection.execute(statement.returning(audit_table.c.id)).scalar_one()
    return AuditRecord(**values, id=record_id, time=now)


def record_of(row: Row[Any]) -> AuditRecord:
    with damage_mapped("audit record", row.id):
        values = row._asdict()
        return AuditRecord(time=EPOCH + values.pop("time_us") * MICROSECOND, **values)
