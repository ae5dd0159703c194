"""`driftgate models`: what the gateway knows and serves."""

from __future__ import annotations

import click

from gateway.cli.failure import Failure
from gateway.cli.options import Peer, client_options, json_option
from gateway.cli.output import write


@click.command(epilog="Example: driftgate models iris --verbose")
@click.argument("model", required=False, default="")
@click.option("--verbose", "-v", is_flag=True, help="Every fact of every version, digests in full.")
@json_option
@client_options()
def models(peer: Peer, model: str, *, verbose: bool, as_json: bool) -> None:
    """List models (or one MODEL), their versions and states."""
    from gateway.cli.client import ask
    from gateway.cli.console import show, show_json
    from gateway.cli.model_block import model_block
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    response: pb.ListModelsResponse = ask(peer, "ListModels", pb.ListModelsRequest(model=model))
    if model and not response.models:
        raise Failure(f"NOT_FOUND: the gateway knows no model {model!r}")
    if as_json:
        show_json(response)
        return
    if not response.models:
        write("no models: the repository is empty, and nothing was ever loaded")
    for position, message in enumerate(response.models):
        if position:
            write()
        show(*model_block(message, verbose=verbose))
