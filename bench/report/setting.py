"""What a run is of, gathered where it runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from bench import machine
from bench.cores import Cores
from bench.report.results import Code, Machine, Method, Results, Table

FILE_OPTIONS = ("--json", "--markdown")


def results_of(
    module: str,
    tables: tuple[Table, ...],
    *,
    cores: Cores,
    rounds: int,
    seconds: float,
    warm_up_seconds: float,
    generator: str,
    note: str = "",
    failures: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
) -> Results:
    """Of a run of `python -m <module>` that is over. `versions`: of what ran beside this package's own: peers."""
    commit, clean = machine.code()
    return Results(
        command=" ".join(["python", "-m", module, *without_files(sys.argv[1:])]),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        code=Code(commit, clean),
        machine=Machine(**machine.machine()),  # type: ignore[arg-type]  # one dict of several types
        versions={**machine.versions(), **(versions or {})},
        method=Method(rounds, seconds, warm_up_seconds, generator, (cores.server,), (cores.load,), note),
        tables=tables,
        failures=failures or {},
    )


def without_files(arguments: Sequence[str]) -> list[str]:
    """Without where the figures were to be written: it says nothing of them."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if not skip and argument.partition("=")[0] not in FILE_OPTIONS:
            kept.append(argument)
        skip = argument in FILE_OPTIONS
    return kept
