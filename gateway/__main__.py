"""The command `driftgate`."""

from __future__ import annotations

from gateway.cli import cli


def main() -> None:
    cli(prog_name="driftgate")


if __name__ == "__main__":
    main()
