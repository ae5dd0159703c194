"""A run with peers as tables for the terminal, as markdown and as JSON."""

from __future__ import annotations

from rich import box
from rich.table import Table

from bench.catalogue import ServerSpec
from bench.inprocess import ROWS, Limit
from bench.peers.against import Against, InProcess, Spread, against, in_process
from bench.rounds import Results
from bench.table import DISTURBED, load_core

HEADINGS = (
    "server",
    "req/s\n@64",
    "least-\ngreatest",
    "all on\nto it",
    "least-\ngreatest",
    "p99 ms\n@64",
    "p50 ms\n@1",
    "its to\nall on's",
    "least-\ngreatest",
    "spans\nlost",
    "req/CPU\ns @64",
    "others on\na core",
    "load\ncore",
    "errors",
)
LIMIT_HEADINGS = (
    "ONNX Runtime in a loop, no server",
    "rows/s",
    "least-greatest",
    "µs a call",
    "all on @64\nto it",
)


def rows_of(results: Results, servers: tuple[ServerSpec, ...]) -> list[list[str]]:
    """One for each server, and for what each of them failed with."""
    rows = []
    for spec in servers:
        row = against(results.rounds, spec)
        if row is not None:
            rows.append(_cells(row))
        if spec.key in results.failures:
            rows.append([spec.title, "failed", *[""] * (len(HEADINGS) - 2)])
    return rows


def limit_rows(results: Results, limits: list[dict[int, Limit]]) -> list[list[str]]:
    found = (in_process(limits, results.rounds, rows) for rows in ROWS)
    return [_limit_cells(each) for each in found if each is not None]


def table(title: str | None, headings: tuple[str, ...], rows: list[list[str]], caption: str | None = None) -> Table:
    made = Table(
        title=title, caption=caption, caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True
    )
    for place, heading in enumerate(headings):
        made.add_column(heading, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return made


def markdown(headings: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [
        [heading.replace("\n", " ") for heading in headings],
        ["---", *["---:"] * (len(headings) - 1)],
        *rows,
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _range(spread: Spread | None, form: str) -> str:
    return "-" if spread is None else f"{spread.least:{form}}-{spread.greatest:{form}}"


def _times(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.middle:.2f}x"


def _cells(row: Against) -> list[str]:
    return [
        row.title,
        f"{row.requests_per_second_64.middle:,.0f}",
        _range(row.requests_per_second_64, ",.0f"),
        _times(row.rate_ratio),
        _range(row.rate_ratio, ".2f"),
        f"{row.p99_ms_64:.1f}",
        f"{row.p50_ms_1.middle:.3f}",
        _times(row.latency_ratio),
        _range(row.latency_ratio, ".2f"),
        "-" if row.spans_lost is None else f"{row.spans_lost:.1%}",
        f"{row.requests_per_cpu_second_64:,.0f}",
        f"{row.others_busy:.0%}{' !' if row.others_busy > DISTURBED else ''}",
        load_core(row.load_busy_64),
        f"{row.errors:,}",
    ]


def _limit_cells(limit: InProcess) -> list[str]:
    return [
        f"{limit.rows} {'row' if limit.rows == 1 else 'rows'} a call",
        f"{limit.rows_per_second.middle:,.0f}",
        _range(limit.rows_per_second, ",.0f"),
        f"{limit.median_us:.1f}",
        "-" if limit.of_limit is None else f"{limit.of_limit.middle:.3f}",
    ]
