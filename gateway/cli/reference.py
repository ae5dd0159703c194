"""`driftgate reference`: what live rows are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gateway.cli.options import VERSION_NUMBER, Peer, client_options, json_option, reason_option
from gateway.cli.output import write

if TYPE_CHECKING:
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

ROWS = click.IntRange(1, 2**40)


@click.command(epilog="Example: driftgate reference iris --profile; driftgate reference iris --live-rows 20000")
@click.argument("model")
@click.option("--version", type=VERSION_NUMBER, metavar="N", default=None, help="Not the default version but this one.")
@click.option("--profile", is_flag=True, help="The profile beside the version in the repository.")
@click.option("--live-rows", type=ROWS, metavar="ROWS", default=None, help="The next rows that clients send.")
@click.option("--none", "nothing", is_flag=True, help="Compare with nothing.")
@reason_option
@json_option
@client_options()
def reference(
    peer: Peer,
    model: str,
    version: int | None,
    live_rows: int | None,
    reason: str,
    *,
    profile: bool,
    nothing: bool,
    as_json: bool,
) -> None:
    """Choose what MODEL's live rows are compared with."""
    if profile + (live_rows is not None) + nothing != 1:
        raise click.UsageError("give one of --profile, --live-rows and --none")
    from gateway.cli.client import ask
    from gateway.cli.console import show_json
    from gateway.cli.text import one_line
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    kind = "profile" if profile else "none" if nothing else "live"
    request = pb.SetReferenceRequest(
        model=model, version=version or 0, kind=kind, live_rows=live_rows or 0, reason=reason
    )
    response: pb.SetReferenceResponse = ask(peer, "SetReference", request)
    if as_json:
        show_json(response)
        return
    done = "changed" if response.changed else "unchanged, it was already so"
    audit = f", audit {response.audit_id}" if response.audit_id else ""
    write(f"{one_line(model)}: {done}{audit}; compared with {_name(response)}")


def _name(response: pb.SetReferenceResponse) -> str:
    from gateway.cli.drift_table import reference_text

    return reference_text(response.reference) if response.HasField("reference") else "nothing"
