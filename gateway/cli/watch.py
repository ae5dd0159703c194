"""`driftgate watch`: changes of state as they happen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gateway.cli.failure import UNREACHABLE, Failure
from gateway.cli.options import Peer, client_options, json_option

if TYPE_CHECKING:
    from rich.text import Text

    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb


@click.command(epilog="Example: driftgate watch iris --json")
@click.argument("model", required=False, default="")
@json_option
@client_options(timeout_seconds=None)
def watch(peer: Peer, model: str, *, as_json: bool) -> None:
    """Follow changes of state (of one MODEL) until Ctrl-C."""
    try:
        _follow(peer, model, as_json=as_json)
    except KeyboardInterrupt:
        return
    raise Failure(f"the gateway at {peer.address} ended the watch: it is shutting down", UNREACHABLE)


def _follow(peer: Peer, model: str, *, as_json: bool) -> None:
    from gateway.cli.client import stream
    from gateway.cli.console import show, show_json
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    for event in stream(peer, "WatchModels", pb.WatchModelsRequest(model=model)):
        if as_json:
            show_json(event, indent=None)
        else:
            show(_line(event), soft_wrap=True)


def _line(event: pb.ModelEvent) -> Text:
    from rich.text import Text

    from gateway.cli.console import state_text
    from gateway.cli.text import moment, one_line, short_digest

    model = one_line(event.model) + (f"/{event.version}" if event.version else "")
    where = f"worker {event.worker}" if event.worker >= 0 else "gateway"
    state = state_text(event.state)
    state.pad_right(max(0, len("warming up") - len(state)))
    notes = [one_line(event.reason), "(at the start)" if event.initial else ""]
    if event.dropped:
        notes.append(f"({event.dropped} events before it lost: this watcher reads too slowly)")
    return Text.assemble(
        f"{moment(event.time, 'milliseconds')}  {where:<8}  ", state, f"  {model}  {short_digest(event.digest)}",
        *(f"  {note}" for note in notes if note),
    )  # fmt: skip
