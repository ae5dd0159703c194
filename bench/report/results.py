"""The one form of all results: tables of what was measured in each round, with what they are of.

Medians, spread and ratios are not in it: bench/report/figures.py makes them, of the rounds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SCHEMA = 1

Values = tuple[float | None, ...]
"""Of one row and one column, by round; None where a round has none."""


class Unreadable(Exception):
    """A file is not of this form."""


@dataclass(frozen=True, slots=True)
class Column:
    """`format`: Python's, of the number. `spread`: least and greatest are shown beside the median.

    A column with `of` is not measured: in each round it is column `of` of its row, against the same column of the row
    `to`, or of the row that its row is held `against`: `ratio`: its own by the other's, `inverse`: the other's by its
    own, `difference`: its own less the other's.
    """

    key: str
    title: str
    unit: str = ""
    format: str = ",.0f"
    spread: bool = False
    of: str = ""
    to: str = ""
    how: Literal["ratio", "inverse", "difference"] = "ratio"


@dataclass(frozen=True, slots=True)
class Row:
    """`against`: the key of the row that this one is held against. `series` and `x`: of rows that a plot joins, which
    of its series, and where.
    """

    key: str
    title: str
    values: Mapping[str, Values]
    against: str = ""
    series: str = ""
    x: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """`name`: what documents call it by. `heading`: of the column of titles."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    heading: str = ""
    note: str = ""

    def column(self, key: str) -> Column:
        """Raises KeyError."""
        return next((column for column in self.columns if column.key == key), None) or _missing(self, "column", key)

    def row(self, key: str) -> Row:
        """Raises KeyError."""
        return next((row for row in self.rows if row.key == key), None) or _missing(self, "row", key)


def _missing(table: Table, what: str, key: str) -> Any:
    known = [each.key for each in (table.rows if what == "row" else table.columns)]
    raise KeyError(f"table {table.name} has no {what} {key!r}: {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class Code:
    """`clean`: the files were those of the commit."""

    commit: str
    clean: bool


@dataclass(frozen=True, slots=True)
class Machine:
    processor: str
    cores: int
    memory_bytes: int
    kernel: str
    governor: str | None = None


@dataclass(frozen=True, slots=True)
class Method:
    rounds: int
    seconds: float
    warm_up_seconds: float
    generator: str
    server_cores: tuple[int, ...]
    load_cores: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Results:
    """`command`: what measured it, as it is typed. `date`: when it ended, ISO 8601, UTC. `failures`: by row."""

    command: str
    date: str
    code: Code
    machine: Machine
    versions: Mapping[str, str]
    method: Method
    tables: tuple[Table, ...]
    failures: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """Raises Unreadable."""
        try:
            document = json.loads(text)
            if document.pop("schema", None) != SCHEMA:
                raise Unreadable(f"results of schema {SCHEMA} were expected")
            method = document.pop("method")
            return cls(
                code=Code(**document.pop("code")),
                machine=Machine(**document.pop("machine")),
                method=Method(
                    **{**method, **{name: tuple(method[name]) for name in ("server_cores", "load_cores")}},
                ),
                tables=tuple(map(_table, document.pop("tables"))),
                **document,
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Unreadable(f"not results of a benchmark: {error!r}") from error


def _table(document: dict[str, Any]) -> Table:
    columns = tuple(Column(**column) for column in document.pop("columns"))
    rows = tuple(
        Row(**{**row, "values": {key: tuple(values) for key, values in row["values"].items()}})
        for row in document.pop("rows")
    )
    return Table(columns=columns, rows=rows, **document)
