"""A table as markdown, and in words what it is of."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report.figures import figure, written
from bench.report.results import Column, Results, Row, Table

GIB = 2**30


def table_text(table: Table, columns: Sequence[str] = (), rows: Sequence[str] = (), bold: Sequence[str] = ()) -> str:
    """Some columns and rows, in the order asked for; none given: all. `bold`: rows that stand out.

    A name that ends with `*` stands for all rows that begin so. Columns without a figure in any row are left out where
    none were asked for. Raises KeyError.
    """
    shown_rows = _rows(table, rows)
    shown = [table.column(key) for key in columns] if columns else _with_figures(table, shown_rows)
    lines = [
        [table.heading or table.title, *(_heading(column) for column in shown)],
        ["---", *["---:"] * len(shown)],
    ]
    for row in shown_rows:
        cells = [row.title, *(written(figure(table, row, column), column, spread=column.spread) for column in shown)]
        lines.append([f"**{cell}**" for cell in cells] if row.key in bold else cells)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _rows(table: Table, keys: Sequence[str]) -> list[Row]:
    if not keys:
        return list(table.rows)
    found: list[Row] = []
    for key in keys:
        if key.endswith("*"):
            found += [row for row in table.rows if row.key.startswith(key[:-1])]
        else:
            found.append(table.row(key))
    return found


def _with_figures(table: Table, rows: Sequence[Row]) -> list[Column]:
    return [column for column in table.columns if any(figure(table, row, column) for row in rows)]


def _heading(column: Column) -> str:
    return f"{column.title}, {column.unit}" if column.unit else column.title


def method_text(results: Results) -> str:
    """One paragraph."""
    method, machine, versions = results.method, results.machine, results.versions
    tree = "" if results.code.clean else ", with changes"
    governor = f", frequency governor {machine.governor}" if machine.governor else ""
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    rounds = "1 round" if method.rounds == 1 else f"medians of {method.rounds} rounds"
    run = (
        f"`{results.command}`, {results.date[:10]}, commit {results.code.commit[:9] or 'unknown'}{tree}: "
        f"{rounds} of {method.seconds:g} s after {method.warm_up_seconds:g} s of warm-up; load by {method.generator}; "
        f"server on core {_cores(method.server_cores)}, load on core {_cores(method.load_cores)}."
    )
    where = (
        f"{machine.processor}, {machine.cores} cores, {machine.memory_bytes / GIB:.1f} GiB, Linux {machine.kernel}"
        f"{governor}. {named}."
    )
    return " ".join(part for part in (run, method.note, where) if part) + "\n"


def _cores(cores: Sequence[int]) -> str:
    return ", ".join(map(str, cores)) or "any"


def report_text(results: Results) -> str:
    """All tables of a run."""
    parts = [
        f"## {table.title}\n\n{table_text(table)}" + (f"\n{table.note}\n" if table.note else "")
        for table in results.tables
    ]
    if results.failures:
        parts.append("".join(f"- {row} failed: {reason}\n" for row, reason in results.failures.items()))
    parts.append(method_text(results))
    return "\n".join(parts)
