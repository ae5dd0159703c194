"""The one way to standard output. Light: only click."""

from __future__ import annotations

import os
import sys

import click

from gateway.cli.failure import Failure


def write(text: str = "", *, nl: bool = True) -> None:
    """Writes and flushes. Raises Failure where that cannot be done; a reader that has gone ends the command (click)."""
    if sys.stdout is None:  # the shell's >&-
        raise Failure("standard output is closed")
    try:
        click.echo(text, nl=nl)
    except BrokenPipeError:
        raise
    except OSError as error:
        _forget_the_rest()
        raise Failure(f"standard output cannot be written: {error.strerror}") from None


def is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _forget_the_rest() -> None:
    """What is still buffered would fail again when Python ends, with a traceback."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
