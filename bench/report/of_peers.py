"""A run with peers as results: servers as one table, ONNX Runtime in a loop among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.inprocess import Limit
from bench.report.of_rounds import of_rounds
from bench.report.results import Results, Row
from bench.rounds import Bench
from bench.rounds import Results as Rounds


def of_peers(
    bench: Bench, rounds: Rounds, limits: Sequence[Mapping[int, Limit]], versions: Mapping[str, str]
) -> Results:
    """`limits[i]`: of round i, by rows a call; `versions`: of what peers run."""
    results = of_rounds(
        bench, rounds, module="bench.peers", name="peers", title="driftgate, all on, beside others", versions=versions
    )
    servers, *others = results.tables
    loops = tuple(_loop(limits, rows) for rows in sorted({rows for by_rows in limits for rows in by_rows}))
    return replace(results, tables=(replace(servers, rows=servers.rows + loops), *others))


def _loop(limits: Sequence[Mapping[int, Limit]], rows: int) -> Row:
    """Its rows stand for requests: of one row each, as a server gets them."""
    rates = tuple(by_rows[rows].rows_per_second if rows in by_rows else None for by_rows in limits)
    of_rows = "1 row" if rows == 1 else f"{rows} rows"
    return Row(f"loop-{rows}", f"ONNX Runtime in a loop, {of_rows} a call, no server", {"rate_64": rates})
