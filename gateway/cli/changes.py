"""`driftgate load, unload, label, default`: changes of what is served. Each shows the state after it."""

from __future__ import annotations

from typing import Any

import click

from gateway.cli.options import VERSION_NUMBER, Peer, client_options, json_option, reason_option
from gateway.cli.output import write

LOAD_TIMEOUT_SECONDS = 600.0
"""A load reads, compiles and warms up a model of any size on every worker before it answers."""


@click.command(epilog="Example: driftgate load iris --version 2 --reason 'retrained on June'")
@click.argument("model")
@click.option(
    "--version", "versions", type=VERSION_NUMBER, multiple=True, metavar="N",
    help="Serve exactly these versions (repeatable); without it, what the model's policy selects.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Load again even if the files have not changed.")
@reason_option
@json_option
@client_options(LOAD_TIMEOUT_SECONDS)
def load(peer: Peer, model: str, versions: tuple[int, ...], *, force: bool, reason: str, as_json: bool) -> None:
    """Load MODEL's versions on every worker, then switch to them."""
    request = {"model": model, "versions": versions, "force": force, "reason": reason}
    _change(peer, "LoadModel", request, as_json=as_json)


@click.command(epilog="Example: driftgate unload iris --version 1")
@click.argument("model")
@click.option("--version", type=VERSION_NUMBER, metavar="N", default=None, help="Only this version.")
@reason_option
@json_option
@client_options()
def unload(peer: Peer, model: str, version: int | None, *, reason: str, as_json: bool) -> None:
    """Stop serving MODEL after its requests in flight."""
    _change(peer, "UnloadModel", {"model": model, "version": version or 0, "reason": reason}, as_json=as_json)


@click.group(epilog="Example: driftgate label set iris stable 2")
def label() -> None:
    """Name versions; clients may ask for a version by its label."""


@label.command("set", epilog="Example: driftgate label set iris stable 2 --reason 'passed review'")
@click.argument("model")
@click.argument("label")
@click.argument("version", type=VERSION_NUMBER)
@reason_option
@json_option
@client_options()
def set_label(peer: Peer, model: str, label: str, version: int, *, reason: str, as_json: bool) -> None:
    """Point LABEL of MODEL at VERSION, which must be served."""
    request = {"model": model, "label": label, "version": version, "reason": reason}
    _change(peer, "SetLabel", request, as_json=as_json)


@label.command("delete", epilog="Example: driftgate label delete iris stable")
@click.argument("model")
@click.argument("label")
@reason_option
@json_option
@client_options()
def delete_label(peer: Peer, model: str, label: str, *, reason: str, as_json: bool) -> None:
    """Delete LABEL of MODEL."""
    _change(peer, "DeleteLabel", {"model": model, "label": label, "reason": reason}, as_json=as_json)


@click.command(epilog="Examples: driftgate default iris stable; driftgate default iris --newest")
@click.argument("model")
@click.argument("target", required=False)
@click.option("--newest", is_flag=True, help="Whatever version is the newest that is served.")
@reason_option
@json_option
@client_options()
def default(peer: Peer, model: str, target: str | None, *, newest: bool, reason: str, as_json: bool) -> None:
    """Choose what serves requests without a version."""
    if (target is None) != newest:
        raise click.UsageError("give either TARGET (a version or a label) or --newest")
    _change(peer, "SetDefault", {"model": model, "target": target or "", "reason": reason}, as_json=as_json)


def _change(peer: Peer, method: str, request: dict[str, Any], *, as_json: bool) -> None:
    from gateway.cli.client import ask
    from gateway.cli.console import show, show_json
    from gateway.cli.model_block import model_block
    from gateway.cli.text import duration, one_line
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    response: pb.ChangeResponse = ask(peer, method, getattr(pb, f"{method}Request")(**request))
    if as_json:
        show_json(response)
        return
    name = one_line(request["model"])
    done = "changed" if response.changed else "unchanged, it was already so"
    audit = f", audit {response.audit_id}" if response.audit_id else ""
    write(f"{name}: {done}{audit}, took {duration(response.duration)}")
    if response.HasField("model"):
        show(*model_block(response.model))
