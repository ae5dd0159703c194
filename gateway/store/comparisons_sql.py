"""Comparisons of shadows in a SQL database."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

from sqlalchemy import BigInteger, LargeBinary, Row, Text, and_, column, delete, select, table

from gateway.store.comparisons import TOTALS_LENGTH, ComparisonTick
from gateway.store.contract import require_int64, require_text
from gateway.store.database import Database, damage_mapped
from gateway.store.panes_sql import replace_rows
from runtime.profile.pane import Pane, PaneKey
from runtime.shadow.pair import PairKey

PAIR = ("model", "primary_version", "primary_digest", "shadow_version", "shadow_digest")
COMPARISON_KEY = (*PAIR, "length_seconds", "end_seconds")

comparison_table = table(
    "comparison_pane",
    column("model", Text),
    column("primary_version", BigInteger),
    column("primary_digest", Text),
    column("shadow_version", BigInteger),
    column("shadow_digest", Text),
    column("length_seconds", BigInteger),
    column("end_seconds", BigInteger),
    column("rows", BigInteger),
    column("data", LargeBinary),
)


class SqlComparisonStore:
    def __init__(self, database: Database) -> None:
        """`database` is shared, and closed by another."""
        self._database = database

    def __repr__(self) -> str:
        return f"SqlComparisonStore({self._database.state})"

    def put_comparisons(self, tick: ComparisonTick) -> None:
        put, gone = [], []
        for pair, changes in tick.panes.items():
            put += [_values(pair, pane) for pane in changes.put]
            gone += [_key_values(pair, key) for key in (*changes.delete, *(pane.key for pane in changes.put))]
        totals = [_values(pair, pane) for pair, pane in tick.totals.items()]
        of = comparison_table.c
        with self._database.writing() as connection:
            replace_rows(connection, comparison_table, COMPARISON_KEY, gone + totals, put + totals)
            old = and_(of.length_seconds > TOTALS_LENGTH, of.end_seconds < tick.now_seconds - tick.retain_seconds)
            connection.execute(delete(comparison_table).where(old))
            earlier = and_(of.length_seconds == TOTALS_LENGTH, of.end_seconds != tick.started_seconds)
            connection.execute(delete(comparison_table).where(earlier))

    def load_comparisons(self) -> dict[PairKey, list[Pane]]:
        of = comparison_table.c
        query = select(comparison_table).where(of.length_seconds > TOTALS_LENGTH)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(*(of[name] for name in COMPARISON_KEY))).all()
        panes: dict[PairKey, list[Pane]] = {}
        for row in rows:
            pair, pane = _read(row)
            panes.setdefault(pair, []).append(pane)
        return panes

    def load_totals(self, started_seconds: int) -> dict[PairKey, Pane]:
        of = comparison_table.c
        query = select(comparison_table)
        query = query.where(and_(of.length_seconds == TOTALS_LENGTH, of.end_seconds == started_seconds))
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return dict(map(_read, rows))


def _read(row: Row[Any]) -> tuple[PairKey, Pane]:
    with damage_mapped("comparison", tuple(row)[: len(COMPARISON_KEY)]):
        pair = PairKey(*row[: len(PAIR)])
        for name, value in (("model", pair.model), ("primary", pair.primary_digest), ("shadow", pair.shadow_digest)):
            require_text(name, value)
        for number in (pair.primary, pair.shadow, row.end_seconds):
            require_int64("comparison", number)
        if row.length_seconds < TOTALS_LENGTH or row.rows < 0:
            raise ValueError(f"length {row.length_seconds}, {row.rows} rows")
        key = PaneKey(row.length_seconds, row.end_seconds - row.length_seconds)
        return pair, Pane(key, row.rows, memoryview(row.data).tobytes())


def _key_values(pair: PairKey, key: PaneKey) -> dict[str, Any]:
    end_seconds = key.start_seconds + key.length_seconds
    named = dict(zip(PAIR, astuple(pair), strict=True))
    return {**named, "length_seconds": key.length_seconds, "end_seconds": end_seconds}


def _values(pair: PairKey, pane: Pane) -> dict[str, Any]:
    return {**_key_values(pair, pane.key), "rows": pane.rows, "data": pane.data}
