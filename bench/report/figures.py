"""Medians, spread and ratios: the one place where they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.report.results import Column, Row, Table, Values


@dataclass(frozen=True, slots=True)
class Figure:
    """Of the rounds that have it."""

    median: float
    least: float
    greatest: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Figure | None:
        """None of no rounds."""
        known = [value for value in values if value is not None]
        return cls(median(known), min(known), max(known), len(known)) if known else None


def figure(table: Table, row: Row, column: Column) -> Figure | None:
    """None where no round has it. Raises KeyError where a column is derived of one that is not there."""
    return Figure.of(values_of(table, row, column))


def values_of(table: Table, row: Row, column: Column) -> Values:
    """Of a derived column: of each round's own two values, each measured within seconds of the other."""
    if not column.of:
        return row.values.get(column.key, ())
    other_row = next((each for each in table.rows if each.key == (column.to or row.against)), None)
    if other_row is None or other_row is row:
        return ()
    measured = table.column(column.of)
    own, other = values_of(table, row, measured), values_of(table, other_row, measured)
    return tuple(_derived(column, mine, its) for mine, its in zip(own, other, strict=False))


def _derived(column: Column, own: float | None, other: float | None) -> float | None:
    if own is None or other is None:
        return None
    if column.how == "difference":
        return own - other
    above, below = (own, other) if column.how == "ratio" else (other, own)
    return above / below if below else None


def written(figure: Figure | None, column: Column, *, spread: bool) -> str:
    """As a cell: the median, with the spread in brackets where it is wanted and there is one; "-" of nothing."""
    if figure is None:
        return "-"
    middle = format(figure.median, column.format)
    if not spread or figure.rounds < 2:
        return middle
    return f"{middle} ({format(figure.least, column.format)} to {format(figure.greatest, column.format)})"
