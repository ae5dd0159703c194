"""`driftgate drift`: have live rows drifted from their reference: which feature, how much, since when, how sure."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.failure import Failure
from gateway.cli.options import VERSION_NUMBER, Peer, client_options, json_option
from gateway.cli.output import write

if TYPE_CHECKING:
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

DRIFTED = 4
"""Exit status with --exit-code. A gateway that is not reached has the same, and an error on standard error."""

HISTORY_LOOKS = 720
"""What the HTML report draws over time: as much as the gateway keeps, two hours of a look every 10 s."""

SECONDS = click.FloatRange(1, 3600)
FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(epilog="Example: driftgate drift iris; driftgate drift iris --html report.html; driftgate drift --watch")
@click.argument("model", required=False, default="")
@click.option(
    "--version", type=VERSION_NUMBER, metavar="N", default=None, help="This version, not all that are served."
)
@click.option("--all", "everything", is_flag=True, help="Every subject, not only what drifted and ten more.")
@click.option(
    "--html",
    type=FILE,
    metavar="FILE",
    default=None,
    help="Write the report with plots, of one version: the default one without --version.",
)
@click.option("--watch", is_flag=True, help="Look again and again until Ctrl-C.")
@click.option("--interval", type=SECONDS, default=10.0, show_default=True, metavar="SECONDS", help="Of --watch.")
@click.option("--exit-code", is_flag=True, help="End with status 4 if there is an alarm.")
@json_option
@client_options()
def drift(
    peer: Peer,
    model: str,
    version: int | None,
    html: Path | None,
    interval: float,
    *,
    everything: bool,
    watch: bool,
    exit_code: bool,
    as_json: bool,
) -> None:
    """Compare live rows with the reference (of one MODEL)."""
    if version is not None and not model:
        raise click.UsageError("--version is one of a model's: give MODEL too")
    if watch and (html is not None or exit_code):
        raise click.UsageError("--watch has no end: it goes with neither --html nor --exit-code")
    from gateway.cli.client import ask
    from gateway.cli.console import can_redraw, show, show_json, window_width
    from gateway.cli.drift_table import drift_screen
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    request = pb.GetDriftRequest(model=model, version=version or 0, history=HISTORY_LOOKS if html is not None else 0)
    if watch and not as_json and can_redraw():
        try:
            _follow(peer, request, interval, everything=everything)
        except KeyboardInterrupt:
            return
    response: pb.GetDriftResponse = ask(peer, "GetDrift", request)
    if html is not None:
        line = _write_report(peer, response, html)
        if not as_json:
            write(line)
    if as_json:
        show_json(response)
    elif html is None:
        show(drift_screen(response, window_width(), time.time(), everything=everything))
    if exit_code and any(v.alarmed or v.alarmed_by_evidence for report in response.reports for v in report.verdicts):
        click.get_current_context().exit(DRIFTED)


def _follow(peer: Peer, request: pb.GetDriftRequest, interval_seconds: float, *, everything: bool) -> None:
    """On a screen of its own, until interrupted. Raises Failure."""
    from rich.console import Console
    from rich.live import Live

    from gateway.cli.client import ask
    from gateway.cli.console import pause
    from gateway.cli.drift_table import drift_screen

    console = Console(highlight=False, markup=False)
    screen = drift_screen(ask(peer, "GetDrift", request), console.width, time.time(), everything=everything)
    with Live(screen, console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.refresh()
            pause(interval_seconds)
            response = ask(peer, "GetDrift", request)
            live.update(drift_screen(response, console.width, time.time(), everything=everything))


def _write_report(peer: Peer, response: pb.GetDriftResponse, file: Path) -> str:
    """Answers the line that says what was written. Raises Failure."""
    from gateway.cli.client import ask
    from gateway.cli.text import one_line
    from gateway.report.render import render
    from gateway.report.words import headline
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    models = {report.model for report in response.reports}
    if len(models) != 1:
        names = ", ".join(sorted(map(one_line, models))) or "none"
        raise Failure(f"--html writes the report of one model, and there are {names}: give MODEL")
    version = response.reports[0].version if len(response.reports) == 1 else 0  # the default one
    request = pb.GetFeaturesRequest(model=models.pop(), version=version)  # in the window that drift is looked for in
    features: pb.GetFeaturesResponse = ask(peer, "GetFeatures", request)
    report = next((each for each in response.reports if each.version == features.version), None)
    if report is None:
        raise Failure(f"drift is not looked for in version {features.version}, the default: give --version")
    try:
        file.write_text(render(report, features), encoding="utf-8")
    except OSError as error:
        raise Failure(f"--html: {file} cannot be written: {error.strerror}") from None
    return f"{file}: {one_line(report.model)}/{report.version}: {headline(report).sentence}"
