"""`driftgate stats`: what was seen of a version's inputs and outputs within a window."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.failure import Failure
from gateway.cli.options import VERSION_NUMBER, Peer, client_options, json_option, window_seconds
from gateway.cli.output import write

if TYPE_CHECKING:
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

SCHEMA_SUFFIX = ".schema.json"
FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(epilog="Example: driftgate stats iris; driftgate stats iris petal_length --window 1h")
@click.argument("model")
@click.argument("feature", required=False, default="")
@click.option("--version", type=VERSION_NUMBER, metavar="N", default=None, help="Not the default version but this one.")
@click.option(
    "--window", callback=window_seconds, metavar="WINDOW", default=None,
    help="1m, 10m, 1h, 24h or seconds; without it, the one that drift is looked for in.",
)  # fmt: skip
@click.option(
    "--sketches", type=FILE, metavar="FILE", default=None,
    help=f"Save the sketches' bytes to FILE, and what they are of to FILE{SCHEMA_SUFFIX}.",
)  # fmt: skip
@json_option
@client_options()
def stats(
    peer: Peer, model: str, feature: str, version: int | None, window: int, sketches: Path | None, *, as_json: bool
) -> None:
    """Show what was seen of MODEL's features, or of one FEATURE."""
    if sketches is not None:
        if feature or as_json:
            raise click.UsageError("--sketches saves those of all features as bytes: give neither FEATURE nor --json")
        _save(peer, model, version or 0, window, sketches)
        return
    from gateway.cli.client import ask
    from gateway.cli.console import show, show_json, window_width
    from gateway.cli.stats_table import feature_screen, features_screen
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    request = pb.GetFeaturesRequest(model=model, version=version or 0, window_seconds=window, feature=feature)
    response: pb.GetFeaturesResponse = ask(peer, "GetFeatures", request)
    if as_json:
        show_json(response)
        return
    if feature and not response.features:
        raise Failure(f"NOT_FOUND: the model has no feature {feature!r}: see driftgate stats {model}")
    screen = feature_screen if feature else features_screen
    show(screen(response, window_width()))


def _save(peer: Peer, model: str, version: int, window_seconds: int, file: Path) -> None:
    from gateway.cli.client import ask
    from gateway.cli.text import byte_count, one_line
    from gateway.report.text import counted, window_name
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    request = pb.GetSketchesRequest(model=model, version=version, window_seconds=window_seconds)
    response: pb.GetSketchesResponse = ask(peer, "GetSketches", request)
    schema = file.with_name(file.name + SCHEMA_SUFFIX)
    try:
        file.write_bytes(response.summary)
        schema.write_text(response.schema, encoding="utf-8")
    except OSError as error:
        raise Failure(f"--sketches: {error.filename} cannot be written: {error.strerror}") from None
    rows = counted(response.window.rows, "row")
    write(
        f"{file}: {byte_count(len(response.summary))}, sketches of {rows} in {window_name(response.window.seconds)} "
        f"of {one_line(response.model)}/{response.version}; {schema.name}: what they are of"
    )
