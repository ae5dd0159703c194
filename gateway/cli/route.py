"""`driftgate route show, set, explain`: where a model's requests go, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.failure import Failure
from gateway.cli.options import Peer, client_options, json_option, reason_option
from gateway.cli.output import write

if TYPE_CHECKING:
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

MAX_FILE_BYTES = 1024 * 1024
"""What the gateway reads of a route."""

SOURCE = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)


@click.group(epilog="Example: driftgate route show iris")
def route() -> None:
    """Share requests out over versions, and see where one goes."""


@route.command("show", epilog="Examples: driftgate route show iris; driftgate route show iris --yaml > route.yaml")
@click.argument("model")
@click.option("--yaml", "as_yaml", is_flag=True, help="Print the route as a file that `route set` reads.")
@json_option
@client_options()
def show_route(peer: Peer, model: str, *, as_yaml: bool, as_json: bool) -> None:
    """Show the route of MODEL, with the part that a rollout under way takes."""
    if as_yaml and as_json:
        raise click.UsageError("--yaml and --json exclude each other: give one")
    from gateway.cli.client import ask
    from gateway.cli.console import show, show_json, window_width
    from gateway.cli.route_screen import route_screen, route_yaml
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    response: pb.GetRouteResponse = ask(peer, "GetRoute", pb.GetRouteRequest(model=model))
    if as_json:
        show_json(response)
    elif as_yaml:
        write(route_yaml(response.route), nl=False)
    else:
        show(route_screen(response, window_width()))


@route.command(
    "set",
    epilog="Examples: driftgate route set iris route.yaml --dry-run; driftgate route set iris --delete",
)
@click.argument("model")
@click.argument("file", type=SOURCE, required=False)
@click.option("--delete", is_flag=True, help="Have no route: the default answers.")
@click.option("--dry-run", is_flag=True, help="Check it against the gateway and show what would change.")
@reason_option
@json_option
@client_options()
def set_route(
    peer: Peer, model: str, file: Path | None, *, delete: bool, dry_run: bool, reason: str, as_json: bool
) -> None:
    """Replace the route of MODEL by that in FILE, YAML or JSON; `-` reads standard input."""
    if (file is None) != delete:
        raise click.UsageError("give either FILE or --delete")
    text = _text_of(file) if file is not None else ""
    from gateway.cli.client import ask
    from gateway.cli.console import show, show_json, window_width
    from gateway.cli.route_screen import change_screen
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    request = pb.SetRouteRequest(model=model, route=text, dry_run=dry_run, reason=reason)
    response: pb.SetRouteResponse = ask(peer, "SetRoute", request)
    if as_json:
        show_json(response)
    else:
        show(change_screen(model, response, window_width(), dry_run=dry_run))


@route.command(
    "explain",
    epilog="Example: driftgate route explain iris --metadata x-user=ada --metadata x-tier=gold --parameter plan=basic",
)
@click.argument("model")
@click.option("--version", default="", metavar="NAME", help="The request's model_version: a version or a label.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Of the request (repeatable); base64 for -bin.")
@click.option("--parameter", multiple=True, metavar="NAME=VALUE", help="Of the request (repeatable); true, 12 or text.")
@click.option("--request-id", default="", metavar="ID", help="The request's id.")
@json_option
@client_options()
def explain_route(
    peer: Peer,
    model: str,
    version: str,
    metadata: tuple[str, ...],
    parameter: tuple[str, ...],
    request_id: str,
    *,
    as_json: bool,
) -> None:
    """Tell where such a request to MODEL would go, and all that was looked at on the way."""
    pairs = [_pair("--metadata", text) for text in metadata]
    parameters = [_pair("--parameter", text) for text in parameter]
    if len({name for name, _ in parameters}) < len(parameters):
        raise click.UsageError("--parameter: a request has each name once")
    from gateway.cli.client import ask
    from gateway.cli.console import show, show_json
    from gateway.cli.route_screen import explanation_screen
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    request = pb.ExplainRouteRequest(
        model=model,
        version=version,
        metadata=[pb.MetadataEntry(key=key, value=value) for key, value in pairs],
        parameters=dict(parameters),
        request_id=request_id,
    )
    response: pb.ExplainRouteResponse = ask(peer, "ExplainRoute", request)
    if as_json:
        show_json(response)
    else:
        show(*explanation_screen(response), soft_wrap=True)


def _text_of(file: Path) -> str:
    """Refuses a file with nothing in it: it comes of a command before the pipe that has failed."""
    name = "standard input" if str(file) == "-" else str(file)
    try:
        with click.open_file(str(file), "rb") as source:
            data: bytes = source.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise Failure(f"{name} cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise Failure(f"{name} is longer than {MAX_FILE_BYTES} bytes: a route is shorter")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Failure(f"{name} is no UTF-8 text: a route is YAML or JSON") from None
    if all(not line.strip() or line.lstrip().startswith("#") for line in text.splitlines()):
        raise Failure(f"{name} has nothing in it; to have no route, give --delete")
    return text


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.UsageError(f"{option}: expected a name, '=' and a value, got {text!r}")
    return name, value
