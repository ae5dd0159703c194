"""`driftgate audit`: who changed what, when, why, and with what outcome."""

from __future__ import annotations

import click

from gateway.cli.options import Peer, client_options, json_option
from gateway.cli.output import write

MAX_RECORDS = 1000


@click.command(epilog="Example: driftgate audit iris --limit 20")
@click.argument("model", required=False, default="")
@click.option(
    "--limit", type=click.IntRange(1, MAX_RECORDS), default=100, show_default=True, metavar="N", help="At most so many."
)
@click.option("--before", type=click.IntRange(1), metavar="ID", default=None, help="Only records older than this one.")
@json_option
@client_options()
def audit(peer: Peer, model: str, limit: int, before: int | None, *, as_json: bool) -> None:
    """List changes (of one MODEL), the newest first."""
    from rich.text import Text

    from gateway.cli.client import ask
    from gateway.cli.console import show, show_json, table
    from gateway.cli.text import NOTHING, moment, one_line
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    request = pb.ListAuditRequest(model=model, limit=limit, before_id=before or 0)
    response: pb.ListAuditResponse = ask(peer, "ListAudit", request)
    if as_json:
        show_json(response)
        return
    if not response.records:
        write("no records")
        return
    fold = frozenset({"ACTOR", "ACTION", "MODEL", "WHY"})
    records = table("ID", "TIME", "ACTOR", "ACTION", "MODEL", "OUTCOME", "WHY", right=frozenset({"ID"}), fold=fold)
    for record in response.records:
        version = f"/{record.version}" if record.version else ""
        records.add_row(
            str(record.id),
            moment(record.time),
            Text(one_line(record.actor)),
            Text(one_line(record.action)),
            Text(one_line(record.model) + version),
            Text(one_line(record.outcome), style="" if record.outcome in ("done", "unchanged") else "red"),
            Text("; ".join(filter(None, (one_line(record.reason), one_line(record.detail)))) or NOTHING),
        )
    show(records)
    if len(response.records) == limit:
        click.echo(f"older ones: --before {response.records[-1].id}", err=True)
