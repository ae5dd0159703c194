"""`driftgate top`: which version answers how many requests, how fast, and with how many errors."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from typing import TYPE_CHECKING

import click

from gateway.cli.options import Peer, client_options, json_option

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

    from gateway.cli.traffic import RefusedTraffic, Traffic, TrafficReport
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

FIXED_LINES = 8  # of the screen: what stands above, between and below the rows
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
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    request = pb.GetStatisticsRequest(model=model)
    if once or as_json or not sys.stdout.isatty():
        _print(peer, request, as_json=as_json)
        return
    try:
        _follow(peer, request, interval)
    except KeyboardInterrupt:
        return


def _print(peer: Peer, request: pb.GetStatisticsRequest, *, as_json: bool) -> None:
    from gateway.cli.client import ask
    from gateway.cli.console import show
    from gateway.cli.text import moment
    from gateway.cli.traffic import traffic

    response: pb.GetStatisticsResponse = ask(peer, "GetStatistics", request)
    report = traffic(response)
    if as_json:
        times = {"time": moment(response.time, "milliseconds"), "started_at": moment(response.started_at)}
        click.echo(json.dumps(times | dataclasses.asdict(report), indent=2, sort_keys=True))
        return
    show(_screen(report, request.model, moment(response.time)))


def _follow(peer: Peer, request: pb.GetStatisticsRequest, interval_seconds: float) -> None:
    """On a screen of its own, until interrupted. Raises Failure."""
    from rich.console import Console
    from rich.live import Live

    from gateway.cli.client import ask
    from gateway.cli.text import moment
    from gateway.cli.traffic import traffic

    console = Console(highlight=False, markup=False)
    before: pb.GetStatisticsResponse | None = None
    now: pb.GetStatisticsResponse = ask(peer, "GetStatistics", request)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            room = console.size.height - FIXED_LINES
            live.update(_screen(traffic(now, before), request.model, moment(now.time), room), refresh=True)
            time.sleep(interval_seconds)
            before, now = now, ask(peer, "GetStatistics", request)


def _screen(report: TrafficReport, model: str, read_at: str, rows: int | None = None) -> Group:
    """`rows`: as many as there is room for; the busiest are shown, in the same order."""
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
    parts: list[RenderableType] = [*head, Text(), _versions(report.versions, room)]
    if report.refusals and left:
        parts += [Text(), _refusals(report.refusals, left)]
    hidden = max(len(report.versions) - room, 0) + max(len(report.refusals) - left, 0)
    if hidden:
        parts.append(Text(f"{hidden} more rows with less traffic have no room here (--model, --once)", style="dim"))
    return Group(*parts)


def _versions(versions: tuple[Traffic, ...], room: int) -> Table:
    from rich.text import Text

    from gateway.cli.console import table

    numbers = ("REQ/S", "ERR/S", "P50", "P95", "P99", "ROWS/RUN", "REQUESTS", "ERRORS")
    drawn = table("MODEL", "VERSION", *numbers, right=frozenset({"VERSION", *numbers}), fold=frozenset({"MODEL"}))
    busiest = sorted(versions, key=lambda each: -each.requests_per_second)[:room]
    for each in [each for each in versions if each in busiest]:
        bad = "red" if each.errors_per_second else ""
        drawn.add_row(
            *_name(each.model, each.version),
            f"{each.requests_per_second:,.1f}",
            Text(f"{each.errors_per_second:,.1f}", style=bad),
            *(_latency(value) for value in (each.p50_seconds, each.p95_seconds, each.p99_seconds)),
            "-" if each.rows_per_run is None else f"{each.rows_per_run:,.1f}",
            f"{each.requests:,}",
            f"{each.errors:,}",
        )
    return drawn


def _refusals(refusals: tuple[RefusedTraffic, ...], room: int) -> Table:
    from rich.text import Text

    from gateway.cli.console import table
    from gateway.cli.text import NOTHING, one_line

    numbers = ("ERR/S", "ERRORS")
    fold = frozenset({"MODEL", "REASON"})
    drawn = table("MODEL", "VERSION", "CODE", "REASON", *numbers, right=frozenset({"VERSION", *numbers}), fold=fold)
    busiest = sorted(refusals, key=lambda each: -each.requests_per_second)[:room]
    for each in [each for each in refusals if each in busiest]:
        drawn.add_row(
            *_name(each.model, each.version),
            Text(one_line(each.code)),
            Text(one_line(each.reason) or NOTHING),
            f"{each.requests_per_second:,.1f}",
            f"{each.requests:,}",
        )
    return drawn


def _name(model: str, version: int) -> tuple[Text, str]:
    from rich.text import Text

    from gateway.cli.text import NOTHING, one_line

    return Text(one_line(model) or NOTHING), str(version or NOTHING)


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
