"""`driftgate profile`: what a version's live rows are compared with, built from the data that it learned from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.failure import WRONG_USAGE, Failure
from gateway.cli.options import VERSION_NUMBER, json_option
from gateway.cli.output import write

if TYPE_CHECKING:
    from runtime.profile.reference import Profile

MODELS = click.option(
    "--models", "roots", multiple=True, metavar="DIR",
    help="Model repository, as serve has it: folder or fsspec URL; repeatable.",
)  # fmt: skip
FILE = click.option(
    "--config", "config", type=click.Path(path_type=Path), metavar="FILE", envvar="DRIFTGATE_CONFIG", show_envvar=True,
    help="The gateway's configuration, for its model repositories.",
)  # fmt: skip


@click.group(epilog="Example: driftgate profile build --model iris --version 1 --data train.parquet")
def profile() -> None:
    """Build or look at the reference of a version."""


@profile.command(
    epilog="Example: driftgate profile build --model iris --version 1 --data train.parquet --target species"
)
@click.option("--model", required=True, metavar="NAME", help="The model.")
@click.option("--version", required=True, type=VERSION_NUMBER, metavar="N", help="Its version.")
@click.option(
    "--data", "paths", required=True, multiple=True, type=click.Path(path_type=Path), metavar="FILE",
    help=".parquet, .csv, .csv.gz or .npz, or a folder of Parquet files; repeatable.",
)  # fmt: skip
@click.option("--target", default="", metavar="COLUMN", help="The label: no input, but its values are counted.")
@click.option(
    "--names", default="", metavar="NAMES",
    help="Columns of the model's only input, in its order, with commas between them or as a JSON list.",
)  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Instead of beside the version.")
@click.option("--force", is_flag=True, help="Replace another profile of the version.")
@click.option("--commit", default="", metavar="SHA", help="Of the code that trained the version, to be kept.")
@click.option("--param", "parameters", multiple=True, metavar="KEY=VALUE", help="To be kept; repeatable.")
@click.option("--limit-rows", type=click.IntRange(1), metavar="N", help="Only the first N rows.")
@click.option(
    "--batch-rows", type=click.IntRange(1, 65_536), metavar="N",
    help="Rows in a run of the model.  [as the gateway batches]",
)  # fmt: skip
@MODELS
@FILE
@json_option
def build(
    model: str, version: int, roots: tuple[str, ...], config: Path | None, *, as_json: bool, **asked: Any
) -> None:
    """Run a version on the data it learned from, and keep what is measured as its reference."""
    from gateway.cli.profile_build import Order, build_profile
    from gateway.cli.profile_show import document, lines

    parameters = dict(_parameter(text) for text in asked.pop("parameters"))
    order = Order(model=model, version=version, parameters=parameters, quiet=as_json, **asked)
    built, where, changed = build_profile(_roots(config, roots), order)
    if as_json:
        _write_json({**document(built), "path": where, "changed": changed})
        return
    from gateway.cli.console import show

    show(*lines(built, most=0))
    write(f"{'wrote' if changed else 'unchanged'}     {where}")


@profile.command(epilog="Example: driftgate profile show --model iris --version 1")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--model", default="", metavar="NAME", help="Of a version in the repository, instead of FILE.")
@click.option("--version", type=VERSION_NUMBER, metavar="N", help="With --model: its version.")
@click.option("--all", "everything", is_flag=True, help="Every feature, however many there are.")
@MODELS
@FILE
@json_option
def show(
    file: Path | None, model: str, version: int | None, roots: tuple[str, ...], config: Path | None,
    *, everything: bool, as_json: bool,
) -> None:  # fmt: skip
    """Print where a profile comes from, and what it says of each feature."""
    if (file is None) == (not model) or bool(model) != (version is not None):
        raise click.UsageError("give FILE, or --model and --version")
    from gateway.cli.profile_show import MOST_FEATURES, document, lines

    found = _read(file) if file is not None else _find(_roots(config, roots), model, version or 0)
    if as_json:
        _write_json(document(found))
        return
    from gateway.cli import console

    console.show(*lines(found, most=None if everything else MOST_FEATURES))


def _roots(config: Path | None, roots: tuple[str, ...]) -> Any:
    """The gateway's configuration: for its roots, and the cache of what was fetched from them."""
    from gateway.config import ConfigError, load_config

    try:
        return load_config(config, {"models": roots} if roots else {})
    except ConfigError as error:
        raise Failure(str(error), WRONG_USAGE) from None


def _parameter(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found or not key:
        raise click.UsageError(f"--param: expected KEY=VALUE, got {text!r}")
    return key, value


def _read(file: Path) -> Profile:
    from runtime.repository.layout import MAX_PROFILE_BYTES

    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_PROFILE_BYTES + 1)
    except OSError as error:
        raise Failure(f"{file}: cannot be read: {error.strerror}") from None
    return _decoded(data, str(file))


def _find(config: Any, model: str, version: int) -> Profile:
    from gateway.cli.profile_build import open_repository
    from runtime.errors import ServingError

    with open_repository(config) as repository:
        try:
            data = repository.profile(model, version)
        except ServingError as error:
            raise Failure(error.message) from None
    if data is None:
        raise Failure(
            f"version {version} of model {model!r} has no profile: driftgate profile build --model {model} "
            f"--version {version} --data FILE makes one"
        )
    return _decoded(data, f"{model}/{version}")


def _decoded(data: bytes, where: str) -> Profile:
    from runtime.profile.reference import Profile
    from runtime.sketch.errors import Malformed

    try:
        return Profile.decode(data)
    except Malformed as error:
        raise Failure(f"{where}: is no profile: {error}") from None


def _write_json(shown: dict[str, Any]) -> None:
    import json

    write(json.dumps(shown, indent=2, sort_keys=True, ensure_ascii=False))
