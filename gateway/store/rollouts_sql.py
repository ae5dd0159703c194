"""Rollouts and what was decided, in a SQL database."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    LargeBinary,
    Row,
    Text,
    and_,
    column,
    delete,
    func,
    insert,
    or_,
    select,
    table,
    update,
)

from gateway.store.audit import EPOCH, MICROSECOND, append
from gateway.store.contract import MAX_INT64, AuditEntry, AuditRecord, RolloutConflict
from gateway.store.database import Database, damage_mapped
from gateway.store.rollouts import (
    MAX_TEXT_BYTES,
    NewDecision,
    NewRollout,
    RolloutChange,
    StoredDecision,
    StoredRollout,
)
from runtime.errors import NotFound

QUICK = 1
"""zlib's level: a state's counts are written once a second, and mostly digits."""

rollout_table = table(
    "rollout",
    column("id", BigInteger),
    column("model", Text),
    column("baseline", BigInteger),
    column("candidate", BigInteger),
    column("plan", Text),
    column("state", Text),
    column("before", Text),
    column("created_us", BigInteger),
    column("ended_us", BigInteger),
    column("settled", Boolean),
)
decision_table = table(
    "rollout_decision",
    column("rollout", BigInteger),
    column("number", BigInteger),
    column("time_us", BigInteger),
    column("moved", Boolean),
    column("data", LargeBinary),
    column("audit", BigInteger),
)

OPEN = or_(rollout_table.c.ended_us == 0, rollout_table.c.settled.is_(False))


class SqlRolloutStore:
    def __init__(self, database: Database) -> None:
        """`database` is shared, and closed by another."""
        self._database = database

    def __repr__(self) -> str:
        return f"SqlRolloutStore({self._database.state})"

    def create(self, rollout: NewRollout, *, audit: AuditEntry) -> tuple[StoredRollout, AuditRecord]:
        values: dict[str, Any] = {
            name: getattr(rollout, name) for name in ("model", "baseline", "candidate", "plan", "state", "before")
        }
        other = select(rollout_table.c.id).where(rollout_table.c.model == rollout.model, OPEN).limit(1)
        with self._database.writing() as connection:
            found = connection.scalar(other)
            if found is not None:
                raise RolloutConflict(rollout.model, found)
            record = append(connection, audit)
            created_us = (record.time - EPOCH) // MICROSECOND
            statement = insert(rollout_table).values(**values, created_us=created_us, ended_us=0, settled=False)
            rollout_id = connection.execute(statement.returning(rollout_table.c.id)).scalar_one()
        return StoredRollout(**values, id=rollout_id, created_at=record.time, ended_at=None, settled=False), record

    def save(self, rollout_id: int, change: RolloutChange) -> list[StoredDecision]:
        values: dict[str, Any] = {"state": change.state}
        if change.before is not None:
            values["before"] = change.before
        if change.settled:
            values["settled"] = True
        this = rollout_table.c.id == rollout_id
        with self._database.writing() as connection:
            if not connection.execute(update(rollout_table).where(this).values(values)).rowcount:
                raise NotFound(f"no rollout {rollout_id}")
            if change.ended:
                ended_us = (datetime.now(UTC) - EPOCH) // MICROSECOND
                still = and_(this, rollout_table.c.ended_us == 0)
                connection.execute(update(rollout_table).where(still).values(ended_us=ended_us))
            return _add(connection, rollout_id, change.decisions)

    def under_way(self) -> list[StoredRollout]:
        with self._database.reading() as connection:
            rows = connection.execute(select(rollout_table).where(OPEN).order_by(rollout_table.c.id)).all()
        return [_rollout_of(row) for row in rows]

    def get(self, rollout_id: int) -> StoredRollout | None:
        if not 0 <= rollout_id <= MAX_INT64:
            return None
        with self._database.reading() as connection:
            row = connection.execute(select(rollout_table).where(rollout_table.c.id == rollout_id)).one_or_none()
        return None if row is None else _rollout_of(row)

    def newest(self) -> dict[str, int]:
        query = select(rollout_table.c.model, func.max(rollout_table.c.id).label("newest"))
        with self._database.reading() as connection:
            rows = connection.execute(query.group_by(rollout_table.c.model)).all()
        return {row.model: row.newest for row in rows}

    def listed(self, model: str = "", limit: int = 100, before_id: int = 0) -> list[StoredRollout]:
        _require_page(limit, before_id, "before_id")
        query = select(rollout_table).order_by(rollout_table.c.id.desc()).limit(limit)
        if model:
            query = query.where(rollout_table.c.model == model)
        if before_id:
            query = query.where(rollout_table.c.id < before_id)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [_rollout_of(row) for row in rows]

    def decisions(self, rollout_id: int, limit: int = 1_000, after: int = 0) -> list[StoredDecision]:
        _require_page(limit, after, "after")
        query = (
            select(decision_table)
            .where(decision_table.c.rollout == rollout_id, decision_table.c.number > after)
            .order_by(decision_table.c.number)
            .limit(limit)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [_decision_of(row) for row in rows]

    def last_decisions(self, rollout_ids: Collection[int]) -> dict[int, StoredDecision]:
        last = (
            select(decision_table.c.rollout.label("of"), func.max(decision_table.c.number).label("last"))
            .where(decision_table.c.rollout.in_(list(rollout_ids)))
            .group_by(decision_table.c.rollout)
            .subquery()
        )
        query = select(decision_table).join(
            last, and_(decision_table.c.rollout == last.c.of, decision_table.c.number == last.c.last)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return {row.rollout: _decision_of(row) for row in rows}


def _add(connection: Connection, rollout_id: int, decisions: Sequence[NewDecision]) -> list[StoredDecision]:
    if not decisions:
        return []
    this = decision_table.c.rollout == rollout_id
    number = connection.scalar(select(func.max(decision_table.c.number)).where(this)) or 0
    connection.execute(delete(decision_table).where(this, decision_table.c.moved.is_(False)))
    stored = []
    for decision in decisions:
        number += 1
        audit_id = append(connection, decision.audit).id if decision.audit is not None else 0
        stored.append(StoredDecision(number, decision.at_seconds, decision.moved, decision.data, audit_id))
    kept = [one for one in stored if one.moved or one is stored[-1]]
    rows = [
        {
            "rollout": rollout_id,
            "number": one.number,
            "time_us": round(one.at_seconds * 1e6),
            "moved": one.moved,
            "data": zlib.compress(one.data.encode(), QUICK),
            "audit": one.audit_id,
        }
        for one in kept
    ]
    connection.execute(insert(decision_table), rows)
    return stored


def _require_page(limit: int, place: int, name: str) -> None:
    if not 1 <= limit <= MAX_INT64 or not 0 <= place <= MAX_INT64:
        raise ValueError(f"expected limit >= 1 and {name} >= 0, both int64, got {limit} and {place}")


def _rollout_of(row: Row[Any]) -> StoredRollout:
    with damage_mapped("rollout", row.id):
        return StoredRollout(
            model=row.model,
            baseline=row.baseline,
            candidate=row.candidate,
            plan=row.plan,
            state=row.state,
            before=row.before,
            id=row.id,
            created_at=EPOCH + row.created_us * MICROSECOND,
            ended_at=EPOCH + row.ended_us * MICROSECOND if row.ended_us else None,
            settled=row.settled,
        )


def _decision_of(row: Row[Any]) -> StoredDecision:
    with damage_mapped("a decision of rollout", row.rollout):
        inflate = zlib.decompressobj()
        try:
            data = inflate.decompress(memoryview(row.data).tobytes(), MAX_TEXT_BYTES + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        if not inflate.eof:
            raise ValueError("a decision's data ends in the middle, or is too large")
        return StoredDecision(row.number, row.time_us / 1e6, bool(row.moved), data.decode(), row.audit)
