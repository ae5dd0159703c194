"""`driftgate status`: is the gateway ready, and how are its workers."""

from __future__ import annotations

import click

from gateway.cli.options import Peer, client_options, json_option
from gateway.cli.output import write


@click.command(epilog="Example: driftgate status --admin 10.0.0.7:8003 --token-file token --ca ca.pem")
@json_option
@client_options()
def status(peer: Peer, *, as_json: bool) -> None:
    """Show readiness, workers and the repository's problems."""
    from rich.text import Text

    from gateway.cli.client import ask
    from gateway.cli.console import show, show_json, table
    from gateway.cli.text import NOTHING, moment, one_line
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    response: pb.GetStatusResponse = ask(peer, "GetStatus", pb.GetStatusRequest())
    if as_json:
        show_json(response)
        return
    readiness = ("ready", "green") if response.ready else ("not ready", "bold red")
    reason = f": {one_line(response.ready_reason)}" if response.ready_reason else ""
    lines = [Text.assemble(f"driftgate {one_line(response.version)}  ", readiness, reason)]
    if response.HasField("started_at"):
        lines.append(Text(f"started     {moment(response.started_at)}"))
    lines.append(Text(f"state       {one_line(response.state_dir) or NOTHING}"))
    if response.repository_problem:
        lines.append(Text.assemble("repository  ", (one_line(response.repository_problem), "red")))
    show(*lines)
    right = frozenset({"WORKER", "PID", "RESTARTS", "IN FLIGHT"})
    workers = table("WORKER", "PID", "STATE", "TRANSPORT", "RESTARTS", "IN FLIGHT", right=right)
    for worker in response.workers:
        workers.add_row(
            str(worker.index),
            str(worker.pid or NOTHING),
            Text(one_line(worker.state)),
            Text(one_line(worker.transport) or NOTHING),
            str(worker.restarts),
            str(worker.requests_in_flight),
        )
    if response.workers:
        write()
        show(workers)
