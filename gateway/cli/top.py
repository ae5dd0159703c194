"""`driftgate top`: which version answers how many requests, how fast, and with how many errors."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from gateway.cli.columns import Column, fitted
from gateway.cli.options import Peer, client_options, json_option
from gateway.cli.output import write

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

    from gateway.cli.traffic import RefusedTraffic, Traffic, TrafficReport
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

FIXED_LINES = 8  # of the screen: what stands above, between and below the rows
OVERFLOW = "(overflow)"
MODEL = Column("MODEL", least=16)
VERSIONS = (
    MODEL, Column("VERSION"), Column("REQ/S"), Column("ERR/S"), Column("P50", rank=1), Column("P95", rank=2),
    Column("P99"), Column("ROWS/RUN", rank=5), Column("REQUESTS", rank=3), Column("ERRORS", rank=4),
)  # fmt: skip
REFUSALS = (
    MODEL, Column("VERSION", rank=1), Column("CODE", least=10), Column("REASON", least=12), Column("ERR/S"),
    Column("ERRORS", rank=2),
)  # fmt: skip
SECONDS = click.FloatRange(0.1, 3600)


@click.command(epilog="Example: driftgate top --interval 5; driftgate top --model iris --once --json")
@click.option("--model", metavar="MODEL", default="", help="Only this one.")
@click.option(
    "--interval", type=SECONDS, default=1.0, show_default=True, metavar="SECONDS", help="From one look to the next."
)
@click.option("--once", is_flag=True, help="Print what was since the gateway's start, and end; so it is in a pipe.")
@json_option
@client_options()
def top(peer: Peer, model: str, interval: float, *, once: bool, as_json: bool) -> None:
    """Show rates, errors and latencies of versions until Ctrl-C."""
    from gateway.cli.console import can_redraw
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    request = pb.GetStatisticsRequest(model=model)
    if once or as_json or not can_redraw():
        _print(peer, request, as_json=as_json)
        return
    try:
        _follow(peer, request, interval)
    except KeyboardInterrupt:
        return


def _print(peer: Peer, request: pb.GetStatisticsRequest, *, as_json: bool) -> None:
    from gateway.cli.client import ask
    from gateway.cli.console import show, window_width
    from gateway.cli.text import moment
    from gateway.cli.traffic import traffic

    response: pb.GetStatisticsResponse = ask(peer, "GetStatistics", request)
    report = traffic(response)
    if as_json:
        times = {"time": moment(response.time, "milliseconds"), "started_at": moment(response.started_at)}
        write(json.dumps(times | dataclasses.asdict(report), indent=2, sort_keys=True))
        return
    show(_screen(report, request.model, moment(response.time), window_width()))


def _follow(peer: Peer, request: pb.GetStatisticsRequest, interval_seconds: float) -> None:
    """On a screen of its own, until interrupted. Raises Failure."""
    from rich.console import Console
    from rich.live import Live

    from gateway.cli.client import ask
    from gateway.cli.console import pause
    from gateway.cli.text import moment
    from gateway.cli.traffic import traffic

    console = Console(highlight=False, markup=False)
    before: pb.GetStatisticsResponse | None = None
    now: pb.GetStatisticsResponse = ask(peer, "GetStatistics", request)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            width, height = console.size
            screen = _screen(traffic(now, before), request.model, moment(now.time), width, height - FIXED_LINES)
            live.update(screen, refresh=True)
            pause(interval_seconds)
            before, now = now, ask(peer, "GetStatistics", request)


def _screen(report: TrafficReport, model: str, read_at: str, width: int | None, rows: int | None = None) -> Group:
    """`width`: of the window. `rows`: as many as there is room for; the busiest are shown, in the same order.

    None: no limit. Every line stays one line, or the rows could not be counted.
    """
    from rich.console import Group
    from rich.text import Text

    from gateway.cli.text import seconds

    over = "since the start, " if report.is_since_start else "over "
    head = [
        Text.assemble(("driftgate top", "bold"), f"  {read_at}  {over}{seconds(report.interval_seconds)}"),
        Text.assemble(
            f"{report.requests_per_second:,.1f} requests/s  ",
            (f"{report.errors_per_second:,.1f} errors/s", "red" if report.errors_per_second else ""),
            f"  {report.requests_in_flight:,} in flight{' over all models' if model else ''}",
        ),
    ]
    if not report.versions:
        return Group(*head, "", "no requests yet")
    room = len(report.versions) if rows is None else max(rows - min(len(report.refusals), rows // 3), 1)
    left = len(report.refusals) if rows is None else max(rows - min(room, len(report.versions)), 0)
    parts: list[RenderableType] = [*head, Text(), _versions(report.versions, room, width)]
    if report.refusals and left:
        parts += [Text(), _refusals(report.refusals, left, width)]
    hidden = max(len(report.versions) - room, 0) + max(len(report.refusals) - left, 0)
    if hidden:
        parts.append(Text(f"{hidden} more rows with less traffic have no room here (--model, --once)", style="dim"))
    for part in parts:
        if isinstance(part, Text):
            part.no_wrap, part.overflow = True, "ellipsis"
    return Group(*parts)


def _versions(versions: tuple[Traffic, ...], room: int, width: int | None) -> Table:
    from rich.text import Text

    rows = []
    busiest = sorted(versions, key=lambda each: -each.requests_per_second)[:room]
    for each in filter(busiest.__contains__, versions):
        numbers: tuple[str | Text, ...] = (
            f"{each.requests_per_second:,.1f}",
            Text(f"{each.errors_per_second:,.1f}", style="red" if each.errors_per_second else ""),
            *(_latency(value) for value in (each.p50_seconds, each.p95_seconds, each.p99_seconds)),
            "-" if each.rows_per_run is None else f"{each.rows_per_run:,.1f}",
            f"{each.requests:,}",
            f"{each.errors:,}",
        )
        rows.append([*_name(each), *(number if isinstance(number, Text) else Text(number) for number in numbers)])
    return fitted(VERSIONS, rows, width)


def _refusals(refusals: tuple[RefusedTraffic, ...], room: int, width: int | None) -> Table:
    from rich.text import Text

    from gateway.cli.text import NOTHING, one_line

    busiest = sorted(refusals, key=lambda each: -each.requests_per_second)[:room]
    rows = [
        [
            *_name(each),
            Text(NOTHING if each.is_overflow else one_line(each.code)),
            Text(one_line(each.reason) or NOTHING),
            Text(f"{each.requests_per_second:,.1f}"),
            Text(f"{each.requests:,}"),
        ]
        for each in refusals
        if each in busiest
    ]
    return fitted(REFUSALS, rows, width)


def _name(each: Traffic | RefusedTraffic) -> tuple[Text, Text]:
    from rich.text import Text

    from gateway.cli.text import NOTHING, one_line

    return Text(OVERFLOW if each.is_overflow else one_line(each.model) or NOTHING), Text(str(each.version or NOTHING))


def _latency(seconds: float | None) -> str:
    """Three digits: 0.000412 → "412 µs", 0.00123 → "1.23 ms"."""
    from gateway.cli.text import NOTHING

    if seconds is None:
        return NOTHING
    value, unit = seconds * 1e6, "µs"
    for larger in ("ms", "s"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:,.{digits}f} {unit}"
