"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

ADMIN_VARIABLE = "DRIFTGATE_ADMIN"
TOKEN_VARIABLE = "DRIFTGATE_TOKEN"  # noqa: S105  (the variable's name)
DEFAULT_ADMIN = "127.0.0.1:8003"
PEM = click.Path(exists=True, dir_okay=False, path_type=Path)
MAX_VERSION = 2**63 - 1

WINDOWS = {"1m": 60, "10m": 600, "1h": 3_600, "24h": 86_400}

Command = Callable[..., Any]

VERSION_NUMBER = click.IntRange(1, MAX_VERSION)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, every field included.")
reason_option = click.option("--reason", metavar="TEXT", default="", help="Why; kept in the audit.")


@dataclass(frozen=True, slots=True)
class Peer:
    """Where the admin API is and what this client shows it. With any PEM file the connection is TLS.

    `timeout_seconds`: for one call; None: no limit.
    """

    address: str
    token: str = ""
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    timeout_seconds: float | None = None

    @property
    def is_tls(self) -> bool:
        return any(file is not None for file in (self.ca, self.certificate, self.key))


def client_options(timeout_seconds: float | None = 10) -> Callable[[Command], Command]:
    """The options of a command that talks to the admin API; the command gets them as `peer`.

    `timeout_seconds` is the default of --timeout; None: the command has no such option.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(
            admin: str,
            token: str | None,
            token_file: Path | None,
            ca: Path | None,
            cert: Path | None,
            key: Path | None,
            timeout: float | None = None,
            **arguments: Any,
        ) -> Any:
            if (cert is None) != (key is None):
                raise click.UsageError("--cert and --key belong together: give both or none")
            peer = Peer(admin, _token(token, token_file), ca, cert, key, timeout)
            return command(peer=peer, **arguments)

        wrapped: Command = run
        if timeout_seconds is not None:
            seconds = click.FloatRange(0, min_open=True)
            wrapped = click.option(
                "--timeout", type=seconds, default=timeout_seconds, show_default=True, metavar="SECONDS",
                help="How long to wait for the answer.",
            )(wrapped)  # fmt: skip
        for option in reversed(CONNECTION):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def window_seconds(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int:
    """Of an option of a window; 0 without one."""
    if value is None:
        return 0
    if value in WINDOWS:
        return WINDOWS[value]
    if not (value.isascii() and value.isdecimal()) or not 0 < int(value) < 2**31:
        raise click.BadParameter(f"expected {', '.join(WINDOWS)} or seconds, got {value!r}")
    return int(value)


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) <= 65535:
        raise click.BadParameter(f"expected HOST:PORT, as {DEFAULT_ADMIN}, got {value!r}")
    return value


def _token(token: str | None, file: Path | None) -> str:
    """--token or --token-file, whichever was given; else the environment's."""
    if file is not None:
        source = click.get_current_context().get_parameter_source("token")
        if source is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError("--token and --token-file exclude each other: give one")
        try:
            token = file.read_text(encoding="utf-8").strip().partition("\n")[0]
        except (OSError, UnicodeDecodeError):
            raise click.UsageError(f"--token-file: {file} cannot be read as text") from None
    token = (token or "").strip()
    if not (token.isascii() and token.isprintable()):
        raise click.UsageError("the token has characters that gRPC metadata cannot carry: use printable ASCII")
    return token


CONNECTION: tuple[Callable[[Command], Command], ...] = (
    click.option(
        "--admin", metavar="HOST:PORT", default=DEFAULT_ADMIN, callback=_address, envvar=ADMIN_VARIABLE,
        show_default=True, show_envvar=True, help="The gateway's admin API.",
    ),
    click.option(
        "--token", metavar="TOKEN", envvar=TOKEN_VARIABLE, show_envvar=True,
        help="Bearer token; other users of this machine can see options, so prefer a file or the variable.",
    ),
    click.option("--token-file", type=PEM, metavar="FILE", help="File whose first line is the token."),
    click.option("--ca", type=PEM, metavar="FILE", help="Trusted certificates, PEM; makes the connection TLS."),
    click.option("--cert", type=PEM, metavar="FILE", help="This client's certificate, PEM (mTLS)."),
    click.option("--key", type=PEM, metavar="FILE", help="Its private key, PEM."),
)  # fmt: skip
