"""How a command ends when it cannot do what was asked."""

from __future__ import annotations

from typing import IO, Any

import click

FAILED = 1
WRONG_USAGE = 2
UNREACHABLE = 3
ROLLED_BACK = 5
ABORTED = 6
INCONCLUSIVE = 7
INTERRUPTED = 130
"""Of commands whose status says how something ended; as shells have it for Ctrl-C."""


class Failure(click.ClickException):
    """Shown on standard error as `error: <message>`; the process exits with `exit_code`."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"error: {self.format_message()}", file=file, err=file is None)
