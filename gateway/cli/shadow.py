"""`driftgate shadow`: how a shadow's answers differ from those that clients got."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gateway.cli.options import VERSION_NUMBER, Peer, client_options, json_option, window_seconds

if TYPE_CHECKING:
    from rich.console import Group

    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

SECONDS = click.FloatRange(1, 3600)


@click.command(epilog="Example: driftgate shadow iris; driftgate shadow iris --shadow 2 --window 1h --all")
@click.argument("model", required=False, default="")
@click.option(
    "--primary", type=VERSION_NUMBER, metavar="N", default=None, help="Only where this version answered the client."
)
@click.option("--shadow", type=VERSION_NUMBER, metavar="N", default=None, help="Only of this shadow.")
@click.option(
    "--window", callback=window_seconds, metavar="WINDOW", default=None,
    help="1m, 10m, 1h, 24h or seconds; without it, all since the gateway started.",
)  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Every class that flipped and every disagreement that is kept.")
@click.option("--watch", is_flag=True, help="Look again and again until Ctrl-C.")
@click.option("--interval", type=SECONDS, default=2.0, show_default=True, metavar="SECONDS", help="Of --watch.")
@json_option
@client_options()
def shadow(
    peer: Peer,
    model: str,
    primary: int | None,
    shadow: int | None,
    window: int,
    interval: float,
    *,
    everything: bool,
    watch: bool,
    as_json: bool,
) -> None:
    """Show how shadows differ from what clients got (of one MODEL)."""
    if not model and (primary is not None or shadow is not None):
        raise click.UsageError("--primary and --shadow are versions of a model: give MODEL too")
    from gateway.cli.client import ask
    from gateway.cli.console import can_redraw, show, show_json, window_width
    from gateway.cli.shadow_table import shadow_screen
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    request = pb.GetComparisonsRequest(
        model=model, primary=primary or 0, shadow=shadow or 0, window_seconds=window
    )  # fmt: skip
    if watch and not as_json and can_redraw():
        try:
            _follow(peer, request, interval, everything=everything)
        except KeyboardInterrupt:
            return
    response: pb.GetComparisonsResponse = ask(peer, "GetComparisons", request)
    if as_json:
        show_json(response)
    else:
        show(shadow_screen(response, window_width(), everything=everything))


def _follow(peer: Peer, request: pb.GetComparisonsRequest, interval_seconds: float, *, everything: bool) -> None:
    """On a screen of its own, until interrupted. Raises Failure."""
    from rich.console import Console
    from rich.live import Live

    from gateway.cli.client import ask
    from gateway.cli.console import pause
    from gateway.cli.shadow_table import shadow_screen

    console = Console(highlight=False, markup=False)

    def screen() -> Group:
        return shadow_screen(ask(peer, "GetComparisons", request), console.width, everything=everything)

    with Live(screen(), console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.refresh()
            pause(interval_seconds)
            live.update(screen())
