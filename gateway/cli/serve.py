"""`driftgate serve` and `driftgate config check`: both take the same flags over the same file and environment."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.failure import WRONG_USAGE, Failure
from gateway.cli.options import Command
from gateway.cli.output import write

if TYPE_CHECKING:
    from gateway.config import Config

TRANSPORTS = ("auto", "queue", "public")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("auto", "text", "json")
# Literals again, because reading them from gateway.config would import pydantic for --help; a test compares them.

FLAGS: tuple[Callable[[Command], Command], ...] = (
    click.option("--models", multiple=True, metavar="DIR", help="Model repository: folder or fsspec URL; repeatable."),
    click.option("--grpc", metavar="HOST:PORT", help="Where clients reach the models.  [0.0.0.0:8001]"),
    click.option("--http", metavar="HOST:PORT", help="Health and metrics.  [0.0.0.0:8002]"),
    click.option("--admin", metavar="HOST:PORT", help="The admin API.  [127.0.0.1:8003]"),
    click.option("--workers", type=int, metavar="N", help="Worker processes; 0: one per core.  [0]"),
    click.option("--transport", type=click.Choice(TRANSPORTS), help="How gRPC is driven.  [auto]"),
    click.option("--state-dir", metavar="DIR", help="Desired state, audit and the artifact cache."),
    click.option("--log-level", type=click.Choice(LOG_LEVELS), help="The least severe log shown.  [info]"),
    click.option("--log-format", type=click.Choice(LOG_FORMATS), help="auto: text at a terminal, else JSON.  [auto]"),
)
FILE: Callable[[Command], Command] = click.option(
    "--config", "file", type=click.Path(path_type=Path), metavar="FILE", envvar="DRIFTGATE_CONFIG", show_envvar=True,
    help="YAML file of settings; environment and flags go over it.",
)  # fmt: skip


def _settings(command: Command) -> Command:
    for option in (FILE, *reversed(FLAGS)):
        command = option(command)
    return command


@click.command(epilog="Example: driftgate serve --models ./models --workers 2")
@_settings
def serve(file: Path | None, **flags: Any) -> None:
    """Serve the models of a repository until SIGTERM or Ctrl-C."""
    resolved, _ = _load(file, flags)  # the supervisor logs the warnings

    from gateway.supervisor.main import run

    sys.exit(run(resolved))


@click.group(epilog="Example: driftgate config check --config driftgate.yaml")
def config() -> None:
    """Look at the configuration without serving."""


@config.command(epilog="Example: driftgate config check --config driftgate.yaml --workers 2")
@_settings
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of YAML.")
def check(file: Path | None, *, as_json: bool, **flags: Any) -> None:
    """Print the settings that serve would run with, or what is wrong. Credentials in them show as "..."."""
    resolved, warnings = _load(file, flags)
    settings = resolved.model_dump(mode="json")
    settings["telemetry"]["otel"] = {name: _shown(name, value) for name, value in resolved.telemetry.otel.items()}
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        write(json.dumps(settings, indent=2))
        return

    import yaml

    write(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), nl=False)


def _shown(name: str, value: str) -> str:
    """What cannot be taken for the value itself: a file with it is refused."""
    from gateway.telemetry.variables import without_secrets

    if name.endswith("HEADERS"):
        return "..." if value else ""
    return without_secrets(value) if name.endswith("ENDPOINT") else value


def _load(file: Path | None, flags: dict[str, Any]) -> tuple[Config, tuple[str, ...]]:
    """And what of it has no effect, a line each."""
    from gateway.config import ConfigError, load_config
    from gateway.telemetry.settings import read_settings
    from gateway.telemetry.variables import TelemetrySettingsError

    try:
        config = load_config(file, {name: value for name, value in flags.items() if value not in (None, ())})
        telemetry = read_settings(config.telemetry.environment(os.environ), config.telemetry.otel)
    except (ConfigError, TelemetrySettingsError) as error:
        raise Failure(str(error), WRONG_USAGE) from None
    return config, telemetry.warnings
