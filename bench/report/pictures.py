"""The pictures of docs/performance.md: of which table each is, and how it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.report.figures import Figure, figure
from bench.report.plots import Panel, Series, bars, lines
from bench.report.results import Table

Tables = Mapping[str, Table]
SHOWN_US = 0.05
"""A stage that takes less has no bar: nothing was copied for shadows, say."""


@dataclass(frozen=True, slots=True)
class Picture:
    """`tables`: those that it cannot be drawn without. `text`: what it shows, for who cannot see it."""

    name: str
    tables: tuple[str, ...]
    text: str
    draw: Callable[[Tables, str], str]


def _of(table: Table, row: str, column: str) -> Figure | None:
    """None where the row was not measured."""
    found = next((each for each in table.rows if each.key == row), None)
    return figure(table, found, table.column(column)) if found is not None else None


def _rates(name: str) -> Callable[[Tables, str], str]:
    """Of the rows of a table of servers, the greatest last."""

    def draw(tables: Tables, text: str) -> str:
        table = tables[name]
        # A loop without a server dwarfs all that have one.
        servers = [row for row in table.rows if _of(table, row.key, "p50_1") is not None]
        found = [(row.title, _of(table, row.key, "rate_64")) for row in servers]
        known = sorted(
            ((each.median, title, each) for title, each in found if each is not None), key=lambda one: one[0]
        )
        panel = Panel("", [title for _, title, _ in known], [Series("", [each for _, _, each in known])])
        return bars([panel], "requests/s, 64 in flight, one core for the server", text, labels=",.0f")

    return draw


def _stages(tables: Tables, text: str) -> str:
    table = tables["stages"]
    stages = [row for row in table.rows if row.key not in ("all", "plain", "clocks")]
    shown = [row for row in stages if (spent := _of(table, row.key, "on_1")) is not None and spent.median >= SHOWN_US]

    def panel(load: str) -> Panel:
        series = [
            Series(title, [_of(table, row.key, f"{key}_{load}") for row in shown])
            for key, title in (("off", "all off"), ("on", "all on"))
        ]
        return Panel(f"{load} in flight", [row.title.partition(":")[0] for row in shown], series)

    return bars([panel("1"), panel("64")], "µs a request", text)


def _observing(tables: Tables, text: str) -> str:
    table = tables["observing"]
    rows = [row for row in table.rows if row.key.endswith("/64") and row.against]
    panel = Panel("", [row.series for row in rows], [Series("", [_of(table, row.key, "ratio") for row in rows])])
    return bars([panel], "requests/s to those with all off, 64 in flight", text, labels=".2f")


def _load(tables: Tables, text: str) -> str:
    table = tables["load"]
    shapes = list(dict.fromkeys(row.key.rpartition("-")[2] for row in table.rows))
    wanted = (
        ("all/unary", "driftgate, unary"),
        ("all/streaming", "driftgate, streaming"),
        ("echo/unary", "bare echo, unary"),
    )
    series = [Series(title, [_of(table, f"{key}-{shape}", "rate") for shape in shapes]) for key, title in wanted]
    return bars(
        [Panel("", [shape.replace("x", " × ") for shape in shapes], series)],
        "requests/s, by connections × requests in flight on each",
        text,
    )


def _latency(tables: Tables, text: str) -> str:
    table = tables["latency"]
    quantiles = {"p50": "50", "p90": "90", "p99": "99", "p999": "99.9"}
    cases = {row.key.partition("/")[0]: row.series for row in table.rows}
    panels = [
        Panel(
            f"at {share} % of its capacity",
            list(quantiles.values()),
            [Series(title, [_of(table, f"{case}/{share}", key) for key in quantiles]) for case, title in cases.items()],
        )
        for share in ("50", "80")
    ]
    return lines(panels, "latency, ms", ["percentile"] * 2, text, logarithmic=True)


GROWN = {"model-count": "models loaded", "version-count": "versions loaded", "feature-count": "features of a row"}


def _growth(tables: Tables, text: str) -> str:
    panels, across = [], []
    for name, what in GROWN.items():
        table = tables[name]
        rows = [row for row in table.rows if not row.key.partition("/")[0].endswith(("-off", "-aio"))]
        counts = [_count(row.key) for row in rows]
        panels.append(Panel("", counts, [Series("", [_of(table, row.key, "cpu") for row in rows])]))
        across.append(what)
    return lines(panels, "CPU a request, µs", across, text, logarithmic=True)


def _count(key: str) -> str:
    """Of `models-100/64` and `1000-all/1000`."""
    return f"{int(next(part for part in key.partition('/')[0].split('-') if part.isdigit())):,}"


ALL: Sequence[Picture] = (
    Picture(
        "performance-servers", ("servers",), "Requests a second of each server at 64 in flight.", _rates("servers")
    ),
    Picture("performance-peers", ("peers",), "Requests a second of driftgate and of its peers.", _rates("peers")),
    Picture("performance-stages", ("stages",), "Processor time of a request in each stage of its way.", _stages),
    Picture("performance-observing", ("observing",), "What observing leaves of the rate.", _observing),
    Picture("performance-load", ("load",), "Requests a second, unary and streaming, by the shape of the load.", _load),
    Picture("performance-latency", ("latency",), "Percentiles of latency at half and at 80 % of capacity.", _latency),
    Picture(
        "performance-growth", tuple(GROWN), "Processor time of a request as models, versions, features grow.", _growth
    ),
)


def drawn(tables: Tables) -> dict[str, str]:
    """File name → SVG, of those whose tables are there."""
    return {
        f"{picture.name}.svg": picture.draw(tables, picture.text)
        for picture in ALL
        if all(name in tables for name in picture.tables)
    }
