"""Which columns a window has room for, each row on one line. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

GAP = 2  # cells between two columns, as console.table has them
SHORTEST = 3  # cells of a name


@dataclass(frozen=True, slots=True)
class Column:
    """`rank`: where there is no room, the highest is left out first; 0 stays.

    `least`: a name, at the left, is cut to so many cells before others are left out for it, and further when that does
    not help; 0: a number, at the right, is never cut.
    """

    name: str
    rank: int = 0
    least: int = 0


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int | None) -> Table:
    """`width`: of the window, None where it does not matter. What a window has no room for even so is cropped."""
    from gateway.cli.console import table

    cells = [max([len(column.name), *(row[at].cell_len for row in rows)]) for at, column in enumerate(columns)]
    shown = list(range(len(columns)))
    if width is not None:
        shown, cells = _fit(columns, cells, width)
    numbers = frozenset(column.name for column in columns if not column.least)
    drawn = table(*(columns[at].name for at in shown), right=numbers)
    for row in rows:
        for at in shown:
            row[at].truncate(cells[at], overflow="ellipsis")
        drawn.add_row(*(row[at] for at in shown))
    return drawn


def _fit(columns: Sequence[Column], cells: Sequence[int], width: int) -> tuple[list[int], list[int]]:
    """The columns left, by their place, and how wide each is."""
    shown, cells = list(range(len(columns))), list(cells)

    def over() -> int:
        return sum(cells[at] for at in shown) + GAP * (len(shown) - 1) - width

    def names() -> list[int]:
        return [at for at in shown if columns[at].least]

    ranked = sorted((at for at in shown if columns[at].rank), key=lambda at: columns[at].rank)
    while ranked and over() > sum(max(cells[at] - columns[at].least, 0) for at in names()):
        shown.remove(ranked.pop())
    while over() > 0 and any(cells[at] > SHORTEST for at in names()):
        cells[max(names(), key=lambda at: cells[at] - columns[at].least)] -= 1
    return shown, cells
